"""A server says which resources it stores in which version, once it has an identity, for migrations to go by.

Source: KEP-2339 (storage versions of servers that are many), behind the gate StorageVersionAPI.
"""

from __future__ import annotations

from collections.abc import Sequence

from haven import telemetry
from haven.api.apiserverinternal import v1alpha1
from haven.api.apiserverinternal.encodings import Stored, recorded
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.client.interface import Client
from haven.clock import Clock

__all__ = ["StorageVersions"]

RETRY_SECONDS = 1.0
_ATTEMPTS_MAX = 5
_VERSIONS = resource_of(v1alpha1.StorageVersion)
_log = telemetry.logger("cluster")


class StorageVersions:
    """Writes down what a server stores."""

    def __init__(self, client: Client, server: str, stored: Sequence[Stored], clock: Clock) -> None:
        self._client = client
        self._server = server
        self._stored = tuple(stored)
        self._clock = clock

    async def publish(self) -> None:
        """Write everything down; what cannot be written after some attempts is left out."""
        for one in self._stored:
            for attempt in range(1, _ATTEMPTS_MAX + 1):
                try:
                    await self._write(one)
                    break
                except apierrors.ApiError as error:
                    text = "a storage version was not written"
                    _log.warning(text, resource=one.name, attempt=attempt, because=str(error))
                    await self._clock.sleep(RETRY_SECONDS)

    async def _write(self, stored: Stored) -> None:
        now = self._clock.now_seconds()
        try:
            seen = await self._client.get(_VERSIONS, "", stored.name)
        except apierrors.NotFound:
            wanted = recorded(None, stored, self._server, now)
            seen = await self._client.create(_VERSIONS, wanted)
        wanted = recorded(seen, stored, self._server, now)
        if wanted.status != seen.status:
            await self._client.update(_VERSIONS, wanted, subresource="status")
