"""The provider sandbox: serves every simulator in one process, with faults on demand."""
