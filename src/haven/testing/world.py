"""A whole cluster in one event loop: store in memory, API server, all controllers, scheduler, simulated nodes.

`World` is the asynchronous heart of haven.testing.Cluster, and what tests use that live in the same loop.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from cryptography import x509

from haven.api.core import v1 as core
from haven.api.scheme import Resource, resource_of
from haven.apiserver import assembly
from haven.apiserver.authentication.interface import ALL_AUTHENTICATED, MASTERS
from haven.apiserver.authorization.interface import Attributes
from haven.apiserver.components import CONTROLLER_MANAGER, SCHEDULER
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.settings import Settings as ServerSettings
from haven.apiserver.streaming.handlers import NodeBackends
from haven.client.events import EventRecorder
from haven.client.informer import InformerStatistics
from haven.client.interface import Client
from haven.client.sharedinformers import SharedInformers
from haven.client.upgrade import Backend
from haven.cluster.certificates import Pair, Subject
from haven.controllers.catalog import catalog
from haven.controllers.certificateauthority import CertificateAuthority
from haven.controllers.manager import ControllerManager
from haven.controllers.metrics import show_controllers
from haven.controllers.rootca import NAME as ROOT_CA
from haven.controllers.settings import Settings as ControllerSettings
from haven.hollow.nodes import NodeSettings
from haven.hollow.runner import Fleet, FleetSettings, FleetSnapshot
from haven.hollow.server import NODE_HEADER, HollowServer
from haven.scheduler.metrics import show_scheduler
from haven.scheduler.runner import Scheduler
from haven.scheduler.runner import Settings as SchedulerSettings
from haven.store.interface import Change
from haven.store.memory import MemoryStore, Snapshot
from haven.testing import control, metricsapi
from haven.testing.audit import Audit
from haven.testing.faults import Faults
from haven.testing.hooks import HookRegistry
from haven.testing.identity import ADMIN, Identity, shared_identity
from haven.testing.objects import Objects, check_object
from haven.testing.routes import Routes
from haven.testing.virtualclock import VirtualClock
from haven.testing.waiting import Condition, Target, WaitTimeout, explain
from haven.testing.webhooks import Webhooks

__all__ = ["Options", "World", "WorldFailed", "WorldSnapshot"]

T = TypeVar("T")

READY_SECONDS_MAX = 120.0
WAIT_SECONDS = 10.0
WAIT_VARIABLE = "HAVEN_WAIT_SECONDS"  # For whole runs on slow machines.
TESTER = UserInfo("haven-testing", groups=(MASTERS, ALL_AUTHENTICATED))
"""Who makes a test's own calls."""
_ACCOUNTS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", ALL_AUTHENTICATED)
_HEARTBEATS = (b"/registry/coordination.k8s.io/leases/", b"/registry/core/nodes/")
Proceed = Callable[[Request], Awaitable[Response]]


class WorldFailed(RuntimeError):
    """A part of the cluster ended by itself, which is a bug of Haven; the cause says where."""


@dataclass(frozen=True)
class HollowBackends(NodeBackends):
    """Simulated kubelets share one address, so each request says which node it means."""

    def of(self, node: core.Node) -> Backend:
        port = node.status.daemon_endpoints.kubelet_endpoint.port
        return Backend("127.0.0.1", port, self.tls, {NODE_HEADER: node.metadata.name})


