"""`kente ledger` as a person and as a script use it, against a running ledger."""

from __future__ import annotations

import asyncio
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import openpyxl
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.ids import new_id
from tests.harness import Infrastructure, TestMesh
from tests.ledger.book import BANK, FEES, PAYER, SCOPES, Book, credit, debit
from tests.ledger.orders import send_transfers, transfer

from .conftest import Answer, Kente

TRANSACTION_ID = "txn_" + "a" * 26


@dataclass(frozen=True)
class Teller:
    """Somebody at a terminal, with a book of their own."""

    kente: Kente
    book: Book

    async def run(self, *arguments: str) -> Answer:
        """Run `kente ledger` to its end."""
        command = ("ledger", *arguments, "--tenant", self.book.tenant_id)
        return await asyncio.to_thread(self.kente.run, *command)

    async def good(self, *arguments: str) -> Answer:
        """The same, of a command that must succeed."""
        answer = await self.run(*arguments)
        assert answer.status == 0, answer
        return answer

    async def refused(self, *arguments: str) -> str:
        """The same, of a command that must be refused in one line."""
        answer = await self.run(*arguments)
        assert answer.status == 2, answer
        assert len(answer.err.strip().splitlines()) == 1, answer.err
        return answer.err


def names_in(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(scope="module")
async def ledger(test_mesh: TestMesh) -> TestMesh:
    """A running ledger."""
    await test_mesh.start("ledger")
    return test_mesh


@pytest.fixture
async def teller(ledger: TestMesh, infrastructure: Infrastructure, tenant_id: str, tmp_path: Path) -> Teller:
    """A teller whose book has three accounts in GHS."""
    settings = {
        "KENTE_IDENTITY_FILE": str(infrastructure.folder / "identities" / "operator.jwk"),
        "KENTE_TRUST_BUNDLE_FILE": str(infrastructure.folder / "identities" / "bundle.jwks"),
        "KENTE_LEDGER_ADDRESS": f"127.0.0.1:{infrastructure.ports['ledger']}",
    }
    book = Book(ledger.client("ledger", tenant_id, SCOPES), tenant_id)
    await book.open(BANK, PAYER, FEES)
    return Teller(Kente(tmp_path / "state", settings=settings), book)


async def test_a_posting_in_major_units_is_booked_and_shows_the_balances(teller: Teller) -> None:
    answer = await teller.good(
        "post", "debit", BANK, "10.50", "GHS", "credit", PAYER, "10.5", "--description", "a sale", "--metadata", "a=b=c"
    )

    assert "posted txn_" in answer.out
    assert (await teller.book.balance(BANK))[0] == 1_050
    assert [line.split()[:3] for line in answer.out.splitlines()[2:]] == [
        [BANK, "10.50", "GHS"],
        [PAYER, "10.50", "GHS"],
    ]
    (entry, _) = await teller.book.entries()
    booked = await teller.book.transaction(entry.transaction_id)
    assert (booked.description, dict(booked.metadata)) == ("a sale", {"a": "b=c"})


async def test_the_same_id_is_booked_once(teller: Teller) -> None:
    words = ("post", f"debit {BANK} 1", f"credit {PAYER} 1", "--id", TRANSACTION_ID, "--json")

    first, second = await teller.good(*words), await teller.good(*words)

    assert first.json() == second.json()
    assert first.json()["transaction"]["transactionId"] == TRANSACTION_ID
    assert (await teller.book.balance(BANK))[0] == 100


async def test_amounts_may_be_held_and_expire(teller: Teller) -> None:
    answer = await teller.good("post", f"debit {BANK} 1", f"credit {PAYER} 1", "--hold", "--expires", "15m", "--json")

    booked = answer.json()["transaction"]
    assert booked["kind"] == "KIND_HOLD"
    assert booked["expireTime"] > booked["createTime"]
    assert (await teller.book.balance(BANK))[0] == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("debit", BANK, "1.005", "credit", PAYER, "1.005"), "has 2 decimals: write such as 10.50"),
        (("debit", BANK, "1", "credit", PAYER, "2"), "TRANSACTION_UNBALANCED"),
        (("debit", BANK, "0", "credit", PAYER, "0"), "FIELD_INVALID"),
        (("debit", BANK, "1", "USD", "credit", PAYER, "1", "USD"), "ACCOUNT_CURRENCY_MISMATCH"),
        (("debit", "assets:none", "1", "credit", PAYER, "1"), "RESOURCE_NOT_FOUND: account assets:none does not exist"),
        (("debit", BANK, "1", "credit", PAYER, "1", "--expires", "1h"), "--expires is for what is held"),
    ],
)
async def test_a_wrong_posting_says_what_is_wrong_and_books_nothing(
    teller: Teller, words: tuple[str, ...], part: str
) -> None:
    assert part in await teller.refused("post", *words)
    assert await teller.book.entries() == []


