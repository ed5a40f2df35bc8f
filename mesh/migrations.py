"""Forward-only migrations: numbered SQL files, applied once each, in order, in the schema of their service.

For each service: its schema and its role, then mesh/migrations (tables that the mesh needs), then the job library's
tables, then services/<domain>/migrations. The role owns nothing; it may read and write rows, no more.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import asyncpg
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment

from mesh.jobs import job_table_settings

_LOCK_ID = 74_017_405


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file, or the job library's own tables."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text: an applied migration must never change."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def domains() -> list[str]:
    """The services that have a schema: every folder of services/ with migrations."""
    folder = importlib.resources.files("services")
    return sorted(entry.name for entry in folder.iterdir() if (entry / "migrations").is_dir())


def role_of(domain: str) -> str:
    """The database role of a service."""
    return f"kente_{domain}"


async def migrate(admin_url: str, passwords: Mapping[str, str]) -> list[str]:
    """Brings every service's schema up to date.

    Args:
        admin_url: DSN of a role that may create roles and schemas.
        passwords: password of each service's role by domain; a role without one keeps what it has.

    Returns:
        What was applied, such as "payments/0001_create_payments".

    Raises:
        SystemExit: a migration that was applied has changed since.
    """
    applied = []
    async with _locked_connection(admin_url) as connection:
        for domain in domains():
            await _prepare_schema(connection, domain, passwords.get(domain))
            done = await _applied(connection, domain)
            for migration in migrations_of(domain):
                if migration.name not in done:
                    await _apply(connection, domain, migration)
                    applied.append(f"{domain}/{migration.name}")
                elif done[migration.name] != migration.checksum and not migration.name.startswith("jobs"):
                    raise SystemExit(f"{domain}/{migration.name} was changed after it was applied: add a new migration")
    return applied


def migrations_of(domain: str) -> Iterator[Migration]:
    """The migrations of a service, in order."""
    for file in _numbered_files(importlib.resources.files("mesh") / "migrations"):
        yield Migration(f"mesh/{file.name.removesuffix('.sql')}", file.read_text())
    install = QueryBuilderEnvironment(settings=job_table_settings(domain)).build_install_query(create_schema=False)
    yield Migration("jobs/install", install)
    for file in _numbered_files(importlib.resources.files(f"services.{domain}") / "migrations"):
        yield Migration(file.name.removesuffix(".sql"), file.read_text())


def _numbered_files(folder: Traversable) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)


@asynccontextmanager
async def _locked_connection(admin_url: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        connection = await asyncpg.connect(admin_url, timeout=10)
    except (OSError, asyncpg.PostgresError, ValueError) as error:
        detail = f"the database can't be reached ({type(error).__name__}); start it, or correct the address"
        raise SystemExit(f"KENTE_DATABASE_URL: {detail}") from None
    try:
        # Two starters must not migrate at once.
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_ID)
        await connection.execute("SET lock_timeout = '5s'")
        yield connection
    finally:
        await connection.close()


async def _prepare_schema(connection: asyncpg.Connection, domain: str, password: str | None) -> None:
    role = role_of(domain)
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f"CREATE ROLE {role} LOGIN")
    if password is not None:
        literal = await connection.fetchval("SELECT quote_literal($1::text)", password)
        await connection.execute(f"ALTER ROLE {role} PASSWORD {literal}")
    await connection.execute(f"""
        CREATE SCHEMA IF NOT EXISTS {domain};
        GRANT USAGE ON SCHEMA {domain} TO {role};
        ALTER ROLE {role} SET search_path = {domain};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {domain} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA {domain} GRANT USAGE ON SEQUENCES TO {role};
        CREATE TABLE IF NOT EXISTS {domain}.schema_migrations (
            name        text        PRIMARY KEY,
            checksum    text        NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now()
        );
        REVOKE INSERT, UPDATE, DELETE ON {domain}.schema_migrations FROM {role};
    """)


async def _applied(connection: asyncpg.Connection, domain: str) -> dict[str, str]:
    rows = await connection.fetch(f"SELECT name, checksum FROM {domain}.schema_migrations")  # noqa: S608 - our own name
    return {row["name"]: row["checksum"] for row in rows}


async def _apply(connection: asyncpg.Connection, domain: str, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL search_path = {domain}")
        await connection.execute(migration.sql)
        await connection.execute(
            f"INSERT INTO {domain}.schema_migrations (name, checksum) VALUES ($1, $2)",  # noqa: S608 - our own name
            migration.name,
            migration.checksum,
        )