@dataclass(frozen=True)
class Options:
    """How a cluster is made."""

    nodes: int = 1
    """Simulated nodes at the start, called node-0, node-1, …"""
    controllers: bool = True
    """Whether the controllers run: garbage collection, Deployments, Jobs, …"""
    disabled_controllers: frozenset[str] = frozenset()
    """Names of single controllers that shall not run, as kube-controller-manager calls them: cronjob-controller, …"""
    scheduler: bool = True
    events: bool = True
    """Whether simulated kubelets write Events."""
    seed: int = 0
    """Of everything that is left to chance."""
    start_seconds: float | None = None
    """What the clock shows at the start, in seconds since 1970; None for now."""
    frozen: bool = False
    """Whether time stands still except for `clock.advance`."""
    unstable_versions: tuple[str, ...] = ()
    """Alpha and beta versions to serve, as group/version."""
    host: str = "127.0.0.1"
    port: int = 0
    wait_seconds: float = field(default_factory=lambda: float(os.environ.get(WAIT_VARIABLE, WAIT_SECONDS)))
    """How long waiting takes at most where a test does not say it, in real time."""
    listen: bool = True
    """Whether there is a real HTTPS listener; without, only in-process calls work."""
    tls: ssl.SSLContext | None = None
    """What the listener shows and asks for, in place of the shared certificate."""
    client_authority_pem: bytes = b""
    """One more authority whose client certificates are believed."""
    server: dict[str, Any] = field(default_factory=dict)
    """More settings of the API server, by the names in haven.apiserver.settings.Settings."""


@dataclass(frozen=True, slots=True)
class WorldSnapshot:
    """A cluster as it was."""

    store: Snapshot
    fleet: FleetSnapshot
    token: object
    """Whose it is."""