async def test_accounts_are_listed(teller: Teller) -> None:
    await teller.book.post(debit(BANK, 1_050), credit(PAYER, 1_050))

    table = await teller.good("accounts")
    assets = await teller.good("accounts", "--type", "asset", "--json")

    assert [line.split()[0] for line in table.out.splitlines()[1:]] == [BANK, FEES, PAYER]
    assert "10.50" in table.out
    assert [account["accountName"] for account in assets.json()] == [BANK]
    assert "use one of asset, liability" in await teller.refused("accounts", "--type", "money")


async def test_a_balance_is_shown_now_and_as_of_a_time(teller: Teller) -> None:
    early = Timestamp(seconds=1_700_000_000)
    await teller.book.post(debit(BANK, 100), credit(PAYER, 100), effective_time=early)
    await teller.book.post(debit(BANK, 5), credit(PAYER, 5))

    now = await teller.good("balance", BANK, "--json")
    then = await teller.good("balance", BANK, "--at", "2024-01-01", "--json")
    every = await teller.good("balance", "--depth", "1", "--json")

    assert now.json()["balance"] == {"amountMinor": "105", "currency": "GHS"}
    assert then.json()["balance"] == {"amountMinor": "100", "currency": "GHS"}
    assert {entry["branch"]: entry["balance"]["amountMinor"] for entry in every.json()}["liabilities"] == "105"
    assert "1.05" in (await teller.good("balance", BANK)).out
    assert "1.05" in (await teller.good("balance")).out


async def test_a_statement_shows_all_pages(teller: Teller) -> None:
    # All at once: a caller may not write as often in a second.
    await send_transfers(teller.book, *(transfer(1) for _ in range(201)))

    document = (await teller.good("statement", BANK, "--json")).json()
    table = (await teller.good("statement", BANK)).out

    assert len(document["lines"]) == 201
    assert document["nextPageToken"] == ""
    assert table.count("txn_") == 201
    assert table.rstrip().splitlines()[-1].split() == ["closing", "balance", "2.01", "0.00", "2.01"]


async def test_texts_of_others_can_not_act_on_the_terminal(teller: Teller) -> None:
    await teller.book.post(debit(BANK, 1), credit(PAYER, 1), description="[red]x[/] \x1b]0;title\x07")

    table = (await teller.good("statement", BANK)).out

    assert "[red]x[/] �]0;title�" in table


async def test_a_trial_balance_is_shown_in_another_currency_as_well(teller: Teller) -> None:
    await teller.book.post(debit(BANK, 1_000), credit(PAYER, 1_000))

    table = await teller.good("trial-balance", "--in", "USD", "--rate", "GHS=0.5")

    assert [line.split() for line in table.out.splitlines() if line.startswith((BANK, "total"))] == [
        [BANK, "10.00", "0.00", "GHS", "5.00", "USD"],
        ["total", "10.00", "10.00", "GHS", "5.00", "USD"],
    ]


