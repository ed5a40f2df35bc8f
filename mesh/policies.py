"""What the contracts say about each RPC, read from the method options at start."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from kente.options.v1 import options_pb2
from kente.options.v1.options_pb2 import Audience, Audit, Idempotency, Rate


@dataclass(frozen=True)
class Method:
    """One RPC with its policy."""

    descriptor: MethodDescriptor
    policy: options_pb2.RpcPolicy

    @cached_property
    def service(self) -> str:
        """Full name of its service."""
        return str(self.descriptor.containing_service.full_name)

    @cached_property
    def name(self) -> str:
        """Its name in the service."""
        return str(self.descriptor.name)

    @cached_property
    def full_name(self) -> str:
        """As gRPC names it: "/kente.payments.v1.PaymentService/CreatePayment"."""
        return f"/{self.service}/{self.name}"

    @cached_property
    def response_class(self) -> type[Message]:
        """Class of the response."""
        return GetMessageClass(self.descriptor.output_type)

    @property
    def is_streaming(self) -> bool:
        """Whether it answers with a stream."""
        return bool(self.descriptor.server_streaming)


@cache
def contract_services(domain: str) -> tuple[str, ...]:
    """Full names of the gRPC services in a domain's contracts."""
    package = importlib.import_module(f"kente.{domain}.v1")
    names: list[str] = []
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.endswith("_pb2"):
            contracts: Any = importlib.import_module(f"kente.{domain}.v1.{module.name}")
            names.extend(service.full_name for service in contracts.DESCRIPTOR.services_by_name.values())
    return tuple(sorted(names))


def methods_of(service_names: Iterable[str]) -> dict[str, Method]:
    """The RPCs of services by full name.

    Raises:
        SystemExit: an RPC lacks its policy, or a part of it. A server must not run with a gap in its rules.
    """
    methods: dict[str, Method] = {}
    for name in service_names:
        service: Any = descriptor_pool.Default().FindServiceByName(name)
        for descriptor in service.methods:
            policy = descriptor.GetOptions().Extensions[options_pb2.rpc]
            method = Method(descriptor, policy)
            if fault := _fault_of(method):
                raise SystemExit(f"{method.full_name}: {fault}; complete its option (kente.options.v1.rpc)")
            methods[method.full_name] = method
    return methods


def _fault_of(method: Method) -> str:
    policy = method.policy
    needs_id = policy.idempotency == Idempotency.IDEMPOTENCY_REQUEST_ID
    faults = {
        "no audience": policy.audience == Audience.AUDIENCE_UNSPECIFIED,
        "no permission": not policy.permission and policy.audience != Audience.AUDIENCE_ANONYMOUS,
        "no idempotency class": policy.idempotency == Idempotency.IDEMPOTENCY_UNSPECIFIED,
        "no audit class": policy.audit == Audit.AUDIT_UNSPECIFIED,
        "no rate class": policy.rate == Rate.RATE_UNSPECIFIED,
        "idempotent by request_id, and its request has none": needs_id
        and "request_id" not in method.descriptor.input_type.fields_by_name,
        # The interceptors see one request. An RPC that they can't see whole would pass them by.
        "a stream of requests": method.descriptor.client_streaming,
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")
