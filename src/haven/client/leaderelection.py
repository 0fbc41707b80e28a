"""One leader among many candidates, agreed through a Lease.

`decide` is pure: it says what a candidate does about the lease it saw. Clocks of machines may differ: how old a lease
is counts from when this process saw it change, never from the times written in it. A leader that cannot renew within
`renew_deadline_seconds` stops leading before another may begin, because that is less than the lease's duration.
Source: https://kubernetes.io/docs/concepts/architecture/leases/#leader-election and client-go's leaderelection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from haven import telemetry
from haven.api.coordination import v1 as coordination_v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.client.interface import Client
from haven.clock import Clock, SystemClock

__all__ = ["ElectionSettings", "LeaderElector", "LeadershipLost", "decide", "release"]

JITTER = 1.2
HEALTH_TOLERANCE_SECONDS = 20.0
_LEASES = resource_of(coordination_v1.Lease)

_log = telemetry.logger("leaderelection")


class LeadershipLost(Exception):
    """The lease could not be renewed in time: another may lead by now, so what we led was stopped."""


@dataclass(frozen=True, slots=True)
class ElectionSettings:
    """Upstream's defaults. Each must be greater than the next (the last one times the jitter)."""

    lease_duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_period_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_duration_seconds > self.renew_deadline_seconds > JITTER * self.retry_period_seconds > 0:
            raise ValueError(
                "lease duration, renew deadline and retry period must decrease "
                f"(the retry period counts {JITTER} times): {self}"
            )


def decide(
    seen: coordination_v1.LeaseSpec | None,
    *,
    identity: str,
    age_seconds: float,
    now_seconds: float,
    lease_duration_seconds: float,
) -> coordination_v1.LeaseSpec | None:
    """Return the lease to write, to become or stay leader; None if another leads.

    `seen` is the lease as it is, None if there is none; `age_seconds` how long ago it was seen to change.
    """
    now = times.format_micro_time(now_seconds)
    mine = coordination_v1.LeaseSpec(
        holder_identity=identity,
        lease_duration_seconds=int(lease_duration_seconds),
        acquire_time=now,
        renew_time=now,
        lease_transitions=0,
    )
    if seen is None:
        return mine
    mine.strategy, mine.preferred_holder = seen.strategy, seen.preferred_holder
    if seen.holder_identity == identity:
        mine.acquire_time = seen.acquire_time or now
        mine.lease_transitions = seen.lease_transitions or 0
        return mine
    if seen.holder_identity and age_seconds < (seen.lease_duration_seconds or 0):
        return None
    mine.lease_transitions = (seen.lease_transitions or 0) + 1
    return mine


def release(seen: coordination_v1.LeaseSpec, *, now_seconds: float) -> coordination_v1.LeaseSpec:
    """Return the lease that tells the others not to wait for us."""
    now = times.format_micro_time(now_seconds)
    return coordination_v1.LeaseSpec(
        holder_identity="",
        lease_duration_seconds=1,
        acquire_time=now,
        renew_time=now,
        lease_transitions=seen.lease_transitions or 0,
    )


