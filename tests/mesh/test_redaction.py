"""What is personal or secret stays out of events, logs and errors, and what is not stays readable."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kente
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from mesh.ids import derive_id, derive_uuid, new_id
from mesh.redaction import has_sensitive_fields, mask_text, mask_value, redact


def _sensitive_types() -> list[type[Message]]:
    found: dict[str, type[Message]] = {}
    root = Path(next(iter(kente.__path__)))
    for file in root.rglob("*_pb2.py"):
        contracts: Any = importlib.import_module(".".join(("kente", *file.relative_to(root).with_suffix("").parts)))
        pending = list(contracts.DESCRIPTOR.message_types_by_name.values())
        while pending:
            descriptor = pending.pop()
            pending.extend(descriptor.nested_types)
            if has_sensitive_fields(descriptor) and not descriptor.GetOptions().map_entry:
                found[descriptor.full_name] = GetMessageClass(descriptor)
    return [found[name] for name in sorted(found)]


SENSITIVE = _sensitive_types()
PERSONAL, PLAIN = "personal", "plain"


class Filler:
    """Fills messages: every personal string is one of its own, and so is every other."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._number = 0
        self.personal: set[str] = set()
        self.plain: set[str] = set()

    def fill(self, message: Message, depth: int = 4, *, is_personal: bool = False) -> None:
        """Sets fields, those that are personal always."""
        fields: Any = message.DESCRIPTOR.fields
        for field in fields:
            personal = is_personal or field.GetOptions().debug_redact
            if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
                continue
            if personal or self._draw(st.booleans()) or _holds_personal(field):
                self._set(message, field, depth, is_personal=personal)

    def _set(self, message: Message, field: FieldDescriptor, depth: int, *, is_personal: bool) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values = getattr(message, field.name)
            if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
                values[self._text(is_personal=is_personal)] = self._text(is_personal=is_personal)
        elif field.message_type is not None:
            if depth > 0 and field.message_type.full_name.startswith("kente."):
                child = getattr(message, field.name)
                self.fill(child.add() if field.is_repeated else child, depth - 1, is_personal=is_personal)
                if not field.is_repeated:
                    child.SetInParent()
        elif field.type == FieldDescriptor.TYPE_STRING:
            text = self._text(is_personal=is_personal)
            getattr(message, field.name).append(text) if field.is_repeated else setattr(message, field.name, text)
        elif field.type == FieldDescriptor.TYPE_BYTES and not field.is_repeated:
            setattr(message, field.name, self._text(is_personal=is_personal).encode())

    def _text(self, *, is_personal: bool) -> str:
        self._number += 1
        if not is_personal:
            text = f"{PLAIN}{self._number}"
            self.plain.add(text)
            return text
        form = self._draw(st.sampled_from(["{}", "{}@example.com", "+2332412{}", "{} and more", "4111-{}"]))
        text = form.format(f"{PERSONAL}{self._number}")
        self.personal.add(text)
        return text


def _holds_personal(field: FieldDescriptor) -> bool:
    return field.message_type is not None and has_sensitive_fields(field.message_type)


@st.composite
def filled_messages(draw: st.DrawFn) -> tuple[Message, Filler]:
    """A message of the contracts, with personal values in it."""
    message = draw(st.sampled_from(SENSITIVE))()
    filler = Filler(draw)
    filler.fill(message)
    return message, filler


def test_the_contracts_mark_what_is_personal() -> None:
    names = {found.DESCRIPTOR.full_name for found in SENSITIVE}

    assert {
        "kente.payments.v1.Payment",
        "kente.payments.v1.CreatePaymentRequest",
        "kente.connections.v1.CreateConnectionRequest",
        "kente.connections.v1.ResolveCredentialsResponse",
        "kente.notifications.v1.Message",
        "kente.identity.v1.CreateApiKeyResponse",
    } <= names


@given(filled_messages())
def test_no_personal_value_of_any_message_is_left(filled: tuple[Message, Filler]) -> None:
    message, filler = filled
    before = message.SerializeToString(deterministic=True)

    text = MessageToJson(redact(message), ensure_ascii=False)

    assert not [value for value in filler.personal if value in text]
    assert all(value in text for value in filler.plain)
    # The message itself goes on its way as it was.
    assert message.SerializeToString(deterministic=True) == before


