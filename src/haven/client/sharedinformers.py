"""One informer per resource and selection, shared by every component of a process."""

from __future__ import annotations

import asyncio
import random
from typing import Any, TypeVar, cast

from haven.api.scheme import Resource, resource_of
from haven.client.informer import Informer, InformerStatistics
from haven.client.interface import Client
from haven.clock import Clock, SystemClock

__all__ = ["SharedInformers"]

T = TypeVar("T")

_Key = tuple[Resource[Any], str, str, str]


class SharedInformers:
    """Makes informers on demand and runs them all. Informers may be asked for before and during `run`."""

    def __init__(self, client: Client, *, clock: Clock | None = None, chance: random.Random | None = None) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()
        self._informers: dict[_Key, Informer[Any]] = {}
        self._running: dict[Informer[Any], asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def informer(
        self,
        resource: Resource[T] | type[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> Informer[T]:
        """Return the informer of a resource (or of the resource of a type), making it on first demand."""
        found = resource if isinstance(resource, Resource) else resource_of(resource)
        key: _Key = (found, namespace, label_selector, field_selector)
        informer = self._informers.get(key)
        if informer is None:
            informer = self._informers[key] = Informer(
                self._client,
                found,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                clock=self._clock,
                chance=self._chance,
            )
            if self._tasks is not None:
                self._start(informer)
        return cast("Informer[T]", informer)

    def holds(self, resource: Resource[Any]) -> bool:
        """Tell whether there is an informer of the whole resource already."""
        return (resource, "", "", "") in self._informers

    def drop(self, resource: Resource[Any]) -> None:
        """Stop and forget the informer of a whole resource, because it is no longer served."""
        informer = self._informers.pop((resource, "", "", ""), None)
        if informer is not None and (task := self._running.pop(informer, None)) is not None:
            task.cancel()

    async def run(self) -> None:
        """Run every informer until cancelled; an error in a handler ends them all."""
        async with asyncio.TaskGroup() as self._tasks:
            for informer in self._informers.values():
                self._start(informer)
            await asyncio.get_running_loop().create_future()  # Until cancelled: more informers may come.

    async def wait_synced(self) -> None:
        """Return once every informer asked for so far has its first list."""
        for informer in tuple(self._informers.values()):
            await informer.wait_synced()

    def statistics(self) -> list[InformerStatistics]:
        """Return a snapshot of each informer."""
        return [informer.statistics() for informer in self._informers.values()]

    def _start(self, informer: Informer[Any]) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(informer.run(), name=f"informer-{informer.resource.plural}")
        self._running[informer] = task
