"""The calls of a cluster for asynchronous tests: the same names, to be awaited, and nothing blocks the test's loop."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from haven.apimachinery import apierrors
from haven.testing.clocks import span_seconds
from haven.testing.objects import Manifest, read_manifests
from haven.testing.waiting import Condition, Target, WaitTimeout, Wanted

if TYPE_CHECKING:
    from haven.testing.cluster import Cluster
    from haven.testing.world import WorldSnapshot

__all__ = ["AsyncCluster"]

T = TypeVar("T")
Tree = dict[str, Any]
Trees = list[Tree]


class AsyncCluster:
    """`cluster.aio`: see Cluster for what each call does. Handles' orders go through `call`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            work.close()
            raise RuntimeError("cluster.aio is for asyncio: elsewhere, as under trio, use the plain calls") from None
        return await asyncio.wrap_future(self._cluster.submit(work), loop=loop)

    async def call(self, function: Callable[..., T], *arguments: Any, **rest: Any) -> T:
        """Run any waiting call (`cluster.pod("web").succeed`) in a thread."""
        return await asyncio.to_thread(function, *arguments, **rest)

    async def apply(self, manifest: Manifest, namespace: str = "default") -> Trees:
        return [await self._run(self._world.apply(obj, namespace)) for obj in read_manifests(manifest)]

    async def create(self, obj: Mapping[str, Any], namespace: str = "default") -> Tree:
        return await self._run(self._world.create(obj, namespace))

    async def get(self, kind: str, name: str, namespace: str = "default") -> Tree:
        return await self._run(self._world.objects.get(kind, name, namespace))

    async def list(
        self, kind: str, namespace: str | None = None, *, selector: str = "", field_selector: str = ""
    ) -> Trees:
        return await self._run(
            self._world.objects.list(kind, namespace, selector=selector, field_selector=field_selector)
        )

    async def replace(self, obj: Mapping[str, Any], *, subresource: str = "") -> Tree:
        return await self._run(self._world.objects.replace(obj, subresource=subresource))

    async def patch(
        self,
        kind: str,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "default",
        *,
        subresource: str = "",
        type: str = "",
    ) -> Tree:
        return await self._run(
            self._world.objects.patch(kind, name, patch, namespace, subresource=subresource, type=type)
        )

    async def delete(
        self, kind: str, name: str, namespace: str = "default", *, grace: int | None = None, propagation: str = ""
    ) -> None:
        await self._run(self._world.objects.delete(kind, name, namespace, grace=grace, propagation=propagation))

    async def request(self, method: str, path: str, body: Any = None, **rest: Any) -> Any:
        return await self._run(self._world.objects.request(method, path, body, **rest))

    async def snapshot(self) -> WorldSnapshot:
        return await self._run(self._world.snapshot())

    async def restore(self, snapshot: WorldSnapshot) -> None:
        await self._run(self._world.restore(snapshot))

    async def compact(self) -> None:
        await self._run(self._world.compact())

    async def wait_until(self, holds: Callable[[], Any], *, timeout: float | None = None, what: str = "") -> Any:
        """The function may be asynchronous."""
        timeout = self._cluster.options.wait_seconds if timeout is None else timeout
        end, revision = time.monotonic() + timeout, -1
        while True:
            left = min(0.1, max(0.0, end - time.monotonic()))
            revision = await self._run(self._world.wait_change(revision, left))
            error: BaseException | None = None
            try:
                result = holds()
                if inspect.isawaitable(result):
                    result = await result
            except (apierrors.NotFound, LookupError) as problem:
                result, error = None, problem
            if result:
                return result
            if time.monotonic() >= end:
                text = what or Condition.of(holds).text
                raise WaitTimeout(await self._run(self._cluster.explain_pods(text, timeout, error=error)))

    async def wait_for(
        self,
        target: str | Mapping[str, Any],
        condition: Wanted = "exists",
        *,
        namespace: str = "default",
        timeout: float | None = None,
    ) -> Tree:
        timeout = self._cluster.options.wait_seconds if timeout is None else timeout
        place, wanted = Target.of(target, namespace), Condition.of(condition)
        end, revision = time.monotonic() + timeout, -1
        while True:
            obj, revision = await self._run(self._world.observe(place, revision, end - time.monotonic()))
            if wanted.holds_now(obj):
                return obj or {}
            if time.monotonic() >= end:
                raise WaitTimeout(await self._run(self._world.explain(place, wanted, timeout)))

    async def advance(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """`cluster.clock.advance`."""
        await self._run(self._world.clock.advance(span_seconds(seconds, minutes=minutes, hours=hours, days=days)))

    async def settle(self) -> None:
        await self._run(self._world.clock.rest())

    async def client(self, library: str) -> Any:
        """Return an asynchronous client, ready: kr8s.asyncio, kubernetes_asyncio, lightkube.async."""
        client = self._cluster.client(library)
        return await client if asyncio.iscoroutine(client) else client
