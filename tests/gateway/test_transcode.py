"""Two runtimes, one mapping: what the gateway reads and writes is what google.protobuf.json_format does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contracts import find_message, load_files, load_rpcs
from gateway.transcode import Transcoder, parse
from mesh.errors import Problem, Reason
from tests.gateway.messages import all_kinds, messages, near_json

TRANSCODER = Transcoder(load_files())
DESCRIPTORS = sorted(
    {descriptor.full_name: descriptor for rpc in load_rpcs() for descriptor in (rpc.request, rpc.response)}.items()
)
EACH_MESSAGE = pytest.mark.parametrize("descriptor", [pair[1] for pair in DESCRIPTORS], ids=[p[0] for p in DESCRIPTORS])
# Every message at each run, and other examples at each; what they find is kept in .hypothesis.
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def described(name: str) -> Descriptor:
    """A message of the contracts."""
    found = find_message(name)
    assert found is not None
    return found


def encoded(descriptor: Descriptor, value: Any) -> bytes | Problem:
    """The message of a JSON value, or of a JSON text, or why there is none."""
    try:
        return TRANSCODER.encode(descriptor, parse(value) if isinstance(value, bytes) else value)
    except Problem as problem:
        return problem


@EACH_MESSAGE
@FEW
@given(data=st.data())
def test_every_message_survives_the_way_there_and_back(descriptor: Descriptor, data: st.DataObject) -> None:
    message = data.draw(messages(descriptor))

    written = TRANSCODER.decode(descriptor, message.SerializeToString())

    expected = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    # Texts are compared, as NaN is not equal to itself.
    assert json.dumps(json.loads(written), sort_keys=True) == json.dumps(expected, sort_keys=True)
    read = GetMessageClass(descriptor).FromString(TRANSCODER.encode(descriptor, parse(written.encode())))
    assert read.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("descriptor", [rpc.request for rpc in load_rpcs()], ids=[rpc.full_name for rpc in load_rpcs()])
@FEW
@given(data=st.data())
def test_what_is_accepted_means_the_same_to_both_runtimes(descriptor: Descriptor, data: st.DataObject) -> None:
    value = data.draw(near_json(descriptor))

    outcome = encoded(descriptor, value)

    if isinstance(outcome, Problem):
        assert outcome.reason is Reason.BODY_MALFORMED
        assert outcome.violations
        # The last resort for what the checks let through and the runtime does not: nothing may reach it.
        assert "does not fit" not in outcome.detail
        return
    ours = GetMessageClass(descriptor).FromString(outcome)
    theirs = json_format.ParseDict(value, GetMessageClass(descriptor)())
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


KINDS = all_kinds()
KINDS_TRANSCODER = Transcoder([KINDS.file])


@pytest.mark.parametrize(
    "value",
    [
        {"oneDouble": 1.5, "oneFloat": -2, "oneInt64": "-9223372036854775808", "oneUint64": 2**64 - 1, "oneBool": True},
        {"oneDouble": "NaN", "oneFloat": "-Infinity", "oneBytes": "-_8=", "one_string": "é😀", "oneSint64": 7},
        {"oneDouble": "1e3", "oneBytes": "+/8", "oneInt32": "-0"},
        {"wellKnownDuration": "-1.5s", "wellKnownFieldmask": "displayName,amount.currency"},
        {"wellKnownStruct": {"a": [1, None, {"b": True}]}, "wellKnownValue": [1.5, "x"], "wellKnownListvalue": [None]},
        {"wellKnownInt64value": "12", "itself": {"itself": {"oneString": "deep"}}},
        {"oneInt64": None, "wellKnownStruct": None, "itself": None},
    ],
)
def test_every_kind_of_field_is_read_alike(value: dict[str, Any]) -> None:
    ours = KINDS_TRANSCODER.encode(KINDS, value)

    theirs = json_format.ParseDict(value, GetMessageClass(KINDS)())
    assert GetMessageClass(KINDS).FromString(ours).SerializeToString(deterministic=True) == theirs.SerializeToString(
        deterministic=True
    )
    written = json.loads(KINDS_TRANSCODER.decode(KINDS, ours))
    expected = json_format.MessageToDict(theirs, always_print_fields_with_no_presence=True)
    assert json.dumps(written, sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"oneDouble": "much"}, "one_double", "must be a number, not a text"),
        ({"oneDouble": 10**400}, "one_double", "is out of range"),
        ({"oneFloat": 1e39}, "one_float", "is out of range"),
        ({"oneBool": "true"}, "one_bool", "must be true or false, not a text"),
        ({"oneBytes": "?"}, "one_bytes", "must be base64"),
        ({"oneBytes": 1}, "one_bytes", "must be base64 text, not a number"),
        ({"oneUint32": -1}, "one_uint32", "is out of range: from 0 to 4294967295"),
        ({"wellKnownDuration": "1 minute"}, "well_known_duration", 'must be seconds with an "s"'),
        ({"wellKnownFieldmask": "display_name"}, "well_known_fieldmask", "lowerCamelCase"),
        ({"wellKnownStruct": [1]}, "well_known_struct", "must be an object, not a list"),
        ({"wellKnownStruct": {"a\0": 1}}, "well_known_struct", "U+0000"),
        ({"wellKnownInt64value": 1.0}, "well_known_int64value", "must be a whole number"),
        ({"itself": {"itself": {"oneInt32": []}}}, "itself.itself.one_int32", "must be a whole number, not a list"),
    ],
)
def test_every_kind_of_fault_is_named(value: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(Problem) as refused:
        KINDS_TRANSCODER.encode(KINDS, value)

    (violation,) = refused.value.violations
    assert violation.field == field
    assert words in violation.description


PAYMENT = described("kente.payments.v1.CreatePaymentRequest")


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        ({"amount": {"amountMinor": 10.5}}, "amount.amount_minor", "no fraction, no exponent"),
        ({"amount": {"amountMinor": 10.0}}, "amount.amount_minor", "no fraction, no exponent"),
        ({"amount": {"amountMinor": "1e2"}}, "amount.amount_minor", "no fraction, no exponent"),
        ({"amount": {"amountMinor": "1_000"}}, "amount.amount_minor", "no fraction, no exponent"),
        ({"amount": {"amountMinor": " 10"}}, "amount.amount_minor", "no fraction, no exponent"),
        ({"amount": {"amountMinor": "\u0661"}}, "amount.amount_minor", "no fraction, no exponent"),
        ({"amount": {"amountMinor": True}}, "amount.amount_minor", "must be a whole number, not a boolean"),
        ({"amount": {"amountMinor": 2**63}}, "amount.amount_minor", "is out of range"),
        ({"amount": {"amountMinor": str(-(2**63) - 1)}}, "amount.amount_minor", "is out of range"),
        ({"amount": {"amount": 5}}, "amount.amount", "is not a field here: did you mean amountMinor?"),
        ({"amount": []}, "amount", "must be an object, not a list"),
        ({"amount": "10.50 GHS"}, "amount", "must be an object, not a text"),
        ({"amuont": {}}, "amuont", "is not a field here: did you mean amount?"),
        ({"captureMethod": "LATER"}, "capture_method", "must be one of CAPTURE_METHOD_UNSPECIFIED, CAPTURE_METHOD"),
        ({"captureMethod": 1.0}, "capture_method", "must be the name of a value, not a number"),
        ({"description": 7}, "description", "must be a text, not a number"),
        ({"description": "a\0b"}, "description", "holds the character U+0000"),
        ({"description": "\ud800"}, "description", "half of a surrogate pair"),
        ({"method": {"card": {}, "mobileMoney": {}}}, "method.mobile_money", "comes with another field of kind"),
        ({"connectionId": "a", "connection_id": "b"}, "connection_id", "is given twice, by both of its names"),
        ([], "body", "must be an object, not a list"),
    ],
)
def test_a_body_that_does_not_fit_is_told_by_field_and_without_its_value(value: Any, field: str, words: str) -> None:
    with pytest.raises(Problem) as refused:
        TRANSCODER.encode(PAYMENT, value)

    assert refused.value.reason is Reason.BODY_MALFORMED
    (violation,) = refused.value.violations
    assert violation.field == field
    assert words in violation.description


def test_all_faults_are_told_at_once_and_no_secret_with_them() -> None:
    value = {"provider": 1, "credentials": {"api_key": ["hunter2"]}, "settings": "hunter2", "environment": "hunter2"}

    with pytest.raises(Problem) as refused:
        TRANSCODER.encode(described("kente.connections.v1.CreateConnectionRequest"), value)

    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["provider", "credentials[api_key]", "settings", "environment"]
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "the body is not JSON: Expecting property name"),
        (b"{} {}", "the body is not JSON: Extra data at line 1, column 4"),
        (b"\xff\xfe", "the body is not UTF-8"),
        (b"\xef\xbb\xbf{}", "the body is not JSON: Unexpected UTF-8 BOM"),
        (b'{"amount": NaN}', "the body is not JSON: NaN is no JSON value"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "c is given twice in one object: send one"),
        (b"[" * 100_000, "beyond all limits"),
        (b"9" * 5000, "beyond all limits"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: bytes, words: str) -> None:
    with pytest.raises(Problem) as refused:
        parse(text)

    assert refused.value.reason is Reason.BODY_MALFORMED
    assert words in refused.value.detail


@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=60))
def test_no_bytes_break_the_parser(text: bytes) -> None:
    outcome = encoded(PAYMENT, text)

    assert isinstance(outcome, bytes) or outcome.reason is Reason.BODY_MALFORMED


def test_one_field_alone_can_be_the_answer() -> None:
    descriptor = described("kente.payments.v1.GetPaymentResponse")
    data = GetMessageClass(descriptor)(payment={"payment_id": "pay_1"}).SerializeToString()

    assert json.loads(TRANSCODER.decode(descriptor, data, "payment"))["paymentId"] == "pay_1"
    assert TRANSCODER.decode(descriptor, b"", "payment") == "null"


def test_a_64_bit_number_is_written_as_a_text_and_an_empty_list_is_written() -> None:
    money = described("kente.common.v1.Money")
    page = described("kente.payments.v1.ListPaymentsResponse")

    assert (
        TRANSCODER.decode(money, b"\x08" + b"\xff" * 8 + b"\x7f")
        == '{"amountMinor":"9223372036854775807","currency":""}'
    )
    assert json.loads(TRANSCODER.decode(page, b"")) == {"payments": [], "nextPageToken": ""}
