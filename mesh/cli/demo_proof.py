"""The proof of a posting, checked by a program of its own that reads two files and opens no connection."""

import asyncio
import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mesh.cli.demo_report import Json
from mesh.embedded.files import write_private

# A program of its own beside the mesh: it imports none of it.
_VERIFIER = "kente_verify"
_LIMIT_SECONDS = 20.0
# Its exit statuses; another says that it could not check.
_PROVED, _WRONG = 0, 1


@dataclass(frozen=True, slots=True)
class ProofFiles:
    """What an auditor is given: the proof, and the keys that the log's heads are signed with."""

    proof: Path
    keys: Path

    @classmethod
    def write(cls, folder: Path, transaction_id: str, proof: Json, verifier_keys: list[str]) -> "ProofFiles":
        """Write both into a folder, which is made."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = cls(folder / f"{transaction_id}.json", folder / "keys.txt")
        write_private(files.proof, json.dumps(proof, indent=1), durable=False)
        write_private(files.keys, "".join(f"{key}\n" for key in verifier_keys), durable=False)
        return files

    def changed(self) -> "ProofFiles":
        """The same with one bit of the record flipped, beside it."""
        proof = json.loads(self.proof.read_text())
        record = bytearray(base64.b64decode(proof["record"]))
        record[len(record) // 2] ^= 1
        proof["record"] = base64.b64encode(record).decode()
        changed = ProofFiles(self.proof.with_suffix(".changed.json"), self.keys)
        write_private(changed.proof, json.dumps(proof, indent=1), durable=False)
        return changed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier found: whether the proof holds, whether it is wrong, or neither; and its own words."""

    holds: bool
    is_wrong: bool
    told: list[str]

    def __str__(self) -> str:
        """Its words in one line."""
        return "; ".join(line.strip() for line in self.told)

    def is_about(self, transaction_id: str, tenant_id: str) -> bool:
        """Whether it is about this transaction of this tenant, and not about another's."""
        return any(transaction_id in line and tenant_id in line for line in self.told)


async def verify(files: ProofFiles) -> Verdict:
    """Run the verifier on a proof, with nothing of the mesh but the two files.

    Raises:
        TimeoutError: it does not end.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _VERIFIER, str(files.proof), "--keys", str(files.keys)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={},
    )
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    told = output.decode(errors="replace").splitlines()
    return Verdict(process.returncode == _PROVED, process.returncode == _WRONG, told)


def facts_of(transaction_id: str, proof: Json, files: ProofFiles) -> Json:
    """What there is to say about a proof before it is checked."""
    checkpoint = proof["checkpoint"]
    # The last line of a signed note: dash, name of the key, key id and signature.
    _, key_name, signature = checkpoint["note"].strip().splitlines()[-1].split(" ", 2)
    key_id = f"{key_name}+{base64.b64decode(signature)[:4].hex()}"
    return {
        "transactionId": transaction_id,
        # Proto JSON leaves zero out.
        "leafIndex": proof.get("leafIndex", "0"),
        "treeSize": checkpoint["treeSize"],
        "rootHash": base64.b64decode(checkpoint["rootHash"]).hex(),
        "note": checkpoint["note"],
        "signedBy": next((key for key in files.keys.read_text().splitlines() if key.startswith(f"{key_id}+")), key_id),
        "file": str(files.proof),
        "keysFile": str(files.keys),
    }


def verdicts_of(right: Verdict, changed: Verdict) -> Json:
    """What the verifier found, of the proof as it is and of the changed one."""
    return {
        "holds": right.holds,
        "verdict": right.told,
        "holdsWhenChanged": changed.holds,
        "verdictWhenChanged": changed.told,
    }
