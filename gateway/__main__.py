"""Runs the gateway: python -m gateway."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from types import FrameType

import uvicorn
import uvloop

from gateway.application import Gateway, build
from gateway.settings import GatewaySettings
from mesh.logs import configure_logs, get_logger
from mesh.settings import MeshSettings, load
from mesh.telemetry import configure_telemetry
from mesh.tokens import Identity

_PROCESS = "gateway"
_BACKLOG = 2048
_log = get_logger()


class _Server(uvicorn.Server):
    """A server that ends by itself when it is asked to.

    uvicorn would wait for open streams, and would raise the signal again when it is done, which kills the process
    before its last spans are written.
    """

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signature of uvicorn
        """Stops accepting, and tells open streams to end. A second Ctrl-C waits for nothing."""
        self._loop.call_soon_threadsafe(self._gateway.stopping.set)
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


async def run(settings: GatewaySettings, mesh_settings: MeshSettings) -> None:
    """Serves until SIGTERM or SIGINT, then lets calls end."""
    listener = _listen(mesh_settings.host, settings.port)
    identity = Identity.load(mesh_settings.identity_file) if mesh_settings.identity_file else None
    gateway = build(settings, mesh_settings, identity)
    config = uvicorn.Config(
        gateway.app,
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        date_header=True,
        timeout_graceful_shutdown=max(1, round(mesh_settings.drain_seconds)),
    )
    host, port = listener.getsockname()[:2]
    _log.info("gateway_started", host=host, port=port)
    await _Server(config, gateway).serve(sockets=[listener])
    _log.info("gateway_stopped")


def _listen(host: str, port: int) -> socket.socket:
    """Takes the port, or ends the process with one line that names it and its setting."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        why = "is taken by another process" if taken else f"can't be opened ({error.strerror})"
        print(f"port {port} on {host} {why}: set KENTE_GATEWAY_PORT to a free one", file=sys.stderr)  # noqa: T201 - for people
        raise SystemExit(1) from None
    return listener


def main() -> None:
    """Entry point of the process."""
    mesh_settings, settings = load(MeshSettings), load(GatewaySettings)
    configure_logs(mesh_settings, _PROCESS)
    configure_telemetry(mesh_settings, _PROCESS)
    uvloop.run(run(settings, mesh_settings))


if __name__ == "__main__":
    main()
