"""Performs what definitions need after a write: their conditions, and the removal of the objects of deleted ones.

One task looks at each definition that changed; the removal of objects waits in tasks of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from haven import telemetry
from haven.api.apiextensions import v1
from haven.apimachinery import apierrors, times
from haven.apiserver.customresources.conditions import (
    FINALIZER,
    is_served,
    needs_finalizing,
    next_status,
    with_condition,
)
from haven.apiserver.customresources.definition import is_true
from haven.apiserver.customresources.serving import DEFINITIONS, CustomResources
from haven.apiserver.registry.deletion import Deletion
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import DeleteParameters, WriteParameters
from haven.apiserver.registry.storage import Storages
from haven.apiserver.registry.writing import UpdateRequest, Writing
from haven.apiserver.request import Request, RequestInfo, UserInfo
from haven.apiserver.watchcache import Entry
from haven.clock import Clock

__all__ = ["DefinitionKeeper"]

_log = telemetry.logger("apiserver")
_MANAGER = "kube-apiserver"
_CLEANUP_SECONDS = 60.0
_CLEANUP_POLL_SECONDS = 0.2
_RETRY_SECONDS = 5.0

Condition = v1.CustomResourceDefinitionCondition
Change = Callable[[v1.CustomResourceDefinition], None]


class DefinitionKeeper:
    """Keeps the status of definitions true."""

    def __init__(
        self,
        custom: CustomResources,
        storages: Storages,
        writing: Writing,
        deletion: Deletion,
        endpoint: Endpoint,
        clock: Clock,
        user: UserInfo,
    ) -> None:
        self._custom = custom
        self._storages = storages
        self._writing = writing
        self._deletion = deletion
        self._endpoint = endpoint
        self._clock = clock
        self._user = user
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._cleaning: dict[str, asyncio.Task[None]] = {}

    def notice(self, name: str) -> None:
        """Look at a definition soon."""
        self._waiting[name] = None
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        for entry in self._storages.of(DEFINITIONS).cache.entries():
            self.notice(entry.name)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    name = next(iter(self._waiting))
                    del self._waiting[name]
                    try:
                        await self._look(name, tasks)
                    except apierrors.ApiError as error:
                        _log.warning("A definition's status cannot be written.", definition=name, because=str(error))
                        asyncio.get_running_loop().call_later(_RETRY_SECONDS, self.notice, name)

    def _now(self) -> str:
        return times.format_time(self._clock.now_seconds())

    def _crd(self, name: str) -> v1.CustomResourceDefinition | None:
        entry = self._endpoint.storage.get("", name)
        return entry.decoded() if entry is not None else None

    def _group(self, group: str, without: str) -> list[v1.CustomResourceDefinition]:
        entries = self._endpoint.storage.cache.entries()
        found = [entry.decoded() for entry in entries if entry.name != without and entry.name.endswith("." + group)]
        return [crd for crd in found if crd.spec.group == group]

    async def _look(self, name: str, tasks: asyncio.TaskGroup) -> None:
        crd = self._crd(name)
        if crd is None:
            group = name.partition(".")[2]
            for other in self._group(group, name):  # They may want the names that it had.
                if other.spec.names != other.status.accepted_names:
                    self.notice(other.metadata.name)
            return
        others = self._group(crd.spec.group, name)
        status = next_status(crd, others, self._now())
        if status != crd.status:
            names_changed = status.accepted_names != crd.status.accepted_names
            future = msgspec.structs.replace(crd, status=status)
            if is_served(future):
                await self._custom.keep(future)
            seen = crd.metadata.resource_version

            def set_status(new: v1.CustomResourceDefinition) -> None:
                if new.metadata.resource_version == seen:
                    new.status = status

            await self._write(name, set_status)
            if names_changed:
                for other in others:
                    if other.spec.names != other.status.accepted_names:
                        self.notice(other.metadata.name)
            return
        if is_served(crd) and name not in self._custom.definitions:
            await self._custom.take_up(crd)  # Established elsewhere: by another server, or before a backup was made.
        if needs_finalizing(crd) and name not in self._cleaning:
            task = tasks.create_task(self._clean(name), name=f"clean-{name}")
            self._cleaning[name] = task
            task.add_done_callback(lambda _: self._cleaning.pop(name, None))

    async def _write(self, name: str, change: Change) -> None:
        async def compute(_current: Any | None, live: Entry | None) -> Any:
            assert live is not None
            new = live.decoded()
            change(new)
            await self._writing.fields.updated(new, live, self._endpoint, _MANAGER, "status")
            return new

        path = self._endpoint.resource.path("", name, "status")
        request = Request(method="PUT", path=path, query={}, headers={}, local=True, user=self._user)
        try:
            await self._writing.modify(
                UpdateRequest(
                    request=request,
                    endpoint=self._endpoint,
                    subresource="status",
                    strategy=self._endpoint.strategy_of("status"),
                    name=name,
                    namespace="",
                    compute=compute,
                    parameters=WriteParameters(),
                )
            )
        except apierrors.NotFound:
            return

    # ---- removal

    async def _clean(self, name: str) -> None:
        """Remove the objects of a deleted definition, then let it go."""
        while True:
            crd = self._crd(name)
            if crd is None or not needs_finalizing(crd):
                return
            try:
                outcome = await self._remove_instances(crd)
            except apierrors.ApiError as error:
                outcome = _terminating("True", "InstanceDeletionFailed", f"could not issue all deletes: {error}")
            is_done = outcome.status == "False"
            now = self._now()

            def finish(
                new: v1.CustomResourceDefinition,
                outcome: Condition = outcome,
                is_done: bool = is_done,
                now: str = now,
            ) -> None:
                new.status = with_condition(new, outcome, now)
                if is_done:
                    new.metadata.finalizers = [one for one in new.metadata.finalizers if one != FINALIZER]

            try:
                await self._write(name, finish)
            except apierrors.ApiError as error:
                _log.warning("A deleted definition cannot be written.", definition=name, because=str(error))
                is_done = False
            if is_done:
                return
            await self._clock.sleep(_RETRY_SECONDS)

    async def _remove_instances(self, crd: v1.CustomResourceDefinition) -> Condition:
        """Return what is to be said of the removal."""
        definition = self._custom.definitions.get(crd.metadata.name)
        if definition is None or not is_true(crd, "Established"):
            return _terminating("False", "NeverEstablished", "resource was never established")
        progress = _terminating("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        now = self._now()

        def begin(new: v1.CustomResourceDefinition) -> None:
            new.status = with_condition(new, progress, now)

        await self._write(crd.metadata.name, begin)
        resource = definition.storage.resource
        storage = self._storages.of(resource.group_resource)
        endpoint = self._custom.endpoint_for_cleanup(definition)
        for entry in list(storage.cache.entries()):
            info = RequestInfo(
                verb="delete",
                path=resource.path(entry.namespace, entry.name),
                is_resource=True,
                group=resource.group,
                version=resource.version,
                namespace=entry.namespace,
                resource=resource.plural,
                name=entry.name,
            )
            request = Request("DELETE", info.path, {}, {}, local=True, user=self._user, info=info)
            try:
                await self._deletion.delete_one(request, endpoint, entry.namespace, entry.name, DeleteParameters())
            except apierrors.NotFound:
                continue
        deadline = self._clock.monotonic_seconds() + _CLEANUP_SECONDS
        while storage.cache.count():
            if self._clock.monotonic_seconds() >= deadline:
                text = "could not confirm zero CustomResources remaining: timed out waiting for the condition"
                return _terminating("True", "InstanceDeletionCheck", text)
            await self._clock.sleep(_CLEANUP_POLL_SECONDS)
        return _terminating("False", "InstanceDeletionCompleted", "removed all instances")


def _terminating(status: str, reason: str, message: str) -> Condition:
    return Condition(type="Terminating", status=status, reason=reason, message=message)
