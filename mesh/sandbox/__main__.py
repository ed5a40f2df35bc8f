"""`python -m mesh.sandbox`: the provider sandbox."""

from mesh.logs import configure_logs
from mesh.sandbox.server import Sandbox
from mesh.sandbox.settings import SandboxSettings
from mesh.settings import MeshSettings, load


def main() -> None:
    """Serves until told to stop."""
    shared = load(MeshSettings)
    configure_logs(shared, "sandbox")
    Sandbox(load(SandboxSettings), shared.host, shared.state_dir / "sandbox.db").run()


main()
