"""Where the embedded mesh keeps its things, and which ports its processes listen on."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.embedded.errors import StartError
from mesh.embedded.ports import LOOPBACK, holder, is_free

SERVICES: Final = ("payments", "identity", "ledger", "notifications", "connections")
POSTGRES: Final = "postgres"
NATS: Final = "nats"
GATEWAY: Final = "gateway"
SANDBOX: Final = "sandbox"
# Not a process: who `kente` itself is when it calls services.
OPERATOR: Final = "operator"
# Beside the identities. It is none: nobody calls with it.
CHECKPOINT_KEY: Final = "ledger-checkpoints.jwk"

_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class StateDir:
    """The folder of everything that `kente up` keeps."""

    path: Path

    def create(self) -> None:
        """Make the folder and those inside, readable by the owner only.

        Raises:
            StartError: it can't be written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.traces):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StartError(
                f"the state folder {self.path} can't be made ({error.strerror}): choose another with --state-dir"
            ) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StartError(f"the state folder {self.path} can't be written: choose another with --state-dir")

    @property
    def postgres(self) -> Path:
        """Data of the embedded PostgreSQL."""
        return self.path / "postgres"

    @property
    def nats(self) -> Path:
        """Streams of the embedded NATS."""
        return self.path / "nats"

    @property
    def identities(self) -> Path:
        """Private key of each process, and the bundle of all public ones."""
        return self.path / "identities"

    @property
    def trust_bundle_file(self) -> Path:
        """Public keys of all processes."""
        return self.identities / "bundle.jwks"

    @property
    def checkpoint_key_file(self) -> Path:
        """Private key that the ledger signs checkpoints with."""
        return self.identities / CHECKPOINT_KEY

    @property
    def secrets_file(self) -> Path:
        """Passwords and keys that were made once."""
        return self.path / "secrets.json"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.path / "logs"

    @property
    def traces(self) -> Path:
        """Finished spans of each process, one JSON object a line."""
        return self.path / "traces"

    @property
    def proofs(self) -> Path:
        """Proofs that the demo had checked."""
        return self.path / "proofs"

    @property
    def run_file(self) -> Path:
        """What is running now."""
        return self.path / "run.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one supervisor of this folder."""
        return self.path / "lock"

    @property
    def demo_file(self) -> Path:
        """Environment of the demo tenant, to be sourced by a shell."""
        return self.path / "demo.env"


@dataclass(frozen=True, slots=True)
class PortSetting:
    """One port of one process."""

    process: str
    name: str
    setting: str
    default: int


def _service_ports() -> list[PortSetting]:
    grpc = [PortSetting(name, "grpc", f"KENTE_{name.upper()}_PORT", 7401 + i) for i, name in enumerate(SERVICES)]
    metrics = [
        PortSetting(name, "metrics", f"KENTE_{name.upper()}_METRICS_PORT", 7501 + i) for i, name in enumerate(SERVICES)
    ]
    return grpc + metrics


PORT_SETTINGS: Final = (
    *_service_ports(),
    PortSetting(GATEWAY, "http", "KENTE_GATEWAY_PORT", 8080),
    PortSetting(SANDBOX, "http", "KENTE_SANDBOX_PORT", 7480),
    PortSetting(SANDBOX, "smtp", "KENTE_SANDBOX_SMTP_PORT", 7425),
    PortSetting(POSTGRES, "sql", "KENTE_POSTGRES_PORT", 7432),
    PortSetting(NATS, "client", "KENTE_NATS_PORT", 7422),
    PortSetting(NATS, "monitor", "KENTE_NATS_MONITOR_PORT", 7482),
)


@dataclass(frozen=True, slots=True)
class Ports:
    """The port of each setting, after the environment and the offset."""

    by_setting: Mapping[str, int]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], offset: int = 0) -> "Ports":
        """Read the ports.

        Raises:
            StartError: one is no port.
        """
        return cls({entry.setting: _read_port(entry, environment, offset) for entry in PORT_SETTINGS})

    def of(self, process: str, name: str) -> int:
        """Port of a process by its name there, such as ("sandbox", "smtp")."""
        return next(
            self.by_setting[entry.setting] for entry in PORT_SETTINGS if (entry.process, entry.name) == (process, name)
        )

    def of_process(self, process: str) -> dict[str, int]:
        """All ports of a process, by name."""
        return {entry.name: self.by_setting[entry.setting] for entry in PORT_SETTINGS if entry.process == process}

    def address(self, process: str, name: str) -> str:
        """Address on this machine, host:port."""
        return f"{LOOPBACK}:{self.of(process, name)}"

    def url(self, process: str) -> str:
        """Address of an HTTP server on this machine."""
        return f"http://{self.address(process, 'http')}"

    def taken(self, processes: set[str]) -> list[str]:
        """A line for each port that one of these processes needs and can't have, with what to do about it."""
        needed = [entry for entry in PORT_SETTINGS if entry.process in processes]
        counts = Counter(self.by_setting[entry.setting] for entry in needed)
        return [line for entry in needed if (line := self._fault(entry, counts[self.by_setting[entry.setting]]))]

    def _fault(self, entry: PortSetting, uses: int) -> str:
        port = self.by_setting[entry.setting]
        if uses > 1:
            return f"port {port} is set for {uses} purposes, one of them {entry.process}: change {entry.setting}"
        if is_free(port):
            return ""
        by = f" by {name}" if (name := holder(port)) else ""
        return (
            f"port {port} is taken{by}, and {entry.process} needs it: "
            f"free it, set {entry.setting} to another, or shift all ports with --port-offset"
        )


def _read_port(entry: PortSetting, environment: Mapping[str, str], offset: int) -> int:
    text = environment.get(entry.setting, "").strip() or str(entry.default)
    if not text.isascii() or not text.isdigit():
        raise StartError(f"{entry.setting}={text} is not a port: use a number such as {entry.default}")
    port = int(text) + offset
    if not 0 < port <= _HIGHEST_PORT:
        raise StartError(f"{entry.setting} gives port {port}: use 1 to {_HIGHEST_PORT}, also after --port-offset")
    return port
