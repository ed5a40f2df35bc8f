"""Checks what Kente's ledger proves, offline: `kente-verify FILE --key VERIFIER_KEY`.

One file with nothing of Kente in it, so that whoever doubts the ledger can read it in one go. It needs Python 3.11 and
the package `cryptography`. The forms are those of docs/ledger-proofs.md: Merkle trees of RFC 6962 and RFC 9162, signed
notes and checkpoints of C2SP (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), and records of transactions.

FILE is a bundle (`kente ledger export --bundle`): all records of a tenant, with the checkpoint that they lead to; or an
inclusion proof as JSON, as the API gives it: one record, and the way from it to a checkpoint. Get the verifier key from
the ledger's owner by another way than the file: a forger would put his own beside it.

Exit status: 0 all is proved, 1 something is wrong, 2 it could not be checked.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BUNDLE_FORM = "kente-ledger-bundle-v1"
RECORD_FORM = "kente-ledger-record-v1"
PROVED, WRONG, UNCHECKED = 0, 1, 2

_HASH_BYTES = 32
_INTEGER_BYTES = 8
_ED25519 = b"\x01"
_SIGNATURE = ("\u2014", "name", "base64")
_KINDS = {"posting", "hold", "hold_posting", "hold_void", "hold_expiry", "reversal"}
_ENDS = {"hold_posting", "hold_void", "hold_expiry"}
_SIGNS = {"debit": 1, "credit": -1}
# Of the year 9999.
_END_MICROSECONDS = 253_402_300_800_000_000


class WrongError(Exception):
    """What is claimed is not so."""


class UncheckedError(Exception):
    """It can't be told whether what is claimed is so."""


