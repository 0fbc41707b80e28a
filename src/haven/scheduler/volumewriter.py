"""Writes what was decided about the volumes of a placed Pod and waits until others have done their part.

A free volume gets its claim's name, and the volume binder completes both; a claim gets the node's name, and its
provisioner makes a volume there. Only then is the Pod bound: the kubelet must find all its volumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.client.interface import Client
from haven.clock import Clock
from haven.scheduler.volumes import BindingFailed, Claim, PodVolumes, StaticBinding, Volume, Volumes

__all__ = ["VolumeWriter"]

LOOK_SECONDS = 1.0  # A change wakes us at once; this is for what changes without one, such as the deadline.
_CLAIMS, _VOLUMES = resource_of(Claim), resource_of(Volume)


class VolumeWriter:
    """One for all Pods; `changed` is to be called when a claim, a volume or a node changes."""

    def __init__(
        self,
        client: Client,
        volumes: Volumes,
        node: Callable[[str], core.Node | None],
        clock: Clock,
        timeout_seconds: float,
    ) -> None:
        self._client = client
        self._volumes = volumes
        self._node = node
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._waiting: set[asyncio.Event] = set()

    def changed(self) -> None:
        """Wake everybody who waits."""
        for event in self._waiting:
            event.set()

    async def write(self, assumed: PodVolumes, node_name: str, is_wanted: Callable[[], bool]) -> None:
        """Return when all volumes are bound; raise BindingFailed, or what the API server said, if they cannot be.

        `is_wanted` turns false when the Pod is gone.
        """
        bindings = [
            StaticBinding(await self._client.update(_VOLUMES, binding.volume), binding.claim)
            for binding in assumed.bindings
        ]
        provisions = [await self._client.update(_CLAIMS, claim) for claim in assumed.provisions]
        written = PodVolumes(tuple(bindings), tuple(provisions))
        deadline = self._clock.now_seconds() + self._timeout_seconds
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            while not self._is_done(written, node_name, is_wanted):
                if self._clock.now_seconds() >= deadline:
                    raise BindingFailed("binding volumes: context deadline exceeded")
                await self._wait(changed)
        finally:
            self._waiting.discard(changed)

    def _is_done(self, written: PodVolumes, node_name: str, is_wanted: Callable[[], bool]) -> bool:
        node = self._node(node_name)
        if node is None:
            raise BindingFailed(f'binding volumes: failed to get node "{node_name}": node "{node_name}" not found')
        if not is_wanted():
            raise BindingFailed("binding volumes: pod does not exist any more")
        try:
            return self._volumes.is_done(node, written)
        except BindingFailed as error:
            raise BindingFailed(f"binding volumes: {error}") from error

    async def _wait(self, changed: asyncio.Event) -> None:
        waiting = {asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self._clock.sleep(LOOK_SECONDS))}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
        changed.clear()
