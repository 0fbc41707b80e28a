"""The config maps and secrets that the pods of this node use: one watch each, for as long as a pod needs it.

A node may only read objects that its pods name, one by one; so there is one informer per object, by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from haven.api.core.v1 import ConfigMap, Secret
from haven.api.scheme import Resource, resource_of
from haven.apimachinery.apierrors import ApiError
from haven.apimachinery.names import NamespacedName
from haven.client.informer import Informer
from haven.client.interface import Client
from haven.clock import Clock
from haven.kubelet.trustbundles import TrustBundles

__all__ = ["NotReadYet", "ObjectCaches", "ObjectWatches"]

T = TypeVar("T", ConfigMap, Secret)
_FIRST_READ_SECONDS = 10.0


class NotReadYet(Exception):
    """The object could not be read in time; the message has the server's answer."""


@dataclass(slots=True)
class _Watch(Generic[T]):
    informer: Informer[T]
    task: asyncio.Task[None]
    users: set[str] = field(default_factory=set)


class ObjectWatches(Generic[T]):
    """The watched objects of one kind. `on_change(uid)` is called for each pod that uses an object that changed."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        resource: Resource[T],
        tasks: asyncio.TaskGroup,
        on_change: Callable[[str], None],
    ) -> None:
        self._client = client
        self._clock = clock
        self._resource: Resource[T] = resource
        self._tasks = tasks
        self._on_change = on_change
        self._watches: dict[NamespacedName, _Watch[T]] = {}

    def set_users(self, pod_uid: str, namespace: str, names: set[str]) -> None:
        """Say which objects a pod uses now; those that nobody uses any more are let go."""
        wanted = {NamespacedName(namespace, name) for name in names}
        for key in wanted:
            if key not in self._watches:
                self._watches[key] = self._start(key)
            self._watches[key].users.add(pod_uid)
        for key, watch in list(self._watches.items()):
            if key not in wanted and pod_uid in watch.users:
                watch.users.discard(pod_uid)
                if not watch.users:
                    watch.task.cancel()
                    del self._watches[key]

    def _start(self, key: NamespacedName) -> _Watch[T]:
        informer = Informer(
            self._client,
            self._resource,
            namespace=key.namespace,
            field_selector=f"metadata.name={key.name}",
            clock=self._clock,
        )

        def tell(_old: T | None, _new: T | None) -> None:
            watch = self._watches.get(key)
            for uid in sorted(watch.users) if watch else ():
                self._on_change(uid)

        informer.add_handler(tell)
        return _Watch(informer, self._tasks.create_task(informer.run()))

    async def wait_get(self, namespace: str, name: str) -> T | None:
        """Return an object that some pod uses, None if it does not exist; raise NotReadYet."""
        watch = self._watches.get(NamespacedName(namespace, name))
        assert watch is not None, (namespace, name)
        if not watch.informer.synced:
            try:
                async with asyncio.timeout(_FIRST_READ_SECONDS):
                    await watch.informer.wait_synced()
            except TimeoutError:
                raise NotReadYet(
                    f"failed to sync {self._resource.singular} cache: timed out waiting for the condition"
                ) from None
            except ApiError as error:
                raise NotReadYet(error.message) from error
        return watch.informer.get(namespace, name)


class ObjectCaches:
    """Config maps, secrets and trust bundles together."""

    def __init__(
        self, client: Client, clock: Clock, tasks: asyncio.TaskGroup, on_change: Callable[[str], None]
    ) -> None:
        self.config_maps: ObjectWatches[ConfigMap] = ObjectWatches(
            client, clock, resource_of(ConfigMap), tasks, on_change
        )
        self.trust_bundles = TrustBundles(client, clock, tasks, on_change)
        self.secrets: ObjectWatches[Secret] = ObjectWatches(client, clock, resource_of(Secret), tasks, on_change)

    async def wait_config_maps(self, namespace: str, names: set[str]) -> dict[str, ConfigMap]:
        """Return those that exist, by name; raise NotReadYet."""
        found = {name: await self.config_maps.wait_get(namespace, name) for name in sorted(names)}
        return {name: value for name, value in found.items() if value is not None}

    async def wait_secrets(self, namespace: str, names: set[str]) -> dict[str, Secret]:
        """Return those that exist, by name; raise NotReadYet."""
        found = {name: await self.secrets.wait_get(namespace, name) for name in sorted(names)}
        return {name: value for name, value in found.items() if value is not None}
