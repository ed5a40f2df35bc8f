"""Templates take any text as data: it never becomes markup, a header, a second line, or an instruction."""

from __future__ import annotations

import html
import re
import tomllib
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.errors import MessageError
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import Environment, meta

from mesh.errors import Problem, Reason
from mesh.money import Money
from services.notifications import templates
from services.notifications.provider import EmailOrder
from services.notifications.providers.smtp.adapter import compose
from services.notifications.templates import find_template, render, single_line, template_names
from services.notifications.use_cases.queue_receipt import amount_for_people, time_for_people

VARIABLES = {"amount": "GHS 10.50", "payment_id": "pay_1", "paid_time": "today"}
# What text can hold that is no text: controls, separators, directions, markup, and template language.
NASTY = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(list("\r\n\x00\x0b\x0c\x1b\x85\u2028\u2029\u202e\u2066<>\"'&{}%#:;,@.")),
    ),
    max_size=200,
)


@given(NASTY)
@example("x\r\nBcc: eve@example.com\r\n\r\nbody")
@example("x\u2028Bcc: eve@example.com")
@example("{{ 7 * 7 }}{% raw %}")
def test_a_variable_stays_one_line_of_data(text: str) -> None:
    """In the subject, in the text and, escaped, in the HTML."""
    content = render("payment_receipt", "en", VARIABLES | {"description": text, "amount": f"GHS 1 {text}"}).content
    shown = single_line(text)
    plain = render("payment_receipt", "en", VARIABLES | {"description": "d" if shown else "", "amount": "a"}).content

    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", content.subject)
    assert len(content.text.splitlines()) == len(plain.text.splitlines())
    assert content.html.count("<") == plain.html.count("<")
    assert shown in content.text
    assert shown in html.unescape(content.html)


@given(subject=NASTY, name=NASTY, body=NASTY)
@example(subject="", name=";", body="")
@example(subject="\r", name="", body="")
@example(subject="", name="", body="\n.\nMAIL FROM:<eve@example.com>\r.\r")
def test_an_email_has_only_the_headers_that_we_wrote(subject: str, name: str, body: str) -> None:
    """Whatever is in them, the recipient is one, and the headers are ours."""
    order = EmailOrder(
        "msg_1@d.example", f"{name} <r@adom.example>", "ama@example.com", subject, body, f"<p>{body}</p>"
    )
    try:
        content = compose(order)
    except (ValueError, IndexError, MessageError):
        # Refused as a whole: nothing of it is sent.
        return

    message = message_from_bytes(content, policy=policy.default)
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
    )
    assert message["To"].addresses[0].addr_spec == "ama@example.com"
    assert len(message["To"].addresses) == 1
    assert message["Message-ID"] == "<msg_1@d.example>"
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    assert content.isascii()
    assert not re.search(rb"[\r\n]", content.replace(b"\r\n", b""))


@given(st.text(max_size=100))
def test_a_single_line_is_stable_and_keeps_letters(text: str) -> None:
    """Cleaning twice is cleaning once, and no letter or digit is lost."""
    line = single_line(text)

    assert single_line(line) == line
    assert [c for c in line if unicodedata.category(c)[0] in "LN"] == [
        c for c in text if unicodedata.category(c)[0] in "LN"
    ]


@given(st.text(max_size=35))
@example("../../etc")
@example("EN-gh")
def test_any_locale_gives_a_language_that_exists(locale: str) -> None:
    """English when there is no other."""
    assert render("payment_receipt", locale, VARIABLES).locale == "en"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../templates/payment_receipt", "payment_receipt/en", "a" * 61, "x\x00"]
)
def test_a_name_can_not_leave_the_folder(name: str) -> None:
    """Names of files are no names of templates."""
    with pytest.raises(Problem) as refused:
        render(name, "en", VARIABLES)

    assert refused.value.reason is Reason.RESOURCE_NOT_FOUND


@pytest.mark.parametrize("name", template_names())
def test_a_template_declares_exactly_the_variables_that_it_uses(name: str) -> None:
    """In every language and every part; otherwise a message would fail for its recipient rather than for its author."""
    template = find_template(name)
    assert template is not None
    folder = Path(templates.__file__).parent / name
    facts = tomllib.loads((folder / "template.toml").read_text())

    assert set(facts) == {"required", "optional"}
    assert "en" in template.locales
    for locale in template.locales:
        parts = sorted(path.name for path in (folder / locale).iterdir())
        assert parts == ["body.html", "body.txt", "subject.txt"]
        used = {
            variable
            for part in parts
            for variable in meta.find_undeclared_variables(Environment().parse((folder / locale / part).read_text()))  # noqa: S701 - only parsed
        }
        assert used == template.required | template.optional


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (Money(1, "GHS"), "GHS 0.01"),
        (Money(100_000_000, "UGX"), "UGX 100,000,000"),
        (Money(1_234_567, "KWD"), "KWD 1,234.567"),
        (Money(1_500_000, "USDC"), "USDC 1.500000"),
        (Money(2**63 - 1, "GHS"), "GHS 92,233,720,368,547,758.07"),
    ],
)
def test_amounts_are_written_for_people(amount: Money, shown: str) -> None:
    """Exact to the last digit, with the decimals of the currency."""
    assert amount_for_people(amount) == shown


def test_times_are_written_for_people() -> None:
    """In UTC, to the minute, without a leading zero."""
    time = datetime(2026, 11, 2, 1, 5, 59, tzinfo=timezone(timedelta(hours=3)))

    assert time_for_people(time) == "1 November 2026, 22:05 UTC"
    assert time_for_people(datetime(2026, 11, 21, 10, 35, tzinfo=UTC)) == "21 November 2026, 10:35 UTC"
