"""All ClusterTrustBundles, watched as soon as a Pod of this node shows one: they are few, and chosen by labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from haven.api.certificates.v1beta1 import ClusterTrustBundle
from haven.api.scheme import resource_of
from haven.apimachinery.apierrors import NotFound
from haven.client.informer import Informer
from haven.client.interface import Client
from haven.clock import Clock

__all__ = ["TrustBundles"]

FIRST_READ_SECONDS = 10.0


class TrustBundles:
    """`on_change(uid)` is called for each pod that shows bundles when one of them changed."""

    def __init__(
        self, client: Client, clock: Clock, tasks: asyncio.TaskGroup, on_change: Callable[[str], None]
    ) -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._on_change = on_change
        self._users: set[str] = set()
        self._informer: Informer[ClusterTrustBundle] | None = None

    def forget(self, pod_uid: str) -> None:
        """A pod is gone."""
        self._users.discard(pod_uid)

    async def wait_all(self, pod_uid: str) -> Sequence[ClusterTrustBundle] | None:
        """Return all bundles for a pod, None if the server has no such kind; raise ApiError or TimeoutError."""
        if self._informer is None:
            resource = resource_of(ClusterTrustBundle)
            try:
                await self._client.list(resource, limit=1)
            except NotFound:
                return None
            if self._informer is None:  # Another pod may have been faster.
                self._informer = Informer(self._client, resource, clock=self._clock)
                self._informer.add_handler(self._changed)
                self._tasks.create_task(self._informer.run())
        self._users.add(pod_uid)
        async with asyncio.timeout(FIRST_READ_SECONDS):
            await self._informer.wait_synced()
        return self._informer.list()

    def _changed(self, _old: ClusterTrustBundle | None, _new: ClusterTrustBundle | None) -> None:
        for uid in sorted(self._users):
            self._on_change(uid)
