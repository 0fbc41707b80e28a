"""What all pod workers of a node share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from haven.api.core.v1 import Pod
from haven.client.interface import Client
from haven.clock import Clock
from haven.cri.interface import Runtime
from haven.kubelet.backoff import Backoff
from haven.kubelet.cgroups import Cgroups
from haven.kubelet.containerstart import ContainerStarter
from haven.kubelet.events import EventRecorder
from haven.kubelet.images import ImageManager
from haven.kubelet.nodestate import NodeState
from haven.kubelet.objects import ObjectCaches
from haven.kubelet.probes import ProbeManager
from haven.kubelet.settings import Settings
from haven.kubelet.statuswriter import StatusWriter
from haven.kubelet.termination import Terminator
from haven.kubelet.tokens import TokenManager
from haven.kubelet.volumes.manager import VolumeManager

__all__ = ["PodServices", "SyncError"]


@dataclass(frozen=True)
class PodServices:
    """The parts of the node that pods are made with."""

    settings: Settings
    client: Client
    clock: Clock
    runtime: Runtime
    recorder: EventRecorder
    images: ImageManager
    objects: ObjectCaches
    tokens: TokenManager
    volumes: VolumeManager
    probes: ProbeManager
    statuses: StatusWriter
    starter: ContainerStarter
    terminator: Terminator
    cgroups: Cgroups
    crash_backoff: Backoff
    sandbox_slots: asyncio.Semaphore
    node: NodeState
    ended_containers: Counter[tuple[str, int]]
    """By type and exit code."""
    cannot_fit: Callable[[Pod], tuple[str, str] | None]
    """Returns why the node cannot give a running pod what its spec asks for now."""


class SyncError(Exception):
    """This pass could not do all it wanted; the next one tries again."""
