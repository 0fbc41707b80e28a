"""A cluster in one process: the real API server over a store in memory, the real controllers, a node that runs nothing.

The node binds Pods to itself and reports what their annotations ask for: `hollow/exit: "1"` makes a Pod end with that
code, `hollow/hang: "true"` keeps it unready. Deleted Pods go at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization as keys
from cryptography.hazmat.primitives.asymmetric import rsa

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import UserInfo
from haven.apiserver.settings import Settings as ServerSettings
from haven.client.interface import Client
from haven.client.sharedinformers import SharedInformers
from haven.controllers.manager import ControllerManager
from haven.controllers.settings import Settings
from haven.store.memory import MemoryStore

T = TypeVar("T")

NODE = "hollow-0"
SEED = 7
_PODS = resource_of(core.Pod)


def a_template(labels: dict[str, str], image: str = "one", **annotations: str) -> core.PodTemplateSpec:
    return core.PodTemplateSpec(
        metadata=meta.ObjectMeta(labels=labels, annotations={f"hollow/{k}": v for k, v in annotations.items()}),
        spec=core.PodSpec(
            containers=[
                core.Container(
                    name="main",
                    image=image,
                    image_pull_policy="IfNotPresent",
                    termination_message_path="/dev/termination-log",
                    termination_message_policy="File",
                )
            ],
            restart_policy="Always",
            dns_policy="ClusterFirst",
            termination_grace_period_seconds=30,
            scheduler_name="default-scheduler",
            security_context=core.PodSecurityContext(),
        ),
    )


@dataclass
class Cluster:
    """What a test speaks to."""

    client: Client
    manager: ControllerManager

    async def create(self, obj: T) -> T:
        return await self.client.create(resource_of(type(obj)), obj)

    async def get(self, kind: type[T], name: str, namespace: str = "default") -> T:
        return await self.client.get(resource_of(kind), namespace, name)

    async def list(self, kind: type[T], namespace: str = "default") -> list[T]:
        return list((await self.client.list(resource_of(kind), namespace)).items)

    async def names(self, kind: type[Any], namespace: str = "default") -> list[str]:
        return sorted(obj.metadata.name for obj in await self.list(kind, namespace))

    async def change(self, kind: type[T], name: str, change: Callable[[Any], None]) -> T:
        while True:
            obj = serialization.copy(await self.get(kind, name))
            change(obj)
            with contextlib.suppress(apierrors.Conflict):
                return await self.client.update(resource_of(kind), obj)

    async def delete(self, kind: type[Any], name: str, policy: str = "", namespace: str = "default") -> None:
        await self.client.delete(resource_of(kind), namespace, name, propagation_policy=policy)

    async def wait(self, holds: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
        """Return once something is true; a condition on objects that do not exist is not."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(apierrors.NotFound):
                if result := await holds():
                    return result
            assert time.monotonic() < end, "it never became true"
            await asyncio.sleep(0.01)

    async def events(self, reason: str) -> list[core.Event]:
        return [event for event in await self.list(core.Event) if event.reason == reason]


class HollowNode:
    """Runs Pods in name only."""

    def __init__(self, client: Client, informers: SharedInformers) -> None:
        self._client = client
        self._changed: asyncio.Queue[core.Pod] = asyncio.Queue()
        self._addresses = iter(range(2, 60_000))
        informers.informer(core.Pod).add_handler(self._pod_changed)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if new is not None:
            self._changed.put_nowait(new)

    async def run(self) -> None:
        while True:
            pod = await self._changed.get()
            with contextlib.suppress(apierrors.NotFound, apierrors.Conflict):
                await self._tend(pod)

    async def _tend(self, pod: core.Pod) -> None:
        place = (pod.metadata.namespace, pod.metadata.name)
        if not pod.spec.node_name:
            if pod.metadata.deletion_timestamp is None:
                target = core.ObjectReference(kind="Node", name=NODE)
                metadata = meta.ObjectMeta(namespace=place[0], name=place[1])
                binding = core.Binding(metadata=metadata, target=target)
                await self._client.create(_PODS, binding, subresource="binding", namespace=place[0], name=place[1])
            return
        if pod.metadata.deletion_timestamp is not None:
            if pod.status.phase in ("Pending", "Running"):
                await self._report(pod, "Failed" if pod.metadata.finalizers else "Running", ready=False)
            await self._client.delete(_PODS, *place, grace_period_seconds=0)
        elif pod.status.phase == "Pending" or not pod.status.phase:
            is_hanging = "hollow/hang" in pod.metadata.annotations
            await self._report(pod, "Running", ready=not is_hanging)
        elif pod.status.phase == "Running" and (code := pod.metadata.annotations.get("hollow/exit")):
            await self._report(pod, "Succeeded" if code == "0" else "Failed", ready=False, code=int(code))

    async def _report(self, pod: core.Pod, phase: str, *, ready: bool, code: int | None = None) -> None:
        changed = serialization.copy(pod)
        now = times.format_time(time.time())
        status = changed.status
        status.phase = phase
        status.conditions = [
            core.PodCondition(type="Ready", status="True" if ready else "False", last_transition_time=now)
        ]
        if not status.pod_ip:
            number = next(self._addresses)
            status.pod_ip = f"10.244.{number // 256}.{number % 256}"
            status.pod_ips = [core.PodIP(ip=status.pod_ip)]
        if code is not None:
            ended = core.ContainerStateTerminated(exit_code=code, finished_at=now)
            status.container_statuses = [
                core.ContainerStatus(name="main", image="one", state=core.ContainerState(terminated=ended))
            ]
        await self._client.update(_PODS, changed, subresource="status")


def _signing_key() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption())


_GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")


@contextlib.asynccontextmanager
async def running_cluster() -> AsyncIterator[Cluster]:
    """Run a cluster for the length of a block."""
    trust = assembly.Trust(SigningKeys(_signing_key()))
    server = await assembly.start(ServerSettings(), MemoryStore(), trust, listen=False)

    def client_for(name: str) -> Client:
        return server.local_client(UserInfo(f"system:serviceaccount:kube-system:{name}", groups=_GROUPS))

    client = server.local_client()
    informers = SharedInformers(client)
    manager = ControllerManager(
        Settings(root_ca_pem="a certificate"), client_for, informers, chance=random.Random(SEED)
    )
    node = HollowNode(client, informers)
    ready = core.NodeCondition(type="Ready", status="True", last_heartbeat_time=times.format_time(time.time()))
    await client.create(
        resource_of(core.Node),
        core.Node(metadata=meta.ObjectMeta(name=NODE), status=core.NodeStatus(conditions=[ready])),
    )
    tasks = [asyncio.create_task(part.run()) for part in (informers, manager, node)]
    cluster = Cluster(client, manager)
    try:

        async def is_running() -> bool:
            for task in tasks:
                assert not task.done(), task.exception()
            return all(each.running for each in manager.statistics())

        await cluster.wait(is_running)
        yield cluster
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
