"""Between the contracts of notifications and its model. Pure functions."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from kente.common.v1 import provider_pb2
from kente.notifications.v1 import message_pb2

from mesh.errors import Problem, Reason, Violation
from mesh.provider.registry import ProviderFacts
from services.notifications.model import Message, MessageState

_STATES = {state: message_pb2.Message.State.Value(f"STATE_{state.name}") for state in MessageState}


def message_to_proto(message: Message) -> message_pb2.Message:
    """A message as callers see it."""
    return message_pb2.Message(
        message_id=message.message_id,
        state=_STATES[message.state],
        template=message.template,
        locale=message.locale,
        recipient=message.recipient,
        subject=message.content.subject,
        provider=message.provider,
        connection_id=message.connection_id,
        provider_reference=message.provider_reference,
        source_id=message.source_id,
        attempts=message.attempts,
        failure=message.failure,
        create_time=_timestamp(message.create_time),
        update_time=_timestamp(message.update_time),
    )


def provider_to_proto(facts: ProviderFacts) -> provider_pb2.Provider:
    """A provider as callers see it."""
    return provider_pb2.Provider(
        provider=facts.slug,
        display_name=facts.display_name,
        domain=facts.domain,
        capabilities=facts.capabilities,
        countries=facts.countries,
        currencies=facts.currencies,
        credential_fields=[
            provider_pb2.CredentialField(name=field.name, description=field.description, optional=field.optional)
            for field in facts.credential_fields
        ],
    )


def text_from_proto(text: str, field: str) -> str:
    """The text, when PostgreSQL can store it: proto allows the one character that it can't.

    Raises:
        Problem: FIELD_INVALID.
    """
    if "\x00" in text:
        raise Problem(Reason.FIELD_INVALID, violations=[Violation(field, "holds a NUL character: leave it out")])
    return text


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
