"""Keeps personal and secret data out of logs, traces, errors and events.

Two means: fields that the contracts mark with debug_redact are masked by structure; free text is searched for what
looks like a secret, an address or a number of a person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

AnyMessage = TypeVar("AnyMessage", bound=Message)

_SECRETS = re.compile(
    r"""
    \beyJ[\w-]{8,}\.[\w-]+\.[\w-]*                     # a JWT
    | \bkente_[0-9a-z]{6,}_[\w-]{10,}                  # our API keys
    | \b(?:sk|rk|pk|whsec)_[A-Za-z0-9_]{6,}            # keys of card processors
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*-----|\Z)
    | (?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}         # credentials of a header
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)                  # user and password of an address
    """,
    re.VERBOSE | re.DOTALL,
)
# What a name announces, in a query, a form, JSON or prose: password=..., "client_secret": "...".
_NAMED_SECRET = re.compile(
    r"""
    ((?i:pass(?:word|wd|phrase)|secret|(?:access|refresh|id)_?token|api[_-]?key|authorization|private_?key)
    ["']?\s*[=:]\s*["']?)
    [^\s"',;&}\])]+
    """,
    re.VERBOSE,
)
_EMAIL = re.compile(r"""([^\s@<>"'(),:;\[\]={}/*?&])[^\s@<>"'(),:;\[\]={}/*?&]*@([\w-]+(?:\.[\w-]+)+)""")
# Phone, card and national numbers: eleven digits or more, ten that begin with 0, or a plus sign and seven or more,
# also in groups. Digits inside of a word are part of an id; those on either side of a dot are a decimal number.
_BEFORE = r"(?<!\w)(?<!\w[.-])"
_AFTER = r"(?!\w|[.-]\w)"
_NUMBER = re.compile(
    rf"\+(?=(?:[ ()-]{{0,2}}\d){{7}})\d{{1,3}}(?:[ -]?\(?\d{{1,4}}\)?){{2,6}}{_AFTER}"
    rf"|{_BEFORE}(?:0\d{{9}}|\d{{11,19}}){_AFTER}"
)
_CARD = re.compile(rf"{_BEFORE}\d{{4}}[ -]\d{{4,6}}[ -]\d{{4,5}}(?:[ -]\d{{1,4}})?{_AFTER}")
_GHANA_CARD = re.compile(r"\bGHA-\d{9}-\d\b")
MASK = "***"


def mask_text(text: str) -> str:
    """The text with everything masked that looks like a secret, an e-mail address, or a phone or card number."""
    text = _SECRETS.sub(MASK, text)
    text = _NAMED_SECRET.sub(lambda found: found[1] + MASK, text)
    text = _GHANA_CARD.sub(MASK, text)
    text = _EMAIL.sub(lambda found: f"{found[1]}{MASK}@{found[2]}", text)
    text = _CARD.sub(lambda found: MASK + found[0][-4:], text)
    return _NUMBER.sub(lambda found: MASK + found[0][-2:], text)


def redact(message: AnyMessage) -> AnyMessage:
    """A copy of the message with every debug_redact field masked, at any depth."""
    copy = type(message)()
    copy.CopyFrom(message)
    _redact_in_place(copy)
    return copy


def _redact_in_place(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            _mask_field(message, field, value)
        elif field.message_type is not None and has_sensitive_fields(field.message_type):
            for child in _children(value):
                _redact_in_place(child)


def _children(value: object) -> list[Message]:
    if isinstance(value, Message):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    return [child for child in cast("Iterable[object]", value) if isinstance(child, Message)]


def _mask_field(message: Message, field: FieldDescriptor, value: object) -> None:
    if field.is_repeated or field.type != FieldDescriptor.TYPE_STRING:
        message.ClearField(field.name)
        return
    setattr(message, field.name, mask_value(str(value)))


def mask_value(text: str) -> str:
    """Masks a value known to be personal, keeping just enough to recognise it: "a***@example.com", "***67"."""
    if "@" in text:
        name, _, domain = text.partition("@")
        return f"{name[:1]}{MASK}@{domain}"
    return MASK + text[-2:] if len(text) > 6 else MASK  # noqa: PLR2004 - shorter ones would be half readable


@cache
def has_sensitive_fields(descriptor: Descriptor) -> bool:
    """Whether a message type can hold a debug_redact field at any depth."""
    seen: set[str] = set()
    pending = [descriptor]
    while pending:
        current = pending.pop()
        if current.full_name in seen:
            continue
        seen.add(current.full_name)
        for field in current.fields:
            if field.GetOptions().debug_redact:
                return True
            if field.message_type is not None:
                pending.append(field.message_type)
    return False
