"""Checks that an adapter states its facts completely, and says what is missing in words that tell what to do."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from typing import Any
from urllib.parse import urlsplit

from mesh.money import exponent_of
from mesh.provider.adapter import Adapter, AmountFormat
from mesh.provider.connection import Environment, RateQuota
from mesh.provider.folders import SLUG

_COUNTRY = re.compile(r"[A-Z]{2}")
# The words that `kente providers new` leaves for a person to replace.
PLACEHOLDER = "FILL IN"
PLACEHOLDER_HOST = ".example"

_REQUIRED = (
    "slug",
    "display_name",
    "countries",
    "currencies",
    "base_urls",
    "amount_format",
    "Credentials",
    "sandbox_credentials",
)


def faults_of(adapter: type[Adapter], folder: str, capabilities: tuple[type, ...]) -> list[str]:
    """What is missing or wrong in an adapter's facts; empty when they are complete.

    Args:
        adapter: the class to check.
        folder: name of its folder.
        capabilities: the capability interfaces of its domain.
    """
    faults = [f"{name} is not set" for name in _REQUIRED if not hasattr(adapter, name)]
    if faults:
        return faults
    return [
        *_faults_of_names(adapter, folder),
        *_faults_of_places(adapter),
        *_faults_of_credentials(adapter),
        *_faults_of_capabilities(adapter, capabilities),
    ]


def _faults_of_names(adapter: type[Adapter], folder: str) -> list[str]:
    faults = []
    if not SLUG.fullmatch(adapter.slug):
        faults.append(f"slug {adapter.slug!r} is not lower-case letters, digits and underscores")
    if adapter.slug != folder:
        faults.append(f"slug {adapter.slug!r} is not the folder's name {folder!r}")
    if not adapter.display_name or PLACEHOLDER in adapter.display_name:
        faults.append("display_name is not filled in")
    documentation = (inspect.getmodule(adapter) or adapter).__doc__
    if not documentation or PLACEHOLDER in documentation:
        faults.append("the module's docstring does not say where the facts come from")
    return faults


def _faults_of_places(adapter: type[Adapter]) -> list[str]:
    named = (("countries", adapter.countries), ("currencies", adapter.currencies))
    faults = [f"{name} is not a frozenset" for name, codes in named if not isinstance(codes, frozenset)]
    faults += [
        f"country {code!r} is not ISO 3166 alpha-2" for code in adapter.countries if not _COUNTRY.fullmatch(code)
    ]
    faults += [f"currency {code!r} is unknown" for code in adapter.currencies if not _is_currency(code)]
    for environment in Environment:
        address = urlsplit(adapter.base_urls.get(environment, ""))
        if not address.scheme or not address.netloc:
            faults.append(f"base_urls has no address for {environment}")
        elif address.netloc.endswith(PLACEHOLDER_HOST):
            faults.append(f"base_urls of {environment} is not filled in")
    return faults + _faults_of_limits(adapter)


def _faults_of_limits(adapter: type[Adapter]) -> list[str]:
    faults = []
    if not isinstance(adapter.amount_format, AmountFormat):
        faults.append("amount_format is not an AmountFormat")
    quota: Any = adapter.rate_quota
    if quota is not None and not (isinstance(quota, RateQuota) and quota.requests > 0 and quota.per_seconds > 0):
        faults.append("rate_quota is not a RateQuota of whole numbers above zero")
    if adapter.timeout_seconds <= 0:
        faults.append("timeout_seconds is not above zero")
    return faults


def _is_currency(code: str) -> bool:
    try:
        exponent_of(code)
    except ValueError:
        return False
    return True


def _faults_of_credentials(adapter: type[Adapter]) -> list[str]:
    credentials = adapter.Credentials
    if not is_dataclass(credentials) or not credentials.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # a dataclass has it
        return ["Credentials is not a frozen dataclass"]
    faults = []
    for field in fields(credentials):
        if field.type not in {"str", str}:
            faults.append(f"credential {field.name} is not a str")
        description = str(field.metadata.get("description", ""))
        if not description or PLACEHOLDER in description:
            faults.append(f'credential {field.name} has no metadata["description"]')
        if field.repr:
            faults.append(f"credential {field.name} would show in a repr: use field(repr=False)")
    try:
        adapter.read_credentials(adapter.sandbox_credentials)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault of the facts
        faults.append(f"sandbox_credentials don't fit: {error}")
    return faults


def _faults_of_capabilities(adapter: type[Adapter], capabilities: tuple[type, ...]) -> list[str]:
    faults = []
    if not any(issubclass(adapter, capability) for capability in capabilities):
        names = ", ".join(capability.__name__ for capability in capabilities)
        faults.append(f"it implements none of the capabilities {names}")
    abstract = sorted(getattr(adapter, "__abstractmethods__", ()))
    if abstract:
        faults.append(f"it does not define {', '.join(abstract)}")
    return faults