def require(is_so: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as what must be so
    """Raises WrongError unless it is so."""
    if not is_so:
        raise WrongError(otherwise)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


class Key(NamedTuple):
    name: str
    key_id: bytes
    public_key: bytes


class Head(NamedTuple):
    origin: str
    size: int
    root: bytes


def read_key(text: str) -> Key:
    """Reads name+hexadecimal key id+base64 of the type and the key."""
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    data = _base64(encoded)
    key = Key(name, sha256(name.encode() + b"\n" + data).digest()[:4], data[1:])
    if not name or data[:1] != _ED25519 or len(data) != 1 + _HASH_BYTES or key.key_id.hex() != key_id:
        raise UncheckedError(f"this is no Ed25519 verifier key, or has a slip in it: {text.strip()}")
    return key


def open_note(note: str, keys: Sequence[Key]) -> Head:
    """What a checkpoint says, if one of the keys has signed it and none of them has signed it wrongly."""
    body, blank, lines = note.rpartition("\n\n")
    is_text = not re.search(r"[\x00-\x09\x0b-\x1f]", note)
    require(bool(blank) and lines.endswith("\n") and is_text, "the checkpoint is no signed note")
    text = body + "\n"
    signers = []
    signatures = [line.split(" ") for line in lines[:-1].split("\n")]
    is_note = all(len(parts) == len(_SIGNATURE) and parts[0] == _SIGNATURE[0] for parts in signatures)
    require(is_note, "the checkpoint has a line that is no signature")
    for _, name, encoded in signatures:
        data = _base64(encoded)
        for key in keys:
            if (key.name, key.key_id) == (name, data[:4]):
                try:
                    Ed25519PublicKey.from_public_bytes(key.public_key).verify(data[4:], text.encode())
                except (InvalidSignature, ValueError):
                    raise WrongError(f"the signature of {key.name} on the checkpoint is forged") from None
                signers.append(key)
    require(bool(signers), "none of the keys you trust has signed the checkpoint")
    head = _read_head(text)
    speaks = any(head.origin.startswith(f"{key.name}/") for key in signers)
    require(speaks, f"the key that signed does not speak for {head.origin}")
    return head


def _read_head(text: str) -> Head:
    origin, size, root, *_ = [*text.split("\n"), "", ""]
    hash_ = _base64(root)
    is_head = origin and re.fullmatch(r"0|[1-9][0-9]{0,18}", size, re.ASCII) and len(hash_) == _HASH_BYTES
    require(bool(is_head), "the signed text is no checkpoint")
    return Head(origin, int(size), hash_)


def leaf_hash(record: bytes) -> bytes:
    return sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that leaves are added to; what is kept is the roots of its full subtrees."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, hash_: bytes) -> None:
        size = self.size
        while size & 1:
            hash_ = node_hash(self._peaks.pop(), hash_)
            size >>= 1
        self._peaks.append(hash_)
        self.size += 1

    @property
    def root(self) -> bytes:
        root = self._peaks[-1] if self._peaks else sha256(b"").digest()
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def root_by_path(hash_: bytes, leaf_index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that a path from a leaf leads to: RFC 9162 section 2.1.3.2."""
    index, last, siblings = leaf_index, size - 1, iter(path)
    while last > 0:
        # The last node of a level that has no sibling is passed up as it is.
        if index & 1 or index < last:
            sibling = next(siblings, b"")
            hash_ = node_hash(sibling, hash_) if index & 1 else node_hash(hash_, sibling)
        index, last = index >> 1, last >> 1
    require(next(siblings, None) is None, "the path is longer than the way to the root")
    return hash_


class Entry(NamedTuple):
    """One side of a transaction; amounts are in minor units."""

    account: str
    side: str
    pending: bool
    amount: int
    currency: str
    balance_after: int


class Record(NamedTuple):
    """What is checked of a transaction; its time is in microseconds since 1970."""

    tenant: str
    book: str
    leaf_index: int
    id: str
    kind: str
    description: str
    related: str
    create_time: int
    first_sequence: int
    entries: list[Entry]


def read_record(record: bytes) -> Record:
    """Reads a record, down to its last byte."""
    try:
        return _read_fields(iter(_fields_of(record)))
    except (StopIteration, ValueError):
        raise WrongError(f"a record is not in the form {RECORD_FORM}") from None


def _fields_of(record: bytes) -> list[bytes]:
    """The fields of a record: each is four bytes of length, and its bytes."""
    fields, end = [], 0
    while end < len(record):
        start = end + 4
        end = start + int.from_bytes(record[start - 4 : start], "big")
        fields.append(record[start:end])
    require(end == len(record), "a record ends too early")
    return fields


def _read_fields(fields: Iterator[bytes]) -> Record:
    def text() -> str:
        return next(fields).decode()

    def number(least: int = -(2**63)) -> int:
        data = next(fields)
        value = int.from_bytes(data, "big", signed=True)
        require(len(data) == _INTEGER_BYTES and value >= least, "a record has a number that can't be")
        return value

    def entry() -> Entry:
        account, side, pending = text(), text(), next(fields)
        require(pending in {b"\x00", b"\x01"}, "an entry is neither pending nor not")
        return Entry(account, side, pending == b"\x01", number(1), text(), number())

    require(text() == RECORD_FORM, f"a record is not of the form {RECORD_FORM}")
    tenant, book, leaf_index, id_, kind = text(), text(), number(0), text(), text()
    description, _, related = text(), text(), text()
    times = {len(next(fields)), len(next(fields))}
    create_time, first_sequence = number(), number(1)
    names = [(text(), text())[0] for _ in range(number(0))]
    entries = [entry() for _ in range(number(0))]
    is_form = times <= {0, _INTEGER_BYTES} and names == sorted(set(names)) and kind in _KINDS
    require(is_form and next(fields, None) is None, f"the record of {id_} is not in the form")
    return Record(tenant, book, leaf_index, id_, kind, description, related, create_time, first_sequence, entries)


class Books:
    """The books of a tenant, as far as they were read."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.transactions = self.entries = self._last_time = 0
        self._ids: set[str] = set()
        self._open_holds: set[str] = set()
        # Balance of each account, and 1 when it grows by debits, -1 when by credits: its first change shows which.
        self.accounts: dict[tuple[str, str], tuple[int, int]] = {}

    def add(self, record: Record) -> None:
        """Adds the next transaction, if it may come next."""
        faults = {
            f"is not of tenant {self.tenant}": record.tenant != self.tenant,
            f"says leaf {record.leaf_index} at leaf {self.transactions}": record.leaf_index != self.transactions,
            f"does not begin at entry {self.entries + 1}": record.first_sequence != self.entries + 1,
            "was booked before the transaction before it": record.create_time < self._last_time,
            "was booked twice": record.id in self._ids,
            "ends no open hold": record.kind in _ENDS and record.related not in self._open_holds,
            "reverses nothing that is there": record.kind == "reversal" and record.related not in self._ids,
        }
        for fault, is_so in faults.items():
            require(not is_so, f"{record.id} {fault}")
        check_balanced(record)
        for entry in record.entries:
            self._move(record, entry)
        if record.kind in _ENDS:
            self._open_holds.remove(record.related)
        elif record.kind == "hold":
            self._open_holds.add(record.id)
        self._ids.add(record.id)
        self._last_time = record.create_time
        self.transactions += 1
        self.entries += len(record.entries)

    def _move(self, record: Record, entry: Entry) -> None:
        balance, sign = self.accounts.get((record.book, entry.account), (0, 0))
        change = 0 if entry.pending else _SIGNS[entry.side] * entry.amount
        if sign == 0 and change:
            sign = 1 if entry.balance_after == change else -1
        balance += sign * change
        detail = f"{entry.account} has {entry.balance_after} after {record.id}, its entries make {balance}"
        require(balance == entry.balance_after, detail)
        self.accounts[record.book, entry.account] = (balance, sign)


def check_balanced(record: Record) -> None:
    """Whether debits equal credits in each currency, and the entries are of the transaction's kind."""
    sums: dict[str, int] = {}
    for entry in record.entries:
        is_own = entry.side in _SIGNS and entry.pending == (record.kind == "hold")
        require(is_own, f"{record.id} has an entry that none can have")
        sums[entry.currency] = sums.get(entry.currency, 0) + _SIGNS[entry.side] * entry.amount
    require(not any(sums.values()), f"the debits and credits of {record.id} differ")


def verify_proof(document: dict[str, Any], keys: Sequence[Key]) -> list[str]:
    """Checks an inclusion proof, as the API gives it. Returns what is proved."""
    proof = document.get("proof", document)
    try:
        record = base64.b64decode(proof["record"], validate=True)
        # Proto JSON leaves zero and what is empty out, and gives numbers as text.
        leaf_index = int(proof.get("leafIndex", 0))
        path = [base64.b64decode(hash_, validate=True) for hash_ in proof.get("path", [])]
        note = str(proof["checkpoint"]["note"])
    except (KeyError, TypeError, ValueError) as error:
        raise UncheckedError(f"this is neither a bundle nor an inclusion proof ({type(error).__name__})") from None
    head = open_note(note, keys)
    require(0 <= leaf_index < head.size, f"there is no leaf {leaf_index} in a tree of {head.size}")
    root = root_by_path(leaf_hash(record), leaf_index, head.size, path)
    require(root == head.root, "the path from the record does not lead to the signed root")
    read = read_record(record)
    is_own = read.leaf_index == leaf_index and head.origin.endswith(f"/{read.tenant}")
    require(is_own, f"{read.id} is of another tree or another leaf than the checkpoint's")
    check_balanced(read)
    return [f"{read.id} is leaf {leaf_index} of the {head.size} that {head.origin} signed", *_describe(read)]


def _describe(record: Record) -> Iterator[str]:
    require(0 <= record.create_time < _END_MICROSECONDS, f"{record.id} was booked at no time that there is")
    booked = datetime.fromtimestamp(record.create_time // 1_000_000, UTC).isoformat()
    yield f"{record.kind} booked {booked} in book {record.book}: {record.description or '(no description)'}"
    for entry in record.entries:
        yield f"  {entry.side:6} {entry.account} {entry.amount} {entry.currency} (minor units)"


def verify_bundle(lines: Iterator[str], header: dict[str, Any], keys: Sequence[Key], kept: Head | None) -> list[str]:
    """Checks a bundle line by line. Returns what is proved."""
    head = open_note(str(header.get("note", "")), keys)
    if kept and kept.origin != head.origin:
        raise UncheckedError(f"the note that was kept is of {kept.origin}, the bundle of {head.origin}")
    kept_size = kept.size if kept else 0
    require(kept_size <= head.size, f"of the {kept_size} transactions of the kept note only {head.size} are left")
    tree, books = Tree(), Books(head.origin.rpartition("/")[2])
    for line in lines:
        _compare(tree, kept)
        record = _base64(line.rstrip("\n"))
        tree.add(leaf_hash(record))
        books.add(read_record(record))
    _compare(tree, kept)
    require(tree.size == head.size, f"the bundle has {tree.size} records, its checkpoint is of {head.size}")
    require(tree.root == head.root, "the records are not those of the signed root")
    counts = f"{books.transactions} transactions, {books.entries} entries, {len(books.accounts)} accounts"
    proved = [f"these are all that {head.origin} had booked: {counts}", "debits equal credits, and balances follow"]
    return [*proved, f"the {kept_size} transactions of the kept note are unchanged among them"] if kept else proved


def _compare(tree: Tree, kept: Head | None) -> None:
    if kept and tree.size == kept.size:
        require(tree.root == kept.root, f"the first {kept.size} transactions are not those of the note that was kept")


def verify_file(path: Path, keys: Sequence[Key], kept_note: str | None) -> list[str]:
    """Checks a bundle or an inclusion proof. Returns what is proved."""
    with path.open(encoding="utf-8") as file:
        # A bundle has a line for each record; a proof may be written over several.
        first = _object(next(file, ""))
        if first.get("form") == BUNDLE_FORM:
            return verify_bundle(file, first, keys, None if kept_note is None else open_note(kept_note, keys))
    if kept_note is not None:
        raise UncheckedError("--kept-note is for a bundle: one proof does not tell what else was there")
    return verify_proof(_object(path.read_text(encoding="utf-8")), keys)


def _object(text: str) -> dict[str, Any]:
    """The JSON object of a text; empty when it is none."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks a file, and says in plain words what was found. Returns the exit status."""
    parser = argparse.ArgumentParser("kente-verify", None, __doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path, help="bundle, or inclusion proof as JSON")
    parser.add_argument("--key", action="append", default=[], help="verifier key to trust; can be given again")
    parser.add_argument("--keys", type=Path, help="file of verifier keys to trust, one a line")
    parser.add_argument("--kept-note", type=Path, help="an earlier checkpoint that the bundle must continue")
    options = parser.parse_args(arguments)
    if not options.key and not options.keys:
        parser.error("say which key you trust: --key NAME+ID+KEY, or --keys FILE")
    try:
        lines = options.keys.read_text(encoding="utf-8").splitlines() if options.keys else []
        keys = [read_key(text) for text in (*options.key, *lines) if text.strip()]
        kept_note = options.kept_note.read_text(encoding="utf-8") if options.kept_note else None
        proved = verify_file(options.file, keys, kept_note)
    except WrongError as error:
        sys.stdout.write(f"WRONG: {error}\n")
        return WRONG
    except (UncheckedError, OSError, UnicodeDecodeError, RecursionError) as error:
        sys.stderr.write(f"not checked: {error}\n")
        return UNCHECKED
    sys.stdout.write("\n".join(("PROVED", *proved, "")))
    return PROVED


if __name__ == "__main__":
    sys.exit(main())
