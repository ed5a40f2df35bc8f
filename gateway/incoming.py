"""What every handler needs of a request: its headers, its deadline, its body."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request

from gateway.problems import refuse
from gateway.upstream import Deadline
from mesh.errors import Problem, Reason, Violation

TIMEOUT_HEADER = "kente-timeout-seconds"

# A client that still sends when the connection closes never sees the answer, so a body that is too large is read on
# to this many bytes, and thrown away.
_DROPPED_MAX_BYTES = 16 * 1024 * 1024


def headers_of(request: Request) -> dict[str, str]:
    """The headers with names in lower case; those of one name joined as RFC 9110 says."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def deadline_of(headers: Mapping[str, str], default_seconds: float, max_seconds: float) -> Deadline:
    """The deadline that the caller asks for, or the default.

    Raises:
        Problem: DEADLINE_PASSED when it is over already, FIELD_INVALID when it is no number.
    """
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return Deadline.after(min(default_seconds, max_seconds))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        detail = "must be a number of seconds, such as 2.5"
        raise Problem(Reason.FIELD_INVALID, violations=[Violation("Kente-Timeout-Seconds", detail)])
    if seconds <= 0:
        raise Problem(
            Reason.DEADLINE_PASSED, "Kente-Timeout-Seconds is not more than zero: the deadline is already over"
        )
    return Deadline.after(min(seconds, max_seconds))


async def read_body(request: Request, headers: Mapping[str, str], max_bytes: int, deadline: Deadline) -> bytes:
    """The whole body.

    Raises:
        Refusal: 413 when it is too large, 408 when it does not arrive before the deadline, 400 when it is cut off.
    """
    # A connection whose body was not read to its end can carry no further request.
    close = {"connection": "close"}
    length = headers.get("content-length", "")
    too_large = length.isdecimal() and int(length) > max_bytes
    body = bytearray()
    dropped_bytes = 0
    try:
        async with asyncio.timeout(deadline.remaining_seconds()):
            async for chunk in request.stream():
                if too_large or len(body) + len(chunk) > max_bytes:
                    too_large = True
                    dropped_bytes += len(chunk)
                    if dropped_bytes > _DROPPED_MAX_BYTES:
                        break
                else:
                    body += chunk
    except TimeoutError:
        if not too_large:
            raise refuse(408, Reason.DEADLINE_PASSED, "the body did not arrive before the deadline", close) from None
    except ClientDisconnect:
        raise refuse(400, Reason.CALL_CANCELED, "the body was cut off", close) from None
    if too_large:
        raise refuse(413, Reason.BODY_MALFORMED, f"the body is larger than {max_bytes} bytes", close)
    return bytes(body)
