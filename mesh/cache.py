"""Caches and counters: in memory, or in a Valkey that several replicas share."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from aiocache import Cache
from aiocache.base import BaseCache
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.base import Storage

_DEFAULT_PORT = 6379


def open_cache(cache_url: str, namespace: str, *, ttl_seconds: float) -> BaseCache[str]:
    """A cache of this process, or of all replicas when an address is given.

    Never put a secret into it: an outside cache is readable by whoever reaches it.
    """
    if not cache_url:
        memory: BaseCache[str] = Cache(Cache.MEMORY, namespace=namespace, ttl=ttl_seconds)
        return memory
    address = urlsplit(cache_url)
    options: dict[str, Any] = {"endpoint": address.hostname, "port": address.port or _DEFAULT_PORT}
    if address.password:
        options["password"] = address.password
    shared: BaseCache[str] = Cache(Cache.REDIS, namespace=namespace, ttl=ttl_seconds, **options)
    return shared


def rate_limit_storage(cache_url: str) -> Storage:
    """Where calls are counted."""
    if not cache_url:
        return MemoryStorage()
    address = urlsplit(cache_url)
    return RedisStorage(f"async+redis://{address.netloc}{address.path}", implementation="redispy")