class World:
    """One cluster. `start` it, use it in the same event loop, `stop` it."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._disabled = _known_controllers(self.options.disabled_controllers)
        self.identity: Identity = shared_identity()
        self.chance = random.Random(self.options.seed)
        self.clock = VirtualClock(start_seconds=self.options.start_seconds, frozen=self.options.frozen)
        self.faults = Faults(self.chance, self._check_plural)
        self.audit = Audit(self.clock, self._check_plural)
        self.webhooks = Webhooks(self.identity.server_tls, self.identity.authority.certificate)
        self.hooks = HookRegistry(self)
        self.routes = Routes()
        self.clock.is_busy = lambda: self.webhooks.under_way > 0
        self.clock.changes = lambda: self._changes
        self.clock.heartbeat = self._heartbeat
        self._changes = 0
        self._token = object()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiters: list[asyncio.Future[None]] = []

    # Starting and stopping

    async def start(self) -> None:
        """Return once a Pod that is created now would be scheduled and run."""
        options = self.options
        settings = ServerSettings(
            host=options.host,
            port=options.port,
            unstable_versions=options.unstable_versions,
            **{"shutdown_grace_seconds": 0.2, **options.server},
        )
        self.kubelets = HollowServer(lambda: self.fleet, self.clock, self.identity.kubelet_server_tls)
        port = await self.kubelets.start() if options.listen else 0
        self.store = MemoryStore(clock=self.clock)
        self.store.add_listener(self._stored)
        self.server = await assembly.start(
            settings,
            self.store,
            self._trust(),
            clock=self.clock,
            chance=self.chance,
            listen=False,
            reroute=self.routes.over,
        )
        try:
            self.server.chain.interpose = self._interpose
            self.server.chain.paths[control.PREFIX] = control.Control(self)
            if options.listen:
                await self.server.listen()
            self.objects = Objects(self.server.local_transport(TESTER), self)
            self.informers = SharedInformers(self.server.local_client(), clock=self.clock, chance=self.chance)
            self.fleet = Fleet(
                self._node_client,
                self.server.local_client(),
                self.informers,
                self.clock,
                self.chance,
                FleetSettings(events=options.events, port=port),
            )
            self._start_parts()
            async with asyncio.timeout(READY_SECONDS_MAX):
                for number in range(options.nodes):
                    await self.fleet.add_node(NodeSettings(f"node-{number}"))
                await self._wait_ready()
        except BaseException:
            await self.stop()
            raise

    def _trust(self) -> assembly.Trust:
        identity, pem = self.identity, self.options.client_authority_pem
        more = x509.load_pem_x509_certificates(pem) if pem else []
        return assembly.Trust(
            identity.signing_keys,
            client_authorities=[identity.authority_certificate, *more],
            client_ca_pem=(pem or identity.authority.certificate).decode(),
            tls=self.options.tls or identity.server_tls,
            nodes=HollowBackends(identity.kubelet_client_tls),
            front_proxy_authorities=[identity.front_proxy_authority.loaded()],
            front_proxy_ca_pem=identity.front_proxy_authority.certificate.decode(),
        )

    def _start_parts(self) -> None:
        options = self.options
        self._spawn(self.informers.run(), "informers")
        if options.controllers:
            authority = self.identity.authority
            settings = ControllerSettings(
                root_ca_pem=authority.certificate.decode(),
                disabled=self._disabled,
                sign_token=self.identity.signing_keys.sign,
                sign_certificate=CertificateAuthority(authority.certificate, authority.key).sign,
            )
            self.controllers: ControllerManager | None = ControllerManager(
                settings, self._account_client, self.informers, clock=self.clock, chance=self.chance
            )
            show_controllers(self.server.metrics, self.controllers.statistics, self.controllers.measure)
            self._spawn(self.server.components.host(CONTROLLER_MANAGER, self.controllers.run)(), "controllers")
        else:
            self.controllers = None
        if options.scheduler:
            user = UserInfo("system:kube-scheduler", groups=(ALL_AUTHENTICATED,))
            client = self.server.local_client(user, agent="kube-scheduler")
            recorder = EventRecorder(client, "default-scheduler", series=True, clock=self.clock, chance=self.chance)
            scheduler = Scheduler(SchedulerSettings(), client, self.informers, recorder, self.clock, self.chance)
            show_scheduler(self.server.metrics, "default-scheduler", scheduler.statistics, scheduler.times)
            self._spawn(recorder.run(), "scheduler-events")
            self._spawn(self.server.components.host(SCHEDULER, scheduler.run)(), "scheduler")
        self._spawn(self.fleet.run(), "hollow")

    def _account_client(self, account: str) -> Client:
        user = UserInfo("system:kube-controller-manager", groups=(ALL_AUTHENTICATED,))
        if account:
            user = UserInfo(f"system:serviceaccount:kube-system:{account}", groups=_ACCOUNTS)
        return self.server.local_client(user, agent="kube-controller-manager")

    def _node_client(self, name: str) -> Client:
        user = UserInfo(f"system:node:{name}", groups=("system:nodes", ALL_AUTHENTICATED))
        return self.server.local_client(user, agent="kubelet")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _wait_ready(self) -> None:
        controllers = self.controllers
        await self.informers.wait_synced()
        if controllers is None:
            return
        disabled, objects = self._disabled, self.server.objects
        accounts, maps, nodes = resource_of(core.ServiceAccount), resource_of(core.ConfigMap), resource_of(core.Node)
        while True:
            self.check()
            running = all(item.running for item in controllers.statistics())
            has_account = "serviceaccount" in disabled or objects.get(accounts, "default", "default") is not None
            has_authority = (
                "root-ca-certificate-publisher" in disabled or objects.get(maps, "default", ROOT_CA) is not None
            )
            tainted = "node-lifecycle" not in disabled and any(
                taint.key == "node.kubernetes.io/not-ready"
                for node in objects.list(nodes)
                for taint in node.spec.taints
            )
            if running and has_account and has_authority and not tainted:
                return
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """End everything; calling it again does nothing."""
        tasks, self._tasks = self._tasks, []
        for ending in (tasks[1:], tasks[:1]):  # The informers, begun first, end last: the others still ask them.
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
        self.clock.stop()
        server = getattr(self, "server", None)
        if server is not None:
            await server.stop()
        kubelets = getattr(self, "kubelets", None)
        if kubelets is not None:
            await kubelets.close()
        await self.webhooks.close()
        store = getattr(self, "store", None)
        if store is not None:
            await store.close()

    def check(self) -> None:
        """Raise WorldFailed if a part of the cluster has ended."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                raise WorldFailed(f"the cluster's {task.get_name()} ended") from task.exception()

    # Snapshots

    async def snapshot(self) -> WorldSnapshot:
        """Return everything as it is once the cluster rests."""
        await self.clock.rest()
        return WorldSnapshot(self.store.snapshot(), self.fleet.snapshot(), self._token)

    async def restore(self, snapshot: WorldSnapshot) -> None:
        """Put everything back, time and the audit log aside; watches end with 410 and clients list again."""
        if not isinstance(snapshot, WorldSnapshot):
            raise TypeError(f"{snapshot!r} is no snapshot: snapshot() returns one")
        if snapshot.token is not self._token:
            raise ValueError("this snapshot is of another cluster: a cluster goes back to its own only")
        await self.clock.rest()
        revision = self.store.restore(snapshot.store)
        self.server.storages.replaced(snapshot.store.records.values(), revision)
        self.fleet.restore(snapshot.fleet)
        self._stored(())
        async with asyncio.timeout(READY_SECONDS_MAX):
            while any(_behind(item, revision) for item in self.informers.statistics()):
                self.check()
                await asyncio.sleep(0)
        await self.fleet.heartbeat_now()
        await self.clock.rest()

    async def compact(self) -> None:
        """Forget the history of changes: who watches or lists from an older revision gets 410."""
        revision = self.store.revision
        await self.store.compact(revision)
        for storage in self.server.storages.all():
            storage.cache.forget_history(revision)

    # Waiting

    async def _heartbeat(self) -> None:
        await self.fleet.heartbeat_now()

    def _stored(self, changes: Sequence[Change]) -> None:
        if any(not change.key.startswith(_HEARTBEATS) for change in changes):
            self._changes += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_change(self, after: int, timeout: float | None = None) -> int:
        """Return the newest revision once something was written after a revision, or after so many real seconds."""
        if self.store.revision <= after:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout(timeout):
                    await waiter
            except TimeoutError:
                self.check()
        return self.store.revision

    async def observe(self, place: Target, after: int, timeout: float) -> tuple[dict[str, Any] | None, int]:
        """Return an object as it is once something was written after a revision, or the time is over."""
        await self.wait_change(after, max(0.0, timeout))
        revision = self.store.revision
        return await self.objects.find(place.kind, place.name, place.namespace), revision

    async def explain(self, place: Target, wanted: Condition, seconds: float) -> str:
        """Return why a wait for an object failed."""
        self.check()
        obj = await self.objects.find(place.kind, place.name, place.namespace)
        error: BaseException | None = None
        try:
            self.objects.resource(place.kind)
            if obj is not None:
                wanted.holds(obj)
        except LookupError as problem:
            error = problem
        name = place.name
        events = [
            item
            for item in await self.objects.list("Event")
            if str(item.get("involvedObject", {}).get("name", "")).startswith(name)
        ]
        pods = [item for item in await self.objects.list("Pod") if item["metadata"]["name"].startswith(f"{name}-")]
        return explain(f"{place}: {wanted.text}", seconds, obj, events, pods, error=error)

    # Objects

    async def create(self, obj: Mapping[str, Any], namespace: str = "default") -> dict[str, Any]:
        """Create an object in its own or the given namespace."""
        return await self.objects.create(self.placed(obj, namespace))

    async def apply(self, obj: Mapping[str, Any], namespace: str = "default") -> dict[str, Any]:
        """Apply an object; a definition of a kind is waited for until the kind is served."""
        applied = await self.objects.apply(self.placed(obj, namespace))
        if obj["kind"] != "CustomResourceDefinition":
            return applied
        established, revision = Condition.of("Established"), -1
        place = Target(obj["kind"], applied["metadata"]["name"], "")
        end = asyncio.get_running_loop().time() + self.options.wait_seconds
        while True:
            found, revision = await self.observe(place, revision, end - asyncio.get_running_loop().time())
            if found is not None and established.holds(found):
                return found
            if asyncio.get_running_loop().time() >= end:
                raise WaitTimeout(await self.explain(place, established, self.options.wait_seconds))

    def placed(self, obj: Mapping[str, Any], namespace: str) -> dict[str, Any]:
        """Return an object with its namespace: its own, else the given one; raise ValueError if it is none."""
        check_object(obj)
        resource = self.objects.resource(obj["kind"], obj["apiVersion"])
        metadata = dict(obj.get("metadata") or {})
        if resource.namespaced:
            metadata.setdefault("namespace", namespace)
        return {**obj, "metadata": metadata}

    # Requests

    async def _interpose(self, request: Request, proceed: Proceed) -> Response:
        async def faulty(request: Request) -> Response:
            if request.info.group == metricsapi.GROUP and request.info.is_resource:
                return await self.faults.answer(request, self._metrics)
            if request.method == "GET" and request.path in ("/apis", "/apis/"):
                return metricsapi.listed(await self.faults.answer(request, proceed))
            if request.method == "GET" and (found := metricsapi.describe(request.path)) is not None:
                return found
            return await self.faults.answer(request, proceed)

        return await self.audit.observe(request, faulty)

    async def _metrics(self, request: Request) -> Response:
        await self.server.chain.check(Attributes.of(request.user, request.info))
        return metricsapi.answer(request, self.fleet, self.clock.now_seconds())

    def resources(self) -> Sequence[Resource[Any]]:
        """Return what is served, core and stable versions first."""
        found = [endpoint.resource for endpoint in list(self.server.resources.endpoints.values())]
        return sorted(found, key=lambda one: (one.group != "", not _is_stable(one.version)))

    def _check_plural(self, name: str) -> None:
        """Raise ValueError for a kind's other names where its plural belongs: they would match nothing, silently."""
        everything = self.resources()
        if any(name == one.plural for one in everything):
            return
        for one in everything:
            if name in (one.kind.lower(), one.singular, *one.short_names):
                raise ValueError(f"no resource is called {name!r}: say {one.plural!r}")

    # Access

    @property
    def url(self) -> str:
        """Where clients find the API server."""
        return f"https://{self.options.host}:{self.server.port}"

    def kubeconfig(self, user: str = "", groups: Sequence[str] = (), *, namespace: str = "") -> str:
        """Return a kubeconfig for the administrator, or for any user, with everything embedded."""
        subject = Subject(user, tuple(groups)) if user else ADMIN
        return _kubeconfig(
            self.url, self.identity.authority.certificate, subject, self.identity.issue(subject), namespace
        )


