"""Follows APIServices: who answers for which group, whether they can be asked, and what they say they serve.

Each APIService of a Service has a task of its own, which looks whenever something changed, after a failure soon, and
otherwise twice a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import orjson

from haven import telemetry
from haven.api.apidiscovery import v2
from haven.api.apiextensions import v1 as apiextensions
from haven.api.apiregistration import v1
from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery_v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.apiserver.admission.interface import Objects
from haven.apiserver.aggregation import documents, registration
from haven.apiserver.aggregation.availability import (
    FAILED_CHECK,
    LOCAL,
    PASSED,
    Finding,
    failed_check,
    service_problem,
    with_condition,
)
from haven.apiserver.aggregation.proxy import ExtensionServers, Unreachable
from haven.apiserver.aggregation.remote import Remote, available_condition
from haven.apiserver.aggregation.specs import ForeignSpec, part_of
from haven.apiserver.discovery import Discovery
from haven.apiserver.openapi.server import OpenAPI
from haven.apiserver.registry.storage import Storage, Storages
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import DELETED, Watched
from haven.client.interface import Client
from haven.clock import Clock
from haven.metrics.families import Registry

__all__ = ["Aggregator"]

_SERVICES, _CORE_SERVICES = resource_of(v1.APIService), resource_of(core.Service)
_SLICES, _DEFINITIONS = resource_of(discovery_v1.EndpointSlice), resource_of(apiextensions.CustomResourceDefinition)
_SERVICE_NAME = "kubernetes.io/service-name"
CHECK_SECONDS = 30.0
CHECK_TIMEOUT_SECONDS = 5.0
CHECK_ATTEMPTS = 5
"""Endpoints are chosen anew for each attempt; one that answers is enough."""
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.05, 30.0
REFRESH_SECONDS = 60.0
DOCUMENT_TIMEOUT_SECONDS = 5.0
SPEC_TIMEOUT_SECONDS = 60.0
_log = telemetry.logger("apiserver")


@dataclass(slots=True)
class _Knowledge:
    """What was heard from one extension server. Entity tags spare both sides what did not change."""

    resources: list[v2.APIResourceDiscovery] | None = None
    is_current: bool = False
    etag: str = ""
    spec: ForeignSpec | None = None
    spec_etag: str = ""
    v3_url: str = ""
    refreshed: float = float("-inf")


@dataclass(slots=True)
class _Follower:
    """One APIService's task."""

    remote: Remote
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    known: _Knowledge = field(default_factory=_Knowledge)
    task: asyncio.Task[None] | None = None


