"""The `kente` command."""

import sys


def main() -> None:
    """Run the command. What the user can put right is told in one line, with exit status 2."""
    from mesh.cli.app import run  # noqa: PLC0415 - the package is imported by helpers that need no command

    sys.exit(run(sys.argv[1:]))