async def test_good_books_are_verified_and_continue_the_checkpoint_that_was_kept(
    teller: Teller, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    await teller.book.post(debit(BANK, 1), credit(PAYER, 1))

    first = await teller.good("verify", "--save-note", str(note))
    kept = note.read_text()
    await teller.book.post(debit(BANK, 1), credit(PAYER, 1))
    second = await teller.good("verify", "--note", str(note), "--save-note", str(note), "--json")

    assert "all is well: 1 transactions, 2 entries" in first.out
    assert second.json()["checkedEntries"] == "4"
    assert second.json()["faults"] == []
    assert note.read_text() != kept
    assert "holds no checkpoint" in await teller.refused("verify", "--note", "/dev/null")
    assert "can't be read" in await teller.refused("verify", "--note", str(tmp_path / "none"))


async def test_a_changed_row_is_a_fault_with_status_1_and_no_note_is_kept(
    teller: Teller, infrastructure: Infrastructure, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    booked = await teller.book.post(debit(BANK, 1), credit(PAYER, 1), description="as it was")
    admin = await asyncpg.connect(infrastructure.postgres.admin_url)
    await admin.execute(
        "UPDATE ledger.transactions SET description = 'changed' WHERE transaction_id = $1", booked.transaction_id
    )
    await admin.close()

    answer = await teller.run("verify", "--save-note", str(note))

    assert answer.status == 1
    assert booked.transaction_id in answer.out
    assert not note.exists()


async def test_a_file_is_written_once_unless_forced(teller: Teller, tmp_path: Path) -> None:
    await teller.book.post(debit(BANK, 1), credit(PAYER, 1))
    path = tmp_path / "entries.csv"

    first = await teller.good("export", "-o", str(path), "--json")
    refusal = await teller.refused("export", "-o", str(path))
    await teller.good("export", "-o", str(path), "--force")

    assert first.json() == {"file": str(path), "bytes": path.stat().st_size}
    assert "is there already" in refusal
    with path.open(newline="") as file:
        assert [row["account_name"] for row in csv.DictReader(file)] == [BANK, PAYER]
    assert names_in(tmp_path) == [path.name]


async def test_a_bundle_proves_everything_that_was_booked(teller: Teller, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    await teller.book.post(debit(BANK, 1), credit(PAYER, 1))

    await teller.good("export", "--bundle", str(bundle))

    assert len(bundle.read_text().splitlines()) == 2
    assert "without a choice of entries" in await teller.refused("export", "--bundle", str(bundle), "--book", "main")


async def test_reports_and_journals_are_exported(teller: Teller, tmp_path: Path) -> None:
    await teller.book.post(debit(BANK, 1), credit(PAYER, 1))
    workbook, journal = tmp_path / "sheet.xlsx", tmp_path / "main.beancount"

    await teller.good("export", "--report", "trial-balance", "--format", "xlsx", "-o", str(workbook))
    await teller.good("export", "--format", "beancount", "-o", str(journal))
    piped = await teller.good("export", "--report", "statement", "--account", BANK, "--format", "json", "-o", "-")

    assert openpyxl.load_workbook(workbook).sheetnames == ["trial_balance", "about"]
    bean_check = Path(sys.executable).with_name("bean-check")
    process = await asyncio.create_subprocess_exec(str(bean_check), str(journal))
    assert await process.wait() == 0
    assert piped.json()["report"] == "statement"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "say where it goes"),
        (("-o", "FILE", "--format", "pdf"), "--format pdf is none: use one of csv, xlsx"),
        (("-o", "FILE", "--report", "statement"), "account_name is needed for a statement"),
        (("-o", "FILE", "--book", "other"), "RESOURCE_NOT_FOUND: book other does not exist"),
        (("-o", "FILE/in/no/folder"), "can't be written"),
    ],
)
async def test_a_file_that_can_not_be_made_leaves_none(
    teller: Teller, tmp_path: Path, words: tuple[str, ...], part: str
) -> None:
    path = tmp_path / "file"

    assert part in await teller.refused("export", *(word.replace("FILE", str(path)) for word in words))
    assert names_in(tmp_path) == []


async def test_a_ledger_that_is_away_is_told(teller: Teller) -> None:
    settings = {**teller.kente.settings, "KENTE_LEDGER_ADDRESS": "127.0.0.1:9"}
    away = Teller(Kente(teller.kente.state_dir, settings=settings), teller.book)

    assert "the ledger does not answer: look with `kente status`" in await away.refused("accounts")


async def test_without_a_tenant_the_demo_tenant_is_meant(teller: Teller) -> None:
    answer = await asyncio.to_thread(teller.kente.run, "ledger", "accounts")

    assert answer.status == 2
    assert "there is no demo tenant here: name a tenant with --tenant" in answer.err


async def test_another_tenant_sees_nothing(teller: Teller) -> None:
    answer = await asyncio.to_thread(teller.kente.run, "ledger", "accounts", "--tenant", new_id("ten"))

    assert (answer.status, answer.out.strip()) == (0, "no accounts")
