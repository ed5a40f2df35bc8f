"""The contracts as the gateway sees them: every RPC of every kente service, read from the generated descriptors.

Nothing here knows a domain. A new service appears when its generated modules do.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import kente
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor
from kente.options.v1 import options_pb2

_ROUTED = (options_pb2.AUDIENCE_PUBLIC, options_pb2.AUDIENCE_ANONYMOUS)


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC of one service.

    Attributes:
        domain: second part of the package, such as "payments": the process that serves it.
        service: full name, such as "kente.payments.v1.PaymentService".
        name: name within the service, such as "CreatePayment".
        bindings: its google.api.http rules, the first one before the additional ones; empty when it has no route.
    """

    domain: str
    service: str
    name: str
    request: Descriptor
    response: Descriptor
    server_streaming: bool
    policy: options_pb2.RpcPolicy
    bindings: tuple[http_pb2.HttpRule, ...]

    @property
    def path(self) -> str:
        """Path of the gRPC method, "/kente.payments.v1.PaymentService/CreatePayment"."""
        return f"/{self.service}/{self.name}"

    @property
    def full_name(self) -> str:
        """Name with dots, as descriptors and comments use it."""
        return f"{self.service}.{self.name}"

    @property
    def anonymous(self) -> bool:
        """Whether it is called without credentials."""
        return self.policy.audience == options_pb2.AUDIENCE_ANONYMOUS

    @property
    def is_write(self) -> bool:
        """Whether a call needs a request_id, so that it can be sent again safely."""
        return not self.is_safe and "request_id" in self.request.fields_by_name

    @property
    def is_safe(self) -> bool:
        """Whether a call changes nothing."""
        return self.policy.idempotency == options_pb2.IDEMPOTENCY_SAFE


def load_files() -> list[FileDescriptor]:
    """Imports every generated module below the package `kente` and gives their files, by name."""
    # pkgutil does not walk folders without __init__.py, and generated ones have none.
    names = {
        ".".join(("kente", *path.relative_to(root).with_suffix("").parts))
        for root in kente.__path__
        for path in Path(root).rglob("*_pb2.py")
    }
    return [importlib.import_module(name).DESCRIPTOR for name in sorted(names)]


def load_rpcs() -> list[Rpc]:
    """Every RPC of every service in a package kente.<domain>.v<n>, by full name."""
    rpcs = [rpc for file in load_files() for service in file.services_by_name.values() for rpc in _rpcs_of(service)]
    return sorted(rpcs, key=lambda rpc: rpc.full_name)


def load_comments() -> Mapping[str, str]:
    """Comments of the contracts by full name of what they describe; empty when they were not generated.

    Generated modules carry no comments, so the generation writes them beside the modules as kente/comments.json.
    """
    file = resources.files(kente).joinpath("comments.json")
    if not file.is_file():
        return {}
    comments: dict[str, str] = json.loads(file.read_text("utf-8"))
    return comments


def find_message(full_name: str) -> Descriptor | None:
    """The descriptor of a message, or None when no contract has it."""
    try:
        return descriptor_pool.Default().FindMessageTypeByName(full_name)
    except KeyError:
        return None


def _rpcs_of(service: ServiceDescriptor) -> Iterator[Rpc]:
    for method in service.methods:
        _, domain, *_ = method.containing_service.file.package.split(".")
        policy = method.GetOptions().Extensions[options_pb2.rpc]
        routed = policy.audience in _ROUTED
        yield Rpc(
            domain=domain,
            service=method.containing_service.full_name,
            name=method.name,
            request=method.input_type,
            response=method.output_type,
            server_streaming=method.server_streaming,
            policy=policy,
            bindings=tuple(_bindings(method)) if routed else (),
        )


def _bindings(method: MethodDescriptor) -> Iterator[http_pb2.HttpRule]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    if method.client_streaming:
        raise ValueError(f"{method.full_name} has a route, but its requests are a stream: REST can't carry that")
    rule = options.Extensions[annotations_pb2.http]
    yield rule
    yield from rule.additional_bindings
