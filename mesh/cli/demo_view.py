"""How the demo looks on a terminal."""

from rich.console import Console, Group
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from mesh.cli.demo_report import Json, Report, Scenario
from mesh.money import Money

_STYLES = {
    "gateway": "cyan",
    "payments": "green",
    "ledger": "magenta",
    "smtp": "yellow",
    "nats": "blue",
    "watch": "bright_cyan",
    "sandbox": "bright_black",
    "verify": "bright_green",
}


class DemoView:
    """Shows steps as they happen. Without a console it shows nothing."""

    def __init__(self, screen: Console | None) -> None:
        """Show on this console."""
        self._screen = screen
        self._status: Status | None = None

    def begin(self, scenario: Scenario) -> None:
        """A heading."""
        if self._screen is not None:
            self._screen.rule(f"[bold]{scenario.title}[/]", align="left")

    def step(self, at_seconds: float, where: str, what: str) -> None:
        """One line."""
        self._end_status()
        if self._screen is not None:
            line = Text(f"{at_seconds:8.3f} s  ", style="dim")
            line.append(f"{where:<9} ", style=_STYLES.get(where, "white"))
            line.append(what, style="default")
            self._screen.print(line, soft_wrap=True)

    def waiting(self, what: str) -> None:
        """A spinner until the next step."""
        self._end_status()
        if self._screen is not None and self._screen.is_terminal:
            self._status = self._screen.status(what)
            self._status.start()

    def end(self, scenario: Scenario) -> None:
        """The tables of what was found out."""
        self._end_status()
        if self._screen is None:
            return
        facts = scenario.facts
        tables = [
            _route(facts["route"]) if "route" in facts else None,
            _entries(facts["ledgerEntries"]) if facts.get("ledgerEntries") else None,
            _proof(facts["proof"]) if "proof" in facts else None,
            _receipt(facts["receipts"][0]) if scenario.name == "approved" and facts.get("receipts") else None,
            _hops(facts) if "hops" in facts else None,
        ]
        for table in tables:
            if table is not None:
                self._screen.print(table)
        for check in scenario.checks:
            if not check.is_so:
                self._screen.print(Text(f"  not so: {check.claim}", style="bold red"))
        self._screen.print()

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def show_report(screen: Console, report: Report) -> None:
    """The summary at the end."""
    table = Table("scenario", "state", "checks", "took", title="summary", title_justify="left")
    for scenario in report.scenarios:
        good = sum(check.is_so for check in scenario.checks)
        subject: Json = scenario.facts.get("refund") or scenario.facts.get("payment") or {}
        mark = "[green]ok[/]" if scenario.is_well else "[bold red]failed[/]"
        table.add_row(
            f"{mark} {scenario.title}",
            str(subject.get("state", "")).removeprefix("STATE_"),
            f"{good}/{len(scenario.checks)}",
            f"{scenario.seconds:.1f} s",
        )
    screen.print(table)
    balances: dict[str, Json] = next(
        (s.facts["balances"] for s in reversed(report.scenarios) if "balances" in s.facts), {}
    )
    if balances:
        screen.print(_balances(balances))
    if report.error:
        screen.print(Text(f"broken off: {report.error}", style="bold red"), soft_wrap=True)
    verdict = "[bold green]everything is as it should be[/]" if report.is_well else "[bold red]something is wrong[/]"
    screen.print(f"{verdict}  ({report.seconds:.1f} s)")


def _amount(money: Json) -> str:
    currency = str(money["currency"])
    return f"{currency} {Money(int(money.get('amountMinor', 0)), currency).to_major_string()}"


def _route(route: Json) -> Table:
    table = Table("provider", "connection", "", "why", title="route", title_justify="left")
    for candidate in route.get("candidates", []):
        chosen = candidate["connectionId"] == route["connectionId"]
        mark = "[green]chosen[/]" if chosen else "possible" if candidate.get("eligible") else "[dim]no[/]"
        table.add_row(candidate["provider"], candidate["connectionId"], mark, candidate.get("explanation", ""))
    return table


def _entries(entries: list[Json]) -> Table:
    table = Table(title="ledger entries", title_justify="left")
    for name, justify in (("account", "left"), ("debit", "right"), ("credit", "right"), ("balance after", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # a literal, held in a tuple
    for entry in entries:
        amount = _amount(entry["amount"])
        debit = entry["side"] == "SIDE_DEBIT"
        balance = _amount(entry["balanceAfter"]) if "balanceAfter" in entry else ""
        table.add_row(entry["accountName"], amount if debit else "", "" if debit else amount, balance)
    return table


def _proof(proof: Json) -> Table:
    table = Table(title="proof that the posting is in the books", title_justify="left", show_header=False)
    table.add_column()
    # Hashes and paths are of no use when a part is left out.
    table.add_column(overflow="fold")
    for name, value in (
        ("leaf", f"{proof['leafIndex']} of {proof['treeSize']}"),
        ("root", proof["rootHash"]),
        ("signed by", proof["signedBy"]),
        ("proof", proof["file"]),
        ("keys", proof["keysFile"]),
        ("verdict, offline", "it holds" if proof["holds"] else "[bold red]it does not hold[/]"),
        ("with one bit flipped", "[bold red]it holds[/]" if proof["holdsWhenChanged"] else "it does not hold"),
    ):
        table.add_row(name, value)
    return table


def _balances(balances: dict[str, Json]) -> Table:
    table = Table("account", title="balances, on each account's own side", title_justify="left")
    table.add_column("balance", justify="right")
    for name, balance in balances.items():
        table.add_row(name, _amount(balance))
    return table


def _receipt(mail: Json) -> Panel:
    fields = {name: mail[name] for name in ("from", "to", "subject") if name in mail}
    lines = {name: ", ".join(value) if isinstance(value, list) else value for name, value in fields.items()}
    head = [Text(f"{name}: {value}", style="bold") for name, value in lines.items()]
    body = Text(str(mail.get("text") or mail.get("body") or "").strip())
    return Panel(Group(*head, Text(), body), title="receipt, as the mailbox got it", title_align="left", expand=False)


def _hops(facts: Json) -> Table:
    title = f"where the time went (trace {facts['traceId']})"
    spent = (f"{process} {took:.0f} ms" for process, took in facts["ownMillisecondsByProcess"].items())
    table = Table("process", "hop", title=title, title_justify="left", caption=", ".join(spent), caption_justify="left")
    for name in ("at", "total", "own", "SQL"):
        table.add_column(name, justify="right")
    for hop in facts["hops"]:
        sql = f"{hop['sqlStatements']} in {hop['sqlMilliseconds']:.1f} ms" if hop["sqlStatements"] else ""
        table.add_row(
            Text(hop["process"], style=_STYLES.get(hop["process"], "white")),
            Text("  " * hop["depth"] + hop["name"]),
            f"{hop['atMilliseconds']:.0f} ms",
            f"{hop['totalMilliseconds']:.1f} ms",
            f"{hop['ownMilliseconds']:.1f} ms",
            sql,
        )
    return table
