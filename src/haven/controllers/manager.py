"""Starts every controller under its own identity and keeps them running.

Names are those of upstream's kube-controller-manager (--controllers), identities its service accounts in kube-system,
event components those that users see in `kubectl describe`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haven.client.events import EventRecorder
from haven.client.interface import Client
from haven.client.sharedinformers import SharedInformers
from haven.clock import Clock, SystemClock
from haven.controllers.actions import Controller, Wiring
from haven.controllers.catalog import Entry, catalog
from haven.controllers.runner import ControllerRunner, ControllerStatistics
from haven.controllers.settings import Settings
from haven.metrics.families import Registry

__all__ = ["ControllerManager"]


@dataclass(frozen=True, slots=True)
class _Member:
    runner: ControllerRunner
    recorder: EventRecorder


class ControllerManager:
    """All controllers of a cluster in one event loop. Make it, run the informers, then `run`.

    `client_for` returns a client that acts as the service account of that name in kube-system.
    """

    def __init__(
        self,
        settings: Settings,
        client_for: Callable[[str], Client],
        informers: SharedInformers,
        *,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._client_for = client_for
        self._informers = informers
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()
        self._members = [self._member(entry) for entry in catalog(settings) if settings.is_enabled(entry.name)]

    def _member(self, entry: Entry) -> _Member:
        client = self._client_for(entry.user)
        recorder = EventRecorder(client, entry.component, clock=self._clock, chance=self._chance)
        make: Callable[[Wiring], Controller] = entry.make
        runner = ControllerRunner(
            entry.name,
            make,
            client,
            self._informers,
            recorder,
            clock=self._clock,
            chance=self._chance,  # Shared: making one costs the kernel's entropy, most of a millisecond.
        )
        return _Member(runner, recorder)

    async def run(self) -> None:
        """Run every controller until cancelled. The informers must be running too."""
        async with asyncio.TaskGroup() as tasks:
            for member in self._members:
                tasks.create_task(member.recorder.run(), name=f"events-{member.runner.name}")
                tasks.create_task(member.runner.run(), name=f"controller-{member.runner.name}")

    def measure(self, registry: Registry) -> None:
        """Have the controllers that count things of their own write them down."""
        for member in self._members:
            member.runner.measure(registry)

    def statistics(self) -> Sequence[ControllerStatistics]:
        """Return a snapshot of each controller."""
        return [member.runner.statistics() for member in self._members]