@given(filled_messages())
def test_what_is_redacted_stays_as_it_is_when_it_is_redacted_again(filled: tuple[Message, Filler]) -> None:
    once = redact(filled[0])

    assert set(_strings(once)) >= {text for text in _strings(redact(once)) if PLAIN in text}


def _strings(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            yield str(value)
        elif isinstance(value, Message):
            yield from _strings(value)


def test_messages_that_hold_themselves_are_searched_once() -> None:
    descriptor: Descriptor = Struct.DESCRIPTOR

    assert not has_sensitive_fields(descriptor)


@given(st.text(max_size=40))
def test_a_personal_value_keeps_two_characters_or_what_a_mailbox_shows(value: str) -> None:
    masked = mask_value(value)

    assert "***" in masked
    if len(value) > 6 and "@" not in value:
        assert masked == f"***{value[-2:]}"


digits = st.text("0123456789", min_size=1)
words = st.sampled_from(["", "the ", "card ", "{'number': '", "msisdn=", "tel:", "to ", "(", "[", "\n", "payer is "])
ends = st.sampled_from(["", " paid", ".", ", then", "'}", ")", "]", "\n", "; next", "?", "!"])


def _luhn(digits: str) -> str:
    total = sum(sum(divmod(int(digit) * (2 - index % 2), 10)) for index, digit in enumerate(digits))
    return digits + str(-total % 10)


cards = st.from_regex(r"[3-6][0-9]{14}", fullmatch=True).map(_luhn)
grouped_cards = st.tuples(cards, st.sampled_from([" ", "-"])).map(
    lambda card: card[1].join([card[0][:4], card[0][4:8], card[0][8:12], card[0][12:]])
)
numbers = st.one_of(
    st.from_regex(r"\+[1-9][0-9]{7,14}", fullmatch=True),
    st.from_regex(r"(233|234|254|256|91)[1-9][0-9]{8}", fullmatch=True),
    st.from_regex(r"0[1-9][0-9]{8}", fullmatch=True),
    st.from_regex(r"\+233 [2-5][0-9] [0-9]{3} [0-9]{4}", fullmatch=True),
    st.from_regex(r"\+233-[2-5][0-9]-[0-9]{3}-[0-9]{4}", fullmatch=True),
    st.from_regex(r"GHA-[0-9]{9}-[0-9]", fullmatch=True),
    cards,
    grouped_cards,
)


@given(words, numbers, ends)
def test_numbers_of_people_and_cards_are_masked_in_any_sentence(before: str, number: str, after: str) -> None:
    masked = mask_text(f"{before}{number}{after}")

    assert number not in masked
    assert number.replace(" ", "")[:-4] not in masked
    assert masked.startswith(before)
    assert masked.endswith(after)


@given(words, st.from_regex(r"[a-z][a-z0-9._%+-]{0,20}[a-z0-9]@[a-z]{1,12}(\.[a-z]{2,8}){1,2}", fullmatch=True), ends)
def test_mailboxes_are_masked_in_any_sentence(before: str, address: str, after: str) -> None:
    name, _, domain = address.partition("@")
    masked = mask_text(f"{before}{address}{after}")

    assert address not in masked
    assert f"{name[:1]}***@{domain}" in masked


tokens = st.from_regex(r"[A-Za-z0-9_-]{24,40}", fullmatch=True)
secrets = st.one_of(
    st.tuples(tokens, tokens, tokens).map(lambda parts: f"eyJ{parts[0]}.{parts[1]}.{parts[2]}"),
    tokens.map(lambda secret: f"kente_{new_id('key')[4:]}_{secret}"),
    st.from_regex(r"(sk|rk|pk)_(live|test)_[A-Za-z0-9]{16,24}", fullmatch=True),
    st.from_regex(r"whsec_[A-Za-z0-9]{16,32}", fullmatch=True),
    tokens.map(lambda secret: f"Bearer {secret}"),
    tokens.map(lambda secret: f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----"),
)


@given(words, secrets, ends)
def test_secrets_are_masked_wherever_they_stand(before: str, secret: str, after: str) -> None:
    masked = mask_text(f"{before}{secret}{after}")

    assert secret not in masked
    assert max((part for part in secret.replace("\n", " ").replace(".", " ").split()), key=len) not in masked


@pytest.mark.parametrize(
    "form",
    [
        "password={}",
        "password: {}",
        "{{'client_secret': '{}'}}",
        '{{"access_token":"{}"}}',
        "https://example.com/x?api_key={}&y=1",
        "api-key={}; next",
        "https://user:{}@example.com/x",
        "nats://:{}@127.0.0.1:7422",
        "authorization: Basic {}",
    ],
)
@given(secret=st.from_regex(r"[A-Za-z0-9]{8,30}", fullmatch=True))
def test_what_a_name_announces_is_masked(form: str, secret: str) -> None:
    masked = mask_text(form.format(secret))

    assert secret not in masked
    assert "***" in masked


ours = st.one_of(
    st.builds(lambda: new_id("pay")),
    st.text(max_size=8).map(lambda text: derive_id("txn", text)),
    st.text(max_size=8).map(derive_uuid),
    st.uuids().map(str),
    st.uuids(version=4).map(lambda value: str(uuid.UUID(int=value.int))),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.datetimes(timezones=st.just(UTC)).map(str),
    st.datetimes().map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}+0530"),
    st.integers(0, 2**31).map(str).filter(lambda text: not (len(text) == 10 and text[0] == "0")),
    st.floats(0, 2**33).map(lambda seconds: f"{seconds:.6f}"),
    st.binary(min_size=16, max_size=16).map(bytes.hex).filter(lambda text: not text.isdigit()),
    st.ip_addresses().map(str),
    st.sampled_from(["GHS 10.50", "127.0.0.1:7401", "/kente.payments.v1.PaymentService/CreatePayment"]),
)


@given(st.sampled_from(["", "id ", "at ", "'", "(", "key="]), ours, st.sampled_from(["", ".", ",", "'", ")", " x"]))
def test_what_is_ours_stays_readable(before: str, text: str, after: str) -> None:
    assert mask_text(before + text + after) == before + text + after


@given(st.text(max_size=200))
def test_any_text_can_be_masked_and_masking_has_an_end(text: str) -> None:
    assert isinstance(mask_text(mask_text(text)), str)


SCRIPT = """
import logging, sys
import structlog
from mesh.logs import configure_logs
from mesh.settings import MeshSettings

configure_logs(MeshSettings(log_format=sys.argv[1]), "probe")
log = structlog.get_logger()
SECRETS = {"mail": "kofi@example.com", "pan": "4111111111111111", "phone": "+233241234567"}

def fail():
    try:
        raise KeyError("inner of +233241234567")
    except KeyError as error:
        raise ValueError("card 4111111111111111 of kofi@example.com, password=hunter2") from error

log.info("said", email="kofi@example.com", msisdn=233241234567, note="to +233241234567", nested={"a": [SECRETS]})
log.info("binary", body=b"Bearer abcdefghijklmnop")
log.info("kept", payment_id="pay_01jd3x0r8v5m1q9z2k7c4b6t8n", count=7, nothing=None, good=True)
logging.getLogger("library").warning("to %s", "kofi@example.com", extra={"token": "hunter2", "who": SECRETS["pan"]})
for write in (log.exception, logging.getLogger("library").exception):
    try:
        fail()
    except ValueError:
        write("failed")
fail()
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_of_a_process_holds_what_is_personal(form: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, form], capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr

    assert done.returncode == 1
    for secret in ("kofi@", "4111111111111111", "233241234567", "hunter2", "abcdefghijklmnop"):
        assert secret not in output
    assert output.count("Traceback") >= 3
    assert "pay_01jd3x0r8v5m1q9z2k7c4b6t8n" in output
    if form == "json":
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["event"] for line in lines] == [
            "said",
            "binary",
            "kept",
            "to k***@example.com",
            "failed",
            "failed",
            "process_failed",
        ]
        assert {line["process"] for line in lines} == {"probe"}
        assert (lines[2]["count"], lines[2]["nothing"], lines[2]["good"]) == (7, None, True)
        assert done.stderr == ""
