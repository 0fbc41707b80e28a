"""Runs controllers: informers -> keys -> queue -> sync -> actions. The only file of this room that awaits.

Read-your-writes: a key is answered for only when the caches show everything that was written for it, so the next
pass over the key sees its own creations and deletions. That is what upstream's expectations are for, without counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from haven import telemetry
from haven.api.scheme import Resource, resource_of
from haven.apimachinery import apierrors
from haven.apimachinery.names import NamespacedName
from haven.client.informer import Informer
from haven.client.interface import Client
from haven.client.metadata import metadata_only
from haven.client.sharedinformers import SharedInformers
from haven.client.workqueue import QueueShutDown, QueueStatistics, WorkQueue
from haven.clock import Clock
from haven.controllers.actions import (
    Action,
    Change,
    Controller,
    Create,
    Delete,
    DeleteCollection,
    Emit,
    Fetch,
    ListNow,
    Measured,
    Reader,
    Request,
    Requeue,
    Retry,
    Together,
    Update,
    Wiring,
    key_from,
)
from haven.controllers.counts import Counts
from haven.metrics.families import Histogram, Registry

__all__ = ["ControllerRunner", "ControllerStatistics", "Recorder"]

T = TypeVar("T")

SEEN_SECONDS_MAX = 10.0  # A cache further behind than this is broken; the key is tried again rather than held.
LIST_OBJECTS = 500

_log = telemetry.logger("controllers")


class Recorder(Protocol):
    """Records Events; never blocks and never fails."""

    def event(self, about: Any, type: str, reason: str, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ControllerStatistics:
    """A snapshot for metrics."""

    name: str
    running: bool
    syncs: int
    failures: int
    queue: QueueStatistics
    waits: Histogram
    work: Histogram
    counts: Counts | None = None


class ControllerRunner:
    """One controller with its queue, its workers and its identity. Is the Wiring that the controller gets."""

    def __init__(
        self,
        name: str,
        make: Callable[[Wiring], Controller],
        client: Client,
        informers: SharedInformers,
        recorder: Recorder,
        *,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self.name = name
        self.chance = chance
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._clock = clock
        self._queue: WorkQueue[Hashable] = WorkQueue(name, clock=clock)
        self._read: dict[Resource[Any], Informer[Any]] = {}
        self._changes: dict[tuple[Resource[Any], NamespacedName], asyncio.Event] = {}
        self._running = False
        self._syncs = self._failures = 0
        self._controller = make(self)

    # What the controller sees

    def reader(self, kind: type[T] | Resource[T], *, field_selector: str = "") -> Reader[T]:
        resource = kind if isinstance(kind, Resource) else resource_of(kind)
        if resource not in self._read:
            informer = self._read[resource] = self._informers.informer(resource, field_selector=field_selector)
            informer.add_handler(lambda old, new: self._note_change(resource, old if new is None else new))
        return cast("Reader[T]", self._read[resource])

    def metadata_reader(self, resource: Resource[Any]) -> Reader[Any]:
        return self.reader(resource if self._informers.holds(resource) else metadata_only(resource))

    def forget(self, resource: Resource[Any]) -> None:
        partial = metadata_only(resource)
        if self._read.pop(partial, None) is not None:
            self._informers.drop(partial)

    def is_synced(self) -> bool:
        return all(informer.synced for informer in self._read.values())

    def enqueue(self, key: Hashable) -> None:
        self._queue.add(key)

    def enqueue_after(self, key: Hashable, seconds: float) -> None:
        self._queue.add_after(key, seconds)

    def now_seconds(self) -> float:
        return self._clock.now_seconds()

    def measure(self, registry: Registry) -> None:
        """Have a controller that counts things of its own write them down."""
        if isinstance(self._controller, Measured):
            self._controller.measure(registry)

    # Running it

    async def run(self) -> None:
        """Work until cancelled, beginning when the caches that the controller reads are filled."""
        for informer in tuple(self._read.values()):
            await informer.wait_synced()
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._controller.workers):
                    tasks.create_task(self._work(), name=f"{self.name}-{number}")
        finally:
            self._running = False
            self._queue.shut_down()

    def statistics(self) -> ControllerStatistics:
        """Return a snapshot for metrics."""
        return ControllerStatistics(
            self.name,
            self._running,
            self._syncs,
            self._failures,
            self._queue.statistics(),
            self._queue.waits,
            self._queue.work,
            getattr(self._controller, "counts", None),
        )

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.wait_next()
            except QueueShutDown:
                return
            try:
                await self._sync(key)
            except asyncio.CancelledError:
                raise
            except (apierrors.ApiError, Retry, TimeoutError) as error:
                self._failures += 1
                _log.debug("trying again later", controller=self.name, key=str(key), because=str(error))
                self._queue.retry_later(key, because=error)
            except Exception as error:  # One controller's bug must not end the control plane; it is reported loudly.
                self._failures += 1
                _log.error("a controller failed", controller=self.name, key=str(key), exc_info=error)
                self._queue.retry_later(key, because=error)
            else:
                self._queue.done(key)

    async def _sync(self, key: Hashable) -> None:
        self._syncs += 1
        written: list[_Write] = []
        try:
            await self._drive(key, written)
        except (apierrors.ApiError, Retry):
            await self._wait_seen(written)  # What was done before the error counts as well.
            raise
        await self._wait_seen(written)

    async def _drive(self, key: Hashable, written: list[_Write]) -> None:
        steps = self._controller.sync(key)
        try:
            action = next(steps, None)
            while action is not None:
                try:
                    result = await self._perform(action, key, written)
                except apierrors.ApiError as error:
                    action = _thrown(steps, error)
                else:
                    action = _sent(steps, result)
        finally:
            steps.close()

    async def _wait_seen(self, written: list[_Write]) -> None:
        if not written:
            return
        async with asyncio.timeout(SEEN_SECONDS_MAX):
            for write in written:
                if write.version:
                    await self._read[write.resource].wait_seen(write.key, write.version)
                else:
                    await self._wait_deletion_seen(write)

    async def _wait_deletion_seen(self, write: _Write) -> None:
        """Return once the cache shows the object being deleted, or no more."""
        place = (write.resource, write.key)
        while True:
            obj = self._read[write.resource].get_key(write.key)
            if obj is None or obj.metadata.deletion_timestamp is not None:
                return
            changed = self._changes.setdefault(place, asyncio.Event())
            await changed.wait()
            self._changes.pop(place, None)

    def _note_change(self, resource: Resource[Any], obj: Any) -> None:
        if self._changes and (changed := self._changes.get((resource, key_from(obj)))) is not None:
            changed.set()

    async def _perform(self, action: Action, key: Hashable, written: list[_Write]) -> Any:
        match action:
            case Create():
                resource = action.resource or resource_of(type(action.obj))
                created = await self._client.create(
                    resource, action.obj, namespace=action.namespace, subresource=action.subresource, name=action.name
                )
                if not action.subresource:
                    self._note_write(resource, created, written)
                return created
            case Update():
                resource = action.resource or resource_of(type(action.obj))
                updated = await self._client.update(resource, action.obj, subresource=action.subresource)
                self._note_write(resource, updated, written)
                return updated
            case Change():
                changed = await self._client.patch(
                    action.resource, action.namespace, action.name, action.patch, subresource=action.subresource
                )
                self._note_write(action.resource, changed, written)
                return changed
            case Delete():
                return await self._delete(action, written)
            case DeleteCollection():
                await self._client.raw("DELETE", action.path)
                return None
            case Fetch():
                try:
                    return await self._client.get(action.resource, action.namespace, action.name)
                except apierrors.NotFound:
                    return None
            case ListNow():
                return await self._list(action)
            case Request():
                answer = await self._client.raw(action.method, action.path, body=action.body, headers=action.headers)
                return answer.body
            case Emit():
                self._recorder.event(action.about, action.type, action.reason, action.message)
                return None
            case Requeue():
                self._queue.add_after(key if action.key is None else action.key, action.seconds)
                return None
            case Together():
                return await self._together(action, key, written)

    async def _delete(self, action: Delete, written: list[_Write]) -> None:
        try:
            await self._client.delete(
                action.resource,
                action.namespace,
                action.name,
                uid=action.uid,
                resource_version=action.resource_version,
                grace_period_seconds=action.grace_period_seconds,
                propagation_policy=action.propagation_policy,
            )
        except apierrors.NotFound:
            return
        except apierrors.Conflict:
            if action.resource_version is not None or action.uid is None:
                raise
            return
        if action.resource in self._read:
            written.append(_Write(action.resource, NamespacedName(action.namespace, action.name)))

    async def _list(self, action: ListNow) -> list[Any]:
        items: list[Any] = []
        continue_ = ""
        while True:
            page = await self._client.list(
                action.resource,
                action.namespace,
                label_selector=action.label_selector,
                field_selector=action.field_selector,
                limit=LIST_OBJECTS,
                continue_=continue_,
            )
            items += page.items
            continue_ = page.continue_
            if not continue_:
                return items

    async def _together(self, action: Together, key: Hashable, written: list[_Write]) -> list[Any]:
        results: list[Any] = []
        size = action.first_batch
        while len(results) < len(action.actions):
            batch = action.actions[len(results) : len(results) + size]
            answers = await asyncio.gather(
                *(self._perform(each, key, written) for each in batch), return_exceptions=True
            )
            for answer in answers:
                if isinstance(answer, BaseException) and not isinstance(answer, apierrors.ApiError):
                    raise answer
            results += answers
            if any(isinstance(answer, apierrors.ApiError) for answer in answers):
                break
            size *= 2
        return results

    def _note_write(self, resource: Resource[Any], obj: Any, written: list[_Write]) -> None:
        if resource in self._read:
            written.append(_Write(resource, key_from(obj), obj.metadata.resource_version))


@dataclass(frozen=True, slots=True)
class _Write:
    """Something that we wrote, or deleted when `version` is "", and that our cache will show."""

    resource: Resource[Any]
    key: NamespacedName
    version: str = ""


def _sent(steps: Any, result: Any) -> Action | None:
    try:
        return cast("Action", steps.send(result))
    except StopIteration:
        return None


def _thrown(steps: Any, error: apierrors.ApiError) -> Action | None:
    try:
        return cast("Action", steps.throw(error))
    except StopIteration:
        return None
