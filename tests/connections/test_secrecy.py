"""Credentials are in the answer to the service that needs them and nowhere else."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
import pytest

from mesh.ids import new_id
from tests.connections.desk import KEYS_SETTING, Desk, create_request, delete_request, encryption_key, refusal
from tests.harness import Infrastructure, TestMesh
from tests.identity.leaks import dump, events_of, forms_of
from tests.identity.process import running

SECRETS = {"api_user": "user-of-the-wallet-7f3a", "api_key": "0f8d2b6c4a9e4d1f8b7a6c5d4e3f2a1b"}


async def errors_about(desk: Desk, admin: asyncpg.Connection, connection_id: str) -> list[bytes]:
    """The status of every kind of failure that a request with credentials can meet."""
    secret = SECRETS["api_key"]
    problems = [
        await refusal(desk.create(credentials=SECRETS | {"apikey": secret})),
        await refusal(desk.create(credentials=SECRETS | {secret: "api_key"})),
        await refusal(desk.create(credentials={"api_user": secret})),
        await refusal(desk.create(credentials=SECRETS, base_url=f"https://user:{secret}@example.com")),
        await refusal(desk.create(credentials=SECRETS, request_id="1")),
        await refusal(desk.create("unknown", credentials=SECRETS)),
    ]
    await admin.execute(
        "UPDATE connections SET sealed_credentials = sealed_credentials || '\\x00' WHERE connection_id = $1",
        connection_id,
    )
    problems.append(await refusal(desk.resolve(connection_id)))
    await admin.execute("REVOKE INSERT ON connections FROM kente_connections")
    try:
        problems.append(await refusal(desk.create(credentials=SECRETS)))
    finally:
        await admin.execute("GRANT INSERT ON connections TO kente_connections")
    assert [problem.reason_name for problem in problems[-2:]] == ["INTERNAL", "INTERNAL"]
    return [problem.to_status().SerializeToString() for problem in problems]


def _happened(documents: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """What happened to each resource. The bus keeps the order of one resource's events, and of no others."""
    happened: defaultdict[str, list[str]] = defaultdict(list)
    for document in documents:
        happened[document["subject"]].append(document["type"].rpartition(".")[2])
    return dict(happened)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.usefixtures("payments", "notifications")
async def test_credentials_stay_in_their_answers(
    infrastructure: Infrastructure, test_mesh: TestMesh, admin: asyncpg.Connection, tmp_path: Path, log_format: str
) -> None:
    key = encryption_key("k9")
    settings = {KEYS_SETTING: key, "KENTE_LOG_FORMAT": log_format}
    async with running("connections", infrastructure, tmp_path, settings) as output:
        desk = Desk(test_mesh, new_id("ten"))
        request = create_request(credentials=SECRETS)
        created = (await desk.client.CreateConnection(request)).connection
        await desk.client.CreateConnection(request)
        resolved = await desk.resolve(created.connection_id)
        deleted = await desk.create(credentials=SECRETS)
        await desk.client.DeleteConnection(delete_request(deleted.connection_id))
        unread = await desk.create(credentials=SECRETS)
        errors = await errors_about(desk, admin, unread.connection_id)
        events = await events_of(infrastructure, desk.tenant_id, count=4)
        tables = await dump(infrastructure, "connections")

    assert resolved.credentials == SECRETS
    written = output.text()
    assert created.connection_id in tables
    assert "call_failed" in written
    assert "/kente.connections.v1.CredentialService/ResolveCredentials" in written
    everywhere = "\n".join([written, tables, *(event.decode() for event in events), *map(repr, errors)])
    for secret in (*SECRETS.values(), key.partition(":")[2]):
        for form in forms_of(secret):
            assert form not in everywhere
    documents = [json.loads(event) for event in events]
    assert _happened(documents) == {
        created.connection_id: ["created"],
        deleted.connection_id: ["created", "deleted"],
        unread.connection_id: ["created"],
    }
    assert all("credentials" not in document["data"] for document in documents)


@pytest.mark.parametrize("keys", ["", "k1:c2hvcnQ=", "bm90IGEga2V5IGF0IGFsbCwganVzdCB0ZXh0"])
async def test_without_a_good_key_it_says_in_one_line_how_to_make_one(keys: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KENTE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.connections",
        env=environment | {KEYS_SETTING: keys},
        stderr=asyncio.subprocess.PIPE,
    )
    _nothing, told = await process.communicate()

    line, end = told.decode().split("\n")
    assert process.returncode != 0
    assert line.startswith(f"{KEYS_SETTING}: ")
    assert "make one with: python3 -c" in line
    assert not keys or keys.rpartition(":")[2] not in line
    assert end == ""
