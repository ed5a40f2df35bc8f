"""PostgreSQL, NATS and the processes of the mesh, started from one command on one machine."""
