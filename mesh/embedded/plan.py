"""Which processes make up the mesh, and what each of them is given."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from mesh.embedded.errors import StartError
from mesh.embedded.health import GrpcHealth, HealthCheck, HttpHealth, PostgresHealth
from mesh.embedded.keys import InstallationKeys
from mesh.embedded.layout import GATEWAY, NATS, POSTGRES, SANDBOX, SERVICES, Ports, StateDir
from mesh.embedded.nats import DEATH_SIGNAL as NATS_DEATH_SIGNAL
from mesh.embedded.nats import EmbeddedNats
from mesh.embedded.postgres import DEATH_SIGNAL as POSTGRES_DEATH_SIGNAL
from mesh.embedded.postgres import STOP_SIGNALS as POSTGRES_STOP_SIGNALS
from mesh.embedded.postgres import EmbeddedPostgres
from mesh.embedded.process import ProcessPlan
from mesh.embedded.settings import EmbeddedSettings
from mesh.settings import load

# In the order of starting; stopped in the reverse order.
PYTHON_PROCESSES: Final = (SANDBOX, *SERVICES, GATEWAY)
_MODULES: Final = {SANDBOX: "mesh.sandbox", GATEWAY: "gateway"} | {name: f"services.{name}" for name in SERVICES}

# More memory arenas than two only keep freed memory: each process has one busy thread.
_MALLOC_ARENAS = "2"


@dataclass(frozen=True, slots=True)
class OutsideServers:
    """Servers that run elsewhere; empty where the embedded one is used."""

    database_url: str
    nats_url: str
    cache_url: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "OutsideServers":
        """Read KENTE_DATABASE_URL, KENTE_NATS_URL and KENTE_CACHE_URL."""
        return cls(*(environment.get(f"KENTE_{name}_URL", "").strip() for name in ("DATABASE", "NATS", "CACHE")))


@dataclass(frozen=True, slots=True)
class MeshPlan:
    """All that is known before anything starts.

    Attributes:
        state: Where everything is kept.
        ports: Who listens where.
        outside: Servers that are not started here.
        settings: Settings of `kente up`.
        environment: The environment `kente up` was called with.
    """

    state: StateDir
    ports: Ports
    outside: OutsideServers
    settings: EmbeddedSettings
    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls, state: StateDir, environment: Mapping[str, str], port_offset: int = 0) -> "MeshPlan":
        """Read everything from KENTE_* variables.

        Raises:
            StartError: a port is none.
            SystemExit: another setting is wrong; a line about it was printed.
        """
        settings = load(EmbeddedSettings)
        ports = Ports.from_environment(environment, port_offset)
        return cls(state, ports, OutsideServers.from_environment(environment), settings, environment)

    @property
    def postgres(self) -> EmbeddedPostgres:
        """The embedded PostgreSQL."""
        return EmbeddedPostgres(self.state.postgres, self.ports.of(POSTGRES, "sql"), self.state.logs / "postgres.log")

    @property
    def nats(self) -> EmbeddedNats:
        """The embedded NATS."""
        client, monitor = self.ports.of(NATS, "client"), self.ports.of(NATS, "monitor")
        return EmbeddedNats(self.state.nats, client, monitor, self.state.logs / "nats.log")

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of the processes that are started here, in the order of starting."""
        servers = [
            *([] if self.outside.database_url else [POSTGRES]),
            *([] if self.outside.nats_url else [NATS]),
        ]
        return (*servers, *PYTHON_PROCESSES)

    @property
    def admin_url(self) -> str:
        """Address of the database for its administrator. Exists once the embedded one is initialised."""
        return self.outside.database_url or self.postgres.admin_url

    def process_plan(self, name: str, keys: InstallationKeys) -> ProcessPlan:
        """How to run one process."""
        if name == POSTGRES:
            return self._postgres_plan()
        if name == NATS:
            return self._nats_plan()
        return ProcessPlan(
            name=name,
            command=lambda: [sys.executable, "-P", "-m", _MODULES[name]],
            environment=lambda: self.environment_of(name, keys),
            health=self.health_check(name),
            ports=self.ports.of_process(name),
            prepare=lambda: _set_aside(self.state.traces / f"{name}.jsonl", self.settings.trace_file_max_bytes),
            folder=str(Path.cwd()),
            stop_signals=((signal.SIGTERM, self.settings.stop_limit_seconds),),
        )

    def health_check(self, name: str) -> HealthCheck:
        """How to ask one process whether it serves."""
        if name == POSTGRES:
            server = self.postgres
            return PostgresHealth(lambda: server.admin_url, server.says_ready)
        if name == NATS:
            return HttpHealth(self.ports.of(NATS, "monitor"), "/healthz")
        if name in SERVICES:
            return GrpcHealth(self.ports.of(name, "grpc"))
        return HttpHealth(self.ports.of(name, "http"), "/readyz" if name == GATEWAY else "/healthz")

    def environment_of(self, name: str, keys: InstallationKeys) -> dict[str, str]:
        """The whole environment of one Python process: the caller's, without what is for others, and its own."""
        environment = {key: value for key, value in self.environment.items() if not _belongs_to_another(key, name)}
        environment |= {"PYTHONUNBUFFERED": "1"}
        environment.setdefault("MALLOC_ARENA_MAX", _MALLOC_ARENAS)
        environment |= self.addresses()
        environment |= {
            "KENTE_TRACE_FILE": str(self.state.traces / f"{name}.jsonl"),
            "KENTE_IDENTITY_FILE": str(self.state.identities / f"{name}.jwk"),
        }
        if name in SERVICES:
            environment["KENTE_DATABASE_URL"] = self._role_url(f"kente_{name}", keys.role_passwords[name])
            environment["KENTE_NATS_URL"] = self.outside.nats_url or self.nats.url
            environment.setdefault("KENTE_REQUEST_HASH_KEY", keys.request_hash_key)
        if name == "ledger":
            environment.setdefault("KENTE_LEDGER_CHECKPOINT_KEY_FILE", str(self.state.checkpoint_key_file))
        if name == "connections":
            environment.setdefault("KENTE_CONNECTIONS_ENCRYPTION_KEYS", keys.connections_encryption_keys)
        return environment

    def addresses(self) -> dict[str, str]:
        """What every process and client of this mesh is told: where the others are, and whom to believe."""
        addresses = {
            "KENTE_STATE_DIR": str(self.state.path),
            "KENTE_TRUST_BUNDLE_FILE": str(self.state.trust_bundle_file),
            "KENTE_SANDBOX_URL": self.ports.url(SANDBOX),
            "KENTE_PUBLIC_URL": self.environment.get("KENTE_PUBLIC_URL") or self.ports.url(GATEWAY),
        }
        addresses |= {f"KENTE_{name.upper()}_ADDRESS": self.ports.address(name, "grpc") for name in SERVICES}
        return addresses | {setting: str(port) for setting, port in self.ports.by_setting.items()}

    def _role_url(self, role: str, password: str) -> str:
        if not self.outside.database_url:
            return self.postgres.url(role, password)
        return with_credentials(self.outside.database_url, role, password)

    def _postgres_plan(self) -> ProcessPlan:
        server = self.postgres
        return ProcessPlan(
            name=POSTGRES,
            command=server.command,
            environment=server.environment,
            health=self.health_check(POSTGRES),
            ports=self.ports.of_process(POSTGRES),
            prepare=server.prepare,
            account=lambda: server.account,
            death_signal=POSTGRES_DEATH_SIGNAL,
            stop_signals=POSTGRES_STOP_SIGNALS,
        )

    def _nats_plan(self) -> ProcessPlan:
        server = self.nats
        return ProcessPlan(
            name=NATS,
            command=server.command,
            environment=server.environment,
            health=self.health_check(NATS),
            ports=self.ports.of_process(NATS),
            prepare=server.prepare,
            death_signal=NATS_DEATH_SIGNAL,
        )


def _belongs_to_another(key: str, name: str) -> bool:
    if key in {"KENTE_DATABASE_URL", "KENTE_NATS_URL"}:
        return True
    others = (process for process in PYTHON_PROCESSES if process != name)
    return any(key.startswith(f"KENTE_{other.upper()}_") for other in others)


def with_credentials(url: str, user: str, password: str) -> str:
    """The same address for another user.

    Raises:
        StartError: it is no address of a PostgreSQL server.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"} or not parts.hostname:
        raise StartError("KENTE_DATABASE_URL is no PostgreSQL address: use postgresql://user:password@host:5432/kente")
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{place}"))


def _set_aside(path: Path, max_bytes: int) -> None:
    """Begin a trace file anew when it has grown too large; the one before is kept."""
    if path.exists() and path.stat().st_size > max_bytes:
        path.replace(path.with_name(path.name + ".1"))