class Aggregator:
    """Routes requests to extension servers and keeps APIServices, discovery and OpenAPI true."""

    def __init__(
        self,
        objects: Objects,
        storages: Storages,
        servers: ExtensionServers,
        discovery: Discovery,
        openapi: OpenAPI,
        client: Client,
        clock: Clock,
        registry: Registry | None = None,
    ) -> None:
        self._registry = registry
        self._objects = objects
        self._storages = storages
        self._servers = servers
        self._discovery = discovery
        self._openapi = openapi
        self._client = client
        self._clock = clock
        self._followers: dict[str, _Follower] = {}
        self._by_version: dict[tuple[str, str], Remote] = {}
        self._groups: frozenset[str] = frozenset()
        self._look = asyncio.Event()

    def load(self) -> None:
        """Take note of what the store holds. Call once, before anything is served."""
        for entry in self._storages.of(_SERVICES.group_resource).cache.entries():
            self._note(entry.name, entry.object)
        self._storages.after_change.append(self._changed)
        self._publish()

    # ---- clients' requests

    def handler(self, path: str) -> Callable[[Request], Awaitable[Response]] | None:
        """Return who answers for a path, if it belongs to another server or to a group of which one has a part."""
        if not self._by_version:
            return None
        parts = path.split("/", 4)
        if len(parts) < 3 or parts[1] != "apis":
            return None
        if len(parts) > 3 and parts[3]:
            remote = self._by_version.get((parts[2], parts[3]))
            return None if remote is None else _Forward(self._servers, remote)
        return self._discovery.handle if parts[2] in self._groups else None

    def is_target(self, target: str) -> bool:
        """Whether a request's target belongs to another server: what is sent there is none of this one's business."""
        if not self._by_version:
            return False
        parts = target.partition("?")[0].split("/", 4)
        return len(parts) > 3 and parts[1] == "apis" and (parts[2], parts[3]) in self._by_version

    # ---- changes

    def _changed(self, storage: Storage, event: Watched) -> None:
        resource = storage.resource.group_resource
        if resource == _SERVICES.group_resource:
            entry = event.entry
            self._note(entry.name, None if event.type == DELETED else entry.object)
            self._look.set()
        elif resource == _DEFINITIONS.group_resource:
            self._look.set()
        elif self._followers and resource == _CORE_SERVICES.group_resource:
            self._wake(event.entry.namespace, event.entry.name)
        elif self._followers and resource == _SLICES.group_resource:
            self._wake(event.entry.namespace, event.entry.labels.get(_SERVICE_NAME, ""))

    def _wake(self, namespace: str, name: str) -> None:
        for follower in self._followers.values():
            if (follower.remote.service.namespace, follower.remote.service.name) == (namespace, name):
                follower.wake.set()

    def _note(self, name: str, service: v1.APIService | None) -> None:
        remote = Remote.of(service) if service is not None else None
        follower = self._followers.get(name)
        if remote is None:
            if follower is None:
                return
            del self._followers[name]
            if follower.task is not None:
                follower.task.cancel()
        elif follower is None:
            self._followers[name] = _Follower(remote)
        else:
            before, follower.remote = follower.remote, remote
            if before == remote:
                return
            if replace(before, available=remote.available) != remote:
                follower.known.refreshed = float("-inf")
                follower.wake.set()
        self._by_version = {(one.remote.group, one.remote.version): one.remote for one in self._followers.values()}
        self._groups = frozenset(group for group, _ in self._by_version)
        self._publish()

    def _publish(self) -> None:
        """Say in our own documents what was heard."""
        followers = [one for _, one in sorted(self._followers.items())]
        self._discovery.replace(
            [documents.served(one.remote, one.known.resources, is_current=one.known.is_current) for one in followers],
            source="remote",
        )
        self._openapi.replace_foreign(
            [one.known.spec for one in _by_priority(followers) if one.known.spec is not None],
            {
                one.remote.path.strip("/"): (one.known.v3_url, _Forward(self._servers, one.remote))
                for one in followers
                if one.known.v3_url
            },
        )

    # ---- work

    async def run(self) -> None:
        """Work until cancelled."""
        self._look.set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._look.wait()
                self._look.clear()
                for name, follower in list(self._followers.items()):
                    if follower.task is None:
                        follower.task = tasks.create_task(self._follow(name, follower), name=f"apiservice {name}")
                try:
                    await self._keep_local()
                except apierrors.ApiError as error:
                    _log.warning("APIServices cannot be kept.", because=str(error))
                    asyncio.get_running_loop().call_later(RETRY_SECONDS_MAX, self._look.set)

    async def _keep_local(self) -> None:
        """Keep APIServices of custom resources, and say of all that this server answers that they are available."""
        definitions = self._objects.list(_DEFINITIONS)
        present = self._objects.list(_SERVICES)
        for step in list(registration.plan(registration.wanted(definitions), present)):
            try:
                if isinstance(step, registration.Create):
                    await self._client.create(_SERVICES, step.service)
                elif isinstance(step, registration.Update):
                    await self._client.update(_SERVICES, step.service)
                else:
                    await self._client.delete(_SERVICES, "", step.name, uid=step.uid)
            except (apierrors.AlreadyExists, apierrors.Conflict, apierrors.NotFound):
                self._look.set()  # Somebody else was there: look again.
        for service in self._objects.list(_SERVICES):
            if service.spec.service is None:
                await self._report(service.metadata.name, LOCAL)

    async def _follow(self, name: str, follower: _Follower) -> None:
        delay = RETRY_SECONDS_MIN
        while True:
            follower.wake.clear()
            remote = follower.remote
            try:
                finding = await self._check(remote)
                await self._report(name, finding)
                is_available = finding is PASSED
                is_heard = await self._learn(follower, is_available=is_available)
                # What Services and endpoints lack shows in their changes; a server that fails has to be asked again.
                is_settled = is_heard if is_available else finding.reason != FAILED_CHECK
            except apierrors.ApiError as error:
                _log.warning("An APIService cannot be checked.", api_service=name, because=str(error))
                is_settled = False
            delay = RETRY_SECONDS_MIN if is_settled else min(delay * 2, RETRY_SECONDS_MAX)
            await self._wait(follower.wake, CHECK_SECONDS if is_settled else delay)

    async def _wait(self, wake: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.ensure_future(wake.wait()), asyncio.ensure_future(self._clock.sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _check(self, remote: Remote) -> Finding:
        service = self._objects.get(_CORE_SERVICES, remote.service.namespace, remote.service.name)
        slices = [
            one
            for one in self._objects.list(_SLICES, remote.service.namespace)
            if one.metadata.labels.get(_SERVICE_NAME) == remote.service.name
        ]
        problem = service_problem(remote, service, slices)
        if problem is not None:
            return problem
        because = await self._probe(remote)
        if because:
            attempts = [asyncio.ensure_future(self._probe(remote)) for _ in range(CHECK_ATTEMPTS - 1)]
            try:
                for attempt in asyncio.as_completed(attempts):
                    because = await attempt
                    if not because:
                        break
            finally:
                for task in attempts:
                    task.cancel()
        return failed_check(because) if because else PASSED

    async def _probe(self, remote: Remote) -> str:
        """Return why a server does not answer for its group; "" if it does."""
        try:
            answer = await self._servers.ask(remote, remote.path, accept="", timeout_seconds=CHECK_TIMEOUT_SECONDS)
        except Unreachable as error:
            return str(error)
        if not 200 <= answer.status < 300:
            return f"failing or missing response from {answer.url}: bad status from {answer.url}: {answer.status}"
        return ""

    async def _report(self, name: str, finding: Finding) -> None:
        service = self._objects.get(_SERVICES, "", name)
        if service is None:
            return
        status = with_condition(service, finding, times.format_time(self._clock.now_seconds()))
        if status is None:
            return
        new: Any = serialization.copy(service)
        new.status = status
        before, after = available_condition(service), available_condition(new)
        try:
            await self._client.update(_SERVICES, new, subresource="status")
            if self._registry is not None and after is not None and after.status != "True":
                if before is not None and before.status == "True":
                    self._registry["aggregator_unavailable_apiservice_total"].child(name, after.reason).value += 1
        except (apierrors.Conflict, apierrors.NotFound):
            self._look.set()
            if name in self._followers:
                self._followers[name].wake.set()

    # ---- what they serve

    async def _learn(self, follower: _Follower, *, is_available: bool) -> bool:
        """Hear what a server serves, if that is due; tell whether its documents are known and fresh."""
        known = follower.known
        now = self._clock.monotonic_seconds()
        if is_available and now - known.refreshed < REFRESH_SECONDS and known.is_current:
            return True
        before = (known.resources, known.is_current, known.spec, known.v3_url)
        known.is_current = False
        if is_available:
            try:
                known.is_current = await self._hear_resources(follower.remote, known)
                await self._hear_specs(follower.remote, known)
                known.refreshed = now
            except (Unreachable, msgspec.DecodeError, orjson.JSONDecodeError) as error:
                _log.warning(
                    "An extension server's documents failed.", api_service=follower.remote.name, error=str(error)
                )
        if not known.is_current:
            known.resources, known.etag = None, ""
        if before != (known.resources, known.is_current, known.spec, known.v3_url):
            self._publish()
        return known.is_current

    async def _hear_resources(self, remote: Remote, known: _Knowledge) -> bool:
        answer = await self._servers.ask(
            remote, "/apis", accept=documents.ACCEPT, etag=known.etag, timeout_seconds=DOCUMENT_TIMEOUT_SECONDS
        )
        if answer.status == 304:
            return True
        if answer.status == 503:
            return False
        if answer.status == 200 and documents.is_aggregated(answer.headers.get("Content-Type", "")):
            known.resources = documents.from_aggregated(answer.body, remote)
            known.etag = answer.headers.get("ETag", "")
            return True
        answer = await self._servers.ask(remote, remote.path, timeout_seconds=DOCUMENT_TIMEOUT_SECONDS)
        if answer.status != 200:
            return False
        known.resources, known.etag = documents.from_resource_list(answer.body), ""
        return True

    async def _hear_specs(self, remote: Remote, known: _Knowledge) -> None:
        answer = await self._servers.ask(
            remote, "/openapi/v2", etag=known.spec_etag, timeout_seconds=SPEC_TIMEOUT_SECONDS
        )
        if answer.status == 200:
            known.spec = await asyncio.to_thread(_part, answer.body, remote.path)
            known.spec_etag = answer.headers.get("ETag", "")
        elif answer.status == 404:
            known.spec, known.spec_etag = None, ""
        answer = await self._servers.ask(remote, "/openapi/v3", timeout_seconds=DOCUMENT_TIMEOUT_SECONDS)
        if answer.status == 200:
            listed = orjson.loads(answer.body).get("paths") or {}
            known.v3_url = (listed.get(remote.path.strip("/")) or {}).get("serverRelativeURL", "")
        elif answer.status == 404:
            known.v3_url = ""


def _by_priority(followers: list[_Follower]) -> list[_Follower]:
    """Return first those whose names hold where documents contradict each other; `followers` are in order of name."""
    priority: dict[str, int] = {}
    for one in followers:
        priority[one.remote.group] = max(priority.get(one.remote.group, 0), one.remote.group_priority)
    return sorted(followers, key=lambda one: -priority[one.remote.group])


def _part(data: bytes, prefix: str) -> ForeignSpec:
    return part_of(orjson.loads(data), prefix)


class _Forward:
    """Passes a request on to one server."""

    any_method = True

    def __init__(self, servers: ExtensionServers, remote: Remote) -> None:
        self._servers = servers
        self._remote = remote

    async def __call__(self, request: Request) -> Response:
        return await self._servers.forward(request, self._remote)
