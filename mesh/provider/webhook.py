"""A provider's callback as it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class IncomingWebhook:
    """A callback, untouched.

    Attributes:
        headers: names in lower case.
        body: raw bytes, as the signature covers them.
        query: query string without the question mark.
        receive_time: aware UTC; signatures are checked against it, so a check can be repeated later.
    """

    headers: Mapping[str, str]
    body: bytes
    query: str
    http_method: str
    receive_time: datetime
