"""A real cluster for a test, in this process and without root: what the fixture `haven_cluster` hands out.

The cluster lives in a thread with an event loop of its own, so that synchronous clients, asynchronous ones and
operators in other threads all work with it. Calls of this class wait; `cluster.aio` has the same for asynchronous
tests.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from haven import telemetry
from haven.apimachinery import apierrors
from haven.apimachinery.selectors import parse_labels
from haven.hollow.behaviour import Behaviour, Rule
from haven.testing.aio import AsyncCluster
from haven.testing.audit import Audit
from haven.testing.clients import close_client, make_client, note_kubeconfig
from haven.testing.clocks import ClusterClock
from haven.testing.environment import changed_environment, proxy_exceptions
from haven.testing.faults import Faults
from haven.testing.garbage import uncollected
from haven.testing.hooks import OPERATIONS
from haven.testing.loopthread import LoopThread
from haven.testing.nodesettings import node_settings
from haven.testing.objects import Manifest, read_manifests
from haven.testing.pods import NodeHandle, PodHandle
from haven.testing.podscript import PodScript
from haven.testing.user import User
from haven.testing.waiting import Condition, Target, WaitTimeout, Wanted, describe_pod, explain
from haven.testing.world import Options, World, WorldSnapshot

__all__ = ["Cluster"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Tree = dict[str, Any]
Trees = list[Tree]  # In the class, `list` is a call.
Pods = list[PodHandle]
Nodes = list[NodeHandle]


class Cluster:
    """One cluster: `with Cluster() as cluster: …`, or the fixture. Arguments are those of `Options`."""

    def __init__(self, options: Options | None = None, **settings: Any) -> None:
        if options is not None and settings:
            raise TypeError("give Options or their fields, not both")
        self.options = options or Options(**settings)
        self._thread: LoopThread | None = None
        self._world: World | None = None
        self._directory: Path | None = None
        self._clients: list[Any] = []
        self._removed: weakref.finalize[Any, Any] | None = None

    # Beginning and end

    def start(self) -> Cluster:
        """Start it and return it; Pods that are created now run. `close` ends it."""
        if self._thread is not None:
            raise RuntimeError("the cluster runs already")
        if not telemetry.is_configured():
            telemetry.configure(level="warning", stream=_CurrentStderr())  # type: ignore[arg-type]
        self._thread = LoopThread("haven-cluster")
        try:
            self._world = World(self.options)
            with uncollected():
                self._thread.run(self.world.start())
        except BaseException:
            self._thread.close()
            raise
        self.script = PodScript(self.world)
        self.clock = ClusterClock(self)
        self.faults: Faults = self.world.faults
        self.audit: Audit = self.world.audit
        self.aio = AsyncCluster(self)
        self._directory = Path(tempfile.mkdtemp(prefix="haven-cluster-"))
        self._removed = weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        return self

    def close(self) -> None:
        """End it: no thread, task, socket or file of it is left. Calling it again does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        for client in self._clients:
            with contextlib.suppress(Exception):  # They belong to others and may be closed or broken already.
                close_client(client)
        self._clients.clear()
        try:
            thread.run(self.world.stop())
        finally:
            thread.close()
            if self._removed is not None:
                self._removed()

    def __enter__(self) -> Cluster:
        return self if self._thread is not None else self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def world(self) -> World:
        """The cluster itself, on its own event loop; what it was when it is closed."""
        if self._world is None:
            raise RuntimeError("the cluster does not run yet: use `with cluster:`, or start() and close()")
        return self._world

    # Running things on the cluster's loop

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the cluster's loop."""
        if self._thread is None:
            work.close()
            raise RuntimeError("the cluster is closed")
        return self._thread.submit(work)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the cluster's loop and return its result."""
        if self._thread is None:
            work.close()
            raise RuntimeError("the cluster is closed")
        return self._thread.run(work)

    def run_limited(self, work: Coroutine[Any, Any, T], timeout: float | None, what: str, pod: tuple[str, str]) -> T:
        """The same, for at most so many seconds; raises WaitTimeout with what is the matter with a Pod."""
        seconds = self.options.wait_seconds if timeout is None else timeout

        async def limited() -> T:
            async with asyncio.timeout(seconds):
                return await work

        try:
            return self.run(limited())
        except TimeoutError:
            raise WaitTimeout(self.run(self.explain_pods(what, seconds, pod))) from None

    # Access

    @property
    def url(self) -> str:
        """The API server's URL."""
        return self.world.url

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig file of the administrator."""
        return self.write_file("kubeconfig", self.world.kubeconfig())

    @property
    def ca_file(self) -> Path:
        """The authority's certificate, for clients that want it as a file."""
        return self.write_file("ca.crt", self.world.identity.authority.certificate.decode())

    def write_file(self, name: str, text: str) -> Path:
        """Keep a text in a file that goes with the cluster; one that is there already stays."""
        if self._directory is None:
            raise RuntimeError("the cluster is not started")
        path = self._directory / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        return path

    @property
    def env(self) -> dict[str, str]:
        """The environment that programs need: KUBECONFIG, and what Go's envtest looks at."""
        found = {"KUBECONFIG": str(self.kubeconfig), "USE_EXISTING_CLUSTER": "true"}
        return {**found, **proxy_exceptions(os.environ, self.options.host)}

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Set `env` for this process, and hide a cluster that the process runs in."""
        before = os.environ.get("KUBECONFIG")
        with changed_environment(self.env, hidden=("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")):
            note_kubeconfig(self.kubeconfig)
            try:
                yield
            finally:
                note_kubeconfig(Path(before or "~/.kube/config"))

    def client(self, library: str = "kubernetes") -> Any:
        """Return a client of the administrator: kubernetes, kubernetes.dynamic, lightkube, kr8s, …

        The asynchronous ones (kr8s.asyncio, kubernetes_asyncio) come as something to await; lightkube.async does not.
        """
        return self.keep_client(make_client(library, self.kubeconfig))

    def keep_client(self, client: T) -> T:
        """Close a client together with the cluster."""
        self._clients.append(client)
        return client

    def as_user(self, name: str, *, groups: Sequence[str] = (), namespace: str = "default") -> User:
        """Return another user, who may do what RBAC allows: with kubeconfig, clients and calls of its own."""
        if not name:
            raise ValueError("a user has a name")
        return User(self, name, tuple(groups), namespace)

    def service_account(self, name: str, namespace: str = "default") -> User:
        """Return a service account as a user; it need not exist, but its roles must."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return User(self, f"system:serviceaccount:{namespace}:{name}", groups, namespace)

    # Objects

    def apply(self, manifest: Manifest, namespace: str = "default") -> Trees:
        """Server-side apply of files, folders, YAML or JSON text, dicts; definitions are waited for."""
        return [self.run(self.world.apply(obj, namespace)) for obj in read_manifests(manifest)]

    def create(self, obj: Mapping[str, Any], namespace: str = "default") -> Tree:
        """Create an object; raise AlreadyExists, Invalid, …"""
        return self.run(self.world.create(obj, namespace))

    def get(self, kind: str, name: str, namespace: str = "default") -> Tree:
        """Return an object; raise NotFound. `kind` is any name of it: Deployment, deploy, deployments.apps, …"""
        return self.run(self.world.objects.get(kind, name, namespace))

    def list(self, kind: str, namespace: str | None = None, *, selector: str = "", field_selector: str = "") -> Trees:
        """Return the objects of a kind, of one namespace or all."""
        return self.run(self.world.objects.list(kind, namespace, selector=selector, field_selector=field_selector))

    def replace(self, obj: Mapping[str, Any], *, subresource: str = "") -> Tree:
        """Update an object; raise Conflict if it changed since it was read."""
        return self.run(self.world.objects.replace(obj, subresource=subresource))

    def patch(
        self,
        kind: str,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "default",
        *,
        subresource: str = "",
        type: str = "",
    ) -> Tree:
        """Patch an object: merge patch for a mapping, JSON patch for a list, type="strategic" for that."""
        return self.run(self.world.objects.patch(kind, name, patch, namespace, subresource=subresource, type=type))

    def delete(
        self, kind: str, name: str, namespace: str = "default", *, grace: int | None = None, propagation: str = ""
    ) -> None:
        """Delete an object; raise NotFound. It may take until finalizers and controllers are through."""
        self.run(self.world.objects.delete(kind, name, namespace, grace=grace, propagation=propagation))

    def request(self, method: str, path: str, body: Any = None, **rest: Any) -> Any:
        """Send any request to the API and return the answer."""
        return self.run(self.world.objects.request(method, path, body, **rest))

    # Going back

    def snapshot(self) -> WorldSnapshot:
        """Return the cluster's state, for `restore`, once it rests."""
        return self.run(self.world.snapshot())

    def restore(self, snapshot: WorldSnapshot) -> None:
        """Go back to a snapshot. Watches end with 410, as after a backup was restored: clients list again.

        Time does not go back, and neither do the audit log and the faults.
        """
        self.run(self.world.restore(snapshot))

    def compact(self) -> None:
        """Forget the history of changes, as etcd does every five minutes: older revisions are answered with 410."""
        self.run(self.world.compact())

    # Waiting

    def wait_for(
        self,
        target: str | Mapping[str, Any],
        condition: Wanted = "exists",
        *,
        namespace: str = "default",
        timeout: float | None = None,
    ) -> Tree:
        """Wait for an object ("deployment/web") and return it; raise WaitTimeout with what was seen instead.

        `condition` is "exists", "deleted", a condition type ("Available", "Ready=False"), a part of the object
        ({"status": {"readyReplicas": 3}}) or a function of it. `timeout` is real time, in seconds; if it is
        not given, `Options.wait_seconds`.
        """
        timeout = self.options.wait_seconds if timeout is None else timeout
        place, wanted = Target.of(target, namespace), Condition.of(condition)
        end, revision = time.monotonic() + timeout, -1
        while True:
            obj, revision = self.run(self.world.observe(place, revision, end - time.monotonic()))
            if wanted.holds_now(obj):
                return obj or {}
            if time.monotonic() >= end:
                raise WaitTimeout(self.run(self.world.explain(place, wanted, timeout)))

    def wait_until(self, holds: Callable[[], T], *, timeout: float | None = None, what: str = "") -> T:
        """Call a function until it returns something true, whenever the cluster changes; return that."""
        timeout = self.options.wait_seconds if timeout is None else timeout
        end, revision = time.monotonic() + timeout, -1
        while True:
            revision = self.run(self.world.wait_change(revision, min(0.1, max(0.0, end - time.monotonic()))))
            try:
                result = holds()
            except (apierrors.NotFound, LookupError) as error:
                if time.monotonic() >= end:
                    text = what or Condition.of(holds).text
                    raise WaitTimeout(self.run(self.explain_pods(text, timeout, error=error))) from error
                continue
            if result:
                return result
            if time.monotonic() >= end:
                raise WaitTimeout(self.run(self.explain_pods(what or Condition.of(holds).text, timeout)))

    def settle(self) -> None:
        """Wait until the cluster comes to rest: all that can happen without time passing has happened."""
        self.run(self.world.clock.rest())

    def describe(self) -> str:
        """Return what there is, for humans: Pods, warnings, the last requests."""
        if self._thread is None:
            return "The cluster is closed."
        pods = [describe_pod(item) for item in self.list("Pod")]
        events = [item for item in self.list("Event") if item.get("type") == "Warning"]
        warnings = [f"{item.get('reason')}: {item.get('message') or item.get('note', '')}" for item in events[-10:]]
        records = [str(item) for item in self.audit.records()[-20:]]
        missed = [str(fault) for fault in self.faults.unmet]
        parts = [("Pods", pods), ("Warnings", warnings), ("Last requests", records)]
        if missed:
            parts.append(("Faults that no request has met", missed))
        return "\n".join(
            f"{title}:\n" + "\n".join(f"  {line}" for line in lines or ["(none)"]) for title, lines in parts
        )

    async def explain_pods(
        self, what: str, seconds: float, pod: tuple[str, str] | None = None, error: BaseException | None = None
    ) -> str:
        """Return why a wait failed: all Pods and Events, or those of one Pod."""
        world = self.world
        pods, events = await world.objects.list("Pod"), await world.objects.list("Event")
        if pod is not None:
            pods = [item for item in pods if (item["metadata"]["namespace"], item["metadata"]["name"]) == pod]
            events = [item for item in events if item.get("involvedObject", {}).get("name") == pod[1]]
            if not pods:
                what += f"; there is no such Pod in namespace {pod[0]}"
        text = explain(what, seconds, None, events, pods, error=error, is_of_object=False)
        world.check()
        return text

    # Webhooks

    def validating_webhook(
        self,
        resources: str | Sequence[str],
        operations: Sequence[str] = OPERATIONS,
        *,
        name: str = "",
        failure_policy: str = "Fail",
        timeout_seconds: int = 10,
        side_effects: str = "None",
        **more: Any,
    ) -> Callable[[F], F]:
        """Register the decorated function as a validating webhook: it gets an Admission.

        None or True allows, False or a text denies; or raise Denied. `more` are further fields of the webhook as the
        API has them: namespaceSelector, objectSelector, matchConditions, matchPolicy, …
        """
        return self._admission(False, resources, operations, name, failure_policy, timeout_seconds, side_effects, more)

    def mutating_webhook(
        self,
        resources: str | Sequence[str],
        operations: Sequence[str] = OPERATIONS,
        *,
        name: str = "",
        failure_policy: str = "Fail",
        timeout_seconds: int = 10,
        side_effects: str = "None",
        **more: Any,
    ) -> Callable[[F], F]:
        """The same for a mutating webhook, which changes `admission.object` or returns an object or a JSON patch."""
        return self._admission(True, resources, operations, name, failure_policy, timeout_seconds, side_effects, more)

    def _admission(
        self,
        mutates: bool,
        resources: str | Sequence[str],
        operations: Sequence[str],
        name: str,
        failure_policy: str,
        timeout_seconds: int,
        side_effects: str,
        more: dict[str, Any],
    ) -> Callable[[F], F]:
        def register(function: F) -> F:
            self.run(
                self.world.hooks.admission(
                    function,
                    mutates=mutates,
                    resources=resources,
                    operations=operations,
                    name=name,
                    failure_policy=failure_policy,
                    timeout_seconds=timeout_seconds,
                    side_effects=side_effects,
                    more=more,
                )
            )
            return function

        return register

    def conversion_webhook(self, definition: str) -> Callable[[F], F]:
        """Let the decorated function convert a definition's objects: (object, wanted apiVersion) -> object."""

        def register(function: F) -> F:
            self.run(self.world.hooks.conversion(function, definition))
            return function

        return register

    def route_service(self, name: str, port: int, *, namespace: str = "default", host: str = "127.0.0.1") -> None:
        """Lead the API server's calls to a Service (of webhooks, of extension servers) to a server beside the test."""
        self.world.routes.add(namespace, name, host, port)

    def certificate(self, *hosts: str) -> tuple[Path, Path]:
        """Return files of a serving certificate and its key, by the cluster's authority: `ca_file` is its bundle."""
        if not hosts:
            raise ValueError('name the hosts, as "webhook.default.svc"')
        pair = self.world.identity.serving_for(hosts)
        name = hashlib.sha256(repr(hosts).encode()).hexdigest()[:16]
        return (
            self.write_file(f"serving-{name}.crt", pair.certificate.decode()),
            self.write_file(f"serving-{name}.key", pair.key.decode()),
        )

    # Pods and nodes

    def pod(self, name: str, namespace: str = "default") -> PodHandle:
        """Return a handle on a Pod, which need not exist yet."""
        return PodHandle(self, namespace, name)

    def pods(self, selector: str = "", namespace: str | None = "default") -> Pods:
        """Return handles on the Pods that there are, by name."""
        found = self.list("Pod", namespace, selector=selector)
        return [PodHandle(self, item["metadata"]["namespace"], item["metadata"]["name"]) for item in found]

    def behave(
        self,
        *,
        name: str = "",
        namespace: str = "",
        selector: str = "",
        image: str = "",
        owner: str = "",
        container: str = "",
        node: str = "",
        **behaviour: Any,
    ) -> None:
        """Let simulated containers that match do something else than run and be ready at once.

        Matching: shell patterns for names, image and node; a label selector; the kind of the owner (Job, …).
        What they do: the fields of haven.hollow.behaviour.Behaviour (run_seconds, exit_code, ready, start_error, log,
        run, port, probe, usage, …). Later rules override earlier ones, field by field.
        """
        if all(value is None for value in behaviour.values()):
            raise ValueError(f"say what they do: {', '.join(item.name for item in dataclasses.fields(Behaviour))}")
        labels = parse_labels(selector) if selector else None
        rule = Rule(Behaviour(**behaviour), name, namespace, labels, image, owner, container, node)
        self.run(self._add_rule(rule))

    async def _add_rule(self, rule: Rule) -> None:
        self.world.fleet.add_rule(rule)

    def add_nodes(self, count: int = 1, *, prefix: str = "node", **settings: Any) -> Nodes:
        """Add simulated nodes; `settings` are labels, annotations, taints, capacity, unschedulable, images."""
        return [NodeHandle(self, name) for name in self.run(self._add_nodes(count, prefix, settings))]

    async def _add_nodes(self, count: int, prefix: str, settings: Mapping[str, Any]) -> Sequence[str]:
        fleet = self.world.fleet
        names: list[str] = []
        number = 0
        while len(names) < count:
            name = f"{prefix}-{number}"
            number += 1
            if name not in fleet.nodes:
                await fleet.add_node(node_settings(name, settings))
                names.append(name)
        return names

    def add_node(self, name: str, **settings: Any) -> NodeHandle:
        """Add one simulated node by name."""
        if name in self.world.fleet.nodes:
            raise ValueError(f"there is a simulated node {name!r} already")
        self.run(self.world.fleet.add_node(node_settings(name, settings)))
        return NodeHandle(self, name)

    def node(self, name: str) -> NodeHandle:
        """Return a handle on a simulated node, which need not exist yet."""
        return NodeHandle(self, name)


class _CurrentStderr:
    """Wherever sys.stderr leads at the moment of writing: test runners replace it and close the old one."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
