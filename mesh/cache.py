"""Caches and counters: in memory, or in a Valkey that several replicas share."""

from __future__ import annotations

import time
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
        return _Counters()
    address = urlsplit(cache_url)
    return RedisStorage(f"async+redis://{address.netloc}{address.path}", implementation="redispy")


class _Counters(MemoryStorage):
    """Counters of this process.

    The library's own starts a task for each call, to look for counters that are over. Here a call does so now and then.
    Nothing in between awaits, so that no lock is needed.
    """

    _SWEEP_SECONDS = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._sweep_time = time.time() + self._SWEEP_SECONDS

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Adds to a counter, which begins anew when it is over.

        Args:
            key: which counter.
            expiry: seconds until it is over, from its beginning.
            amount: what to add.

        Returns:
            The counter after that.
        """
        now = time.time()
        if now >= self._sweep_time:
            self._sweep(now)
        if self.expirations.get(key, 0.0) <= now:
            self.expirations[key] = now + expiry
            self.storage[key] = 0
        self.storage[key] += amount
        return self.storage[key]

    def _sweep(self, now: float) -> None:
        self._sweep_time = now + self._SWEEP_SECONDS
        for key in [key for key, end in self.expirations.items() if end <= now]:
            del self.expirations[key]
            self.storage.pop(key, None)