class LeaderElector:
    """A candidate for one lease. `run` waits to become leader, leads, and returns or raises when that is over."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        settings: ElectionSettings | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._settings = settings or ElectionSettings()
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()
        self._lease: coordination_v1.Lease | None = None
        self._seen_seconds = 0.0

    @property
    def leader(self) -> str:
        """Who led when we last looked; "" for nobody."""
        return (self._lease.spec.holder_identity or "") if self._lease is not None else ""

    @property
    def is_leader(self) -> bool:
        """Whether that was us."""
        return self.leader == self._identity

    def problem(self) -> str:
        """Return "" unless this process leads although its lease ran out long ago, as a process that hangs does."""
        if not self.is_leader:
            return ""
        age = self._clock.monotonic_seconds() - self._seen_seconds
        if age <= self._settings.lease_duration_seconds + HEALTH_TOLERANCE_SECONDS:
            return ""
        return f"failed election to renew leadership on lease {self._name}"

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Become leader, then run `lead`; give the lease back when it returns, raises or is cancelled.

        Raises LeadershipLost, after `lead` has ended, when the lease could not be renewed.
        """
        await self._acquire()
        _log.info("became leader", lease=f"{self._namespace}/{self._name}", identity=self._identity)
        leading = asyncio.ensure_future(lead())
        renewing = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait((leading, renewing), return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
                return
            raise LeadershipLost(f"{self._identity} could not renew {self._namespace}/{self._name} in time")
        finally:
            for task in (leading, renewing):
                task.cancel()
            await asyncio.gather(leading, renewing, return_exceptions=True)
            await self._release()

    async def _acquire(self) -> None:
        while not await self._try():
            await self._clock.sleep(self._settings.retry_period_seconds * (1 + self._chance.random() * JITTER))

    async def _renew(self) -> None:
        """Return when the lease could not be renewed for as long as the deadline."""
        settings = self._settings
        renewed = self._clock.monotonic_seconds()
        while self._clock.monotonic_seconds() - renewed < settings.renew_deadline_seconds:
            await self._clock.sleep(settings.retry_period_seconds)
            left = settings.renew_deadline_seconds - (self._clock.monotonic_seconds() - renewed)
            if await self._try_within(left):
                renewed = self._clock.monotonic_seconds()
            elif self.leader and not self.is_leader:
                return  # Another leads already: stop at once.

    async def _try_within(self, seconds: float) -> bool:
        """A request that hangs must not outlive the deadline."""
        if seconds <= 0:
            return False
        attempt = asyncio.ensure_future(self._try())
        alarm = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((attempt, alarm), return_when=asyncio.FIRST_COMPLETED)
            return attempt.done() and attempt.result()
        finally:
            attempt.cancel()
            alarm.cancel()

    async def _try(self) -> bool:
        """Make one attempt to take or keep the lease; return whether we lead."""
        try:
            if not self.is_leader:  # A leader writes over what it last wrote; a conflict shows if that is no more.
                await self._look()
            return await self._write()
        except apierrors.ApiError as error:
            _log.warning(
                "could not take or keep the lease",
                lease=f"{self._namespace}/{self._name}",
                because=error.message or type(error).__name__,
            )
            if isinstance(error, apierrors.Conflict | apierrors.NotFound | apierrors.AlreadyExists) and self.is_leader:
                await self._look_again()
            return False

    async def _write(self) -> bool:
        spec = decide(
            self._lease.spec if self._lease is not None else None,
            identity=self._identity,
            age_seconds=self._clock.monotonic_seconds() - self._seen_seconds,
            now_seconds=self._clock.now_seconds(),
            lease_duration_seconds=self._settings.lease_duration_seconds,
        )
        if spec is None:
            return False
        if self._lease is None:
            lease = coordination_v1.Lease(
                metadata=meta.ObjectMeta(namespace=self._namespace, name=self._name), spec=spec
            )
            self._observe(await self._client.create(_LEASES, lease))
        else:
            lease = serialization.copy(self._lease)
            lease.spec = spec
            self._observe(await self._client.update(_LEASES, lease))
        return True

    async def _look(self) -> None:
        try:
            found = await self._client.get(_LEASES, self._namespace, self._name)
        except apierrors.NotFound:
            self._lease = None
            return
        if self._lease is None or found.spec != self._lease.spec:
            self._observe(found)
        else:
            self._lease = found  # Same record: it keeps aging, whatever else changed.

    async def _look_again(self) -> None:
        try:
            await self._look()
        except apierrors.ApiError as error:
            _log.warning("could not read the lease", lease=f"{self._namespace}/{self._name}", because=error.message)

    def _observe(self, lease: coordination_v1.Lease) -> None:
        self._lease = lease
        self._seen_seconds = self._clock.monotonic_seconds()

    async def _release(self) -> None:
        if not self.is_leader or self._lease is None:
            return
        lease = serialization.copy(self._lease)
        lease.spec = release(lease.spec, now_seconds=self._clock.now_seconds())
        try:
            self._observe(await self._client.update(_LEASES, lease))
        except apierrors.ApiError as error:
            _log.warning(
                "could not give the lease back, it will expire",
                lease=f"{self._namespace}/{self._name}",
                because=error.message,
            )
