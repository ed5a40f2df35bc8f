"""The bundle that proves a tenant's books to whoever has kente-verify and the ledger's public key.

A text file: first a line of JSON with the form's name, the signed checkpoint and the public keys there are; then a line
for each record of the tree, in order, in base64. docs/ledger-proofs.md tells more.
"""

import base64
import json
from collections.abc import AsyncIterable, Callable, Sequence
from typing import IO

from kente.ledger.v1 import proof_service_pb2, proof_service_pb2_grpc

from mesh.cli.output import CommandError

BUNDLE_FORM = "kente-ledger-bundle-v1"
_KEYS_AT_ONCE = 200


async def export_bundle(
    proofs: "proof_service_pb2_grpc.ProofServiceAsyncStub", file: IO[bytes], tell: Callable[[int, int], None]
) -> int:
    """Writes the bundle of all that a tenant has booked. Returns the number of bytes.

    Args:
        tell: is told how many records are written, and of how many.

    Raises:
        CommandError: nothing was booked yet, or the stream ended before its end.
    """
    keys: list[str] = []
    page_token = ""
    while True:
        request = proof_service_pb2.ListCheckpointKeysRequest(page_size=_KEYS_AT_ONCE, page_token=page_token)
        page = await proofs.ListCheckpointKeys(request)
        keys += [key.verifier_key for key in page.keys]
        page_token = page.next_page_token
        if not page_token:
            break
    return await write_bundle(proofs.ExportRecords(proof_service_pb2.ExportRecordsRequest()), keys, file, tell)


async def write_bundle(
    parts: AsyncIterable[proof_service_pb2.ExportRecordsResponse],
    verifier_keys: Sequence[str],
    file: IO[bytes],
    tell: Callable[[int, int], None],
) -> int:
    """Writes a bundle from the parts of an export of records, as they come. Returns the number of bytes.

    Raises:
        CommandError: the export is not whole.
    """
    written = count = tree_size = 0
    async for part in parts:
        if part.HasField("checkpoint"):
            tree_size = part.checkpoint.tree_size
            header = {"form": BUNDLE_FORM, "note": part.checkpoint.note, "keys": list(verifier_keys)}
            written += file.write(json.dumps(header).encode() + b"\n")
        if part.records and part.first_leaf_index != count:
            raise CommandError(f"record {count} is missing in the export: run `kente ledger verify`")
        written += file.write(b"".join(base64.b64encode(record) + b"\n" for record in part.records))
        count += len(part.records)
        tell(count, tree_size)
    if count != tree_size or not tree_size:
        raise CommandError(f"the export ended after {count} of {tree_size} records: run `kente ledger verify`")
    return written
