"""`python -m mesh.cli` is `kente`."""

from mesh.cli import main

main()