def _known_controllers(names: Iterable[str]) -> frozenset[str]:
    """Return controllers as the catalog has them, without the end that all names share; raise ValueError."""
    settings = ControllerSettings(sign_token=lambda _: "", sign_certificate=lambda *_: b"")
    known = {entry.name for entry in catalog(settings)}
    found = {name.removesuffix("-controller") for name in names}
    if unknown := sorted(found - known):
        there = ", ".join(f"{name}-controller" for name in sorted(known))
        raise ValueError(f"there is no controller {', '.join(map(repr, unknown))}: {there}")
    return frozenset(found)


def _behind(informer: InformerStatistics, revision: int) -> bool:
    return informer.synced and int(informer.resource_version or 0) < revision


def _is_stable(version: str) -> bool:
    return "alpha" not in version and "beta" not in version


def _kubeconfig(url: str, authority: bytes, subject: Subject, pair: Pair, namespace: str) -> str:
    context: dict[str, str] = {"cluster": "haven", "user": subject.name}
    if namespace:
        context["namespace"] = namespace
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "haven", "cluster": {"server": url, "certificate-authority-data": _text(authority)}}],
        "users": [
            {
                "name": subject.name,
                "user": {"client-certificate-data": _text(pair.certificate), "client-key-data": _text(pair.key)},
            }
        ],
        "contexts": [{"name": "haven", "context": context}],
        "current-context": "haven",
        "preferences": {},
    }
    return yaml.safe_dump(document, sort_keys=False)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
