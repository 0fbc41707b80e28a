"""Coordinated leader election: candidates put themselves forward, the best of those that answer gets the Lease.

An election has no state of its own: whether candidates were asked, and who answered, is read from their ping and renew
times on each pass. A Lease whose holder is not the best any more names the better one as preferred; its holder then
steps down.

Source: https://kubernetes.io/docs/concepts/cluster-administration/coordinated-leader-election/ and KEP-4355
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from haven.api.coordination import v1, v1beta1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.apimachinery.names import NamespacedName
from haven.controllers.actions import (
    Action,
    Create,
    Delete,
    Fetch,
    Requeue,
    Steps,
    Together,
    Update,
    Wiring,
    key_from,
)

__all__ = ["LeaderElectionController", "LeaseCandidateCleaner", "Undecided", "best", "strategy_of", "version_key"]

OLDEST_EMULATION_VERSION = "OldestEmulationVersion"
LOOK_SECONDS = 5.0  # How often a Lease is looked at to see that it is renewed.
ANSWER_SECONDS = 5.0  # How long candidates have to answer, and how long an answer counts.
LEASE_SECONDS = 5
CANDIDATE_SECONDS = 30 * 60.0  # A candidate that was silent for so long is none; after half of it all are asked.

_LEASES = resource_of(v1.Lease)
_CANDIDATES = resource_of(v1beta1.LeaseCandidate)
_VERSION = re.compile(
    r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)

VersionKey = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]
_NO_VERSION: VersionKey = (0, 0, 0, True, ())


class Undecided(Exception):
    """Candidates of the newest program want different ways of choosing."""


def version_key(text: str) -> VersionKey | None:
    """Return what orders semantic versions (a release after its previews), None if it is none."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        return None
    parts = (match[4] or "").split(".") if match[4] else []
    preview = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
    return (int(match[1]), int(match[2] or 0), int(match[3] or 0), not preview, preview)


def best(candidates: Sequence[v1beta1.LeaseCandidate]) -> v1beta1.LeaseCandidate | None:
    """Return the candidate of the oldest emulated version, then of the oldest program, then the one that came first."""
    valid = [
        candidate
        for candidate in candidates
        if version_key(candidate.spec.emulation_version) and version_key(candidate.spec.binary_version)
    ]
    return min(valid, key=_rank, default=None)


def _rank(candidate: v1beta1.LeaseCandidate) -> tuple[VersionKey, VersionKey, str]:
    spec = candidate.spec
    emulated = version_key(spec.emulation_version) or _NO_VERSION
    return (emulated, version_key(spec.binary_version) or _NO_VERSION, candidate.metadata.creation_timestamp or "")


def strategy_of(candidates: Sequence[v1beta1.LeaseCandidate]) -> str:
    """Return the way of choosing that the newest program wants; raise Undecided."""
    versions = [version_key(candidate.spec.binary_version) or _NO_VERSION for candidate in candidates]
    newest = max(versions)
    wanted = {
        candidate.spec.strategy
        for candidate, version in zip(candidates, versions, strict=True)
        if version == newest
    }  # fmt: skip
    if len(wanted) > 1:
        raise Undecided(f"candidates of one binary version want different strategies: {', '.join(sorted(wanted))}")
    return wanted.pop()


@dataclass(frozen=True, slots=True)
class _Times:
    """When a candidate was asked and when it last answered; None where it never was or did."""

    asked: float | None
    answered: float | None

    @classmethod
    def of(cls, candidate: v1beta1.LeaseCandidate) -> _Times:
        spec = candidate.spec
        return cls(
            times.parse(spec.ping_time) if spec.ping_time else None,
            times.parse(spec.renew_time) if spec.renew_time else None,
        )

    def owes_answer(self) -> bool:
        return self.asked is not None and self.answered is not None and self.answered < self.asked

    def answered_lately(self, now: float) -> bool:
        return self.answered is not None and self.answered + ANSWER_SECONDS > now

    def asked_lately(self, now: float) -> bool:
        return self.asked is not None and self.asked + ANSWER_SECONDS > now

    def is_expired(self, now: float) -> bool:
        return self.answered is None or self.answered + CANDIDATE_SECONDS < now


def _is_held(lease: v1.Lease, now: float) -> bool:
    spec = lease.spec
    if not spec.holder_identity or not spec.renew_time or spec.lease_duration_seconds is None:
        return False
    return times.parse(spec.renew_time) + spec.lease_duration_seconds >= now


def _needs_election(lease: v1.Lease | None, candidates: Sequence[v1beta1.LeaseCandidate], now: float) -> bool:
    if lease is None or not _is_held(lease, now):
        return True
    for candidate in candidates:
        answered = _Times.of(candidate).answered
        if answered is not None and answered + CANDIDATE_SECONDS / 2 < now:
            return True
    if strategy_of(candidates) != OLDEST_EMULATION_VERSION:
        return False
    chosen = best(candidates)
    return chosen is not None and chosen.metadata.name != lease.spec.holder_identity


def _ask(candidates: Sequence[v1beta1.LeaseCandidate], now: float) -> tuple[list[Action], bool]:
    """Return the questions to candidates that were not asked yet, and whether any answer is waited for."""
    questions: list[Action] = []
    waiting = False
    for candidate in candidates:
        when = _Times.of(candidate)
        if when.asked_lately(now) and when.owes_answer():
            waiting = True
        elif not when.answered_lately(now) and (
            when.asked is None or (when.asked + ANSWER_SECONDS < now and not when.owes_answer())
        ):
            asked = serialization.copy(candidate)
            asked.spec.ping_time = times.format_micro_time(now)
            questions.append(Update(asked))
            waiting = True
    return questions, waiting


def _settled(lease: v1.Lease, strategy: str, holder: str | None, now: float) -> v1.Lease | None:
    """Return the Lease as the election leaves it, None if that is as it is."""
    result = serialization.copy(lease)
    spec = result.spec
    before = spec.holder_identity or ""
    spec.strategy = strategy
    if holder is not None and holder != before:
        if _is_held(lease, now):
            spec.preferred_holder = holder
        else:
            spec.preferred_holder = None
            spec.holder_identity = holder
            spec.renew_time = times.format_micro_time(now)
            spec.lease_duration_seconds = LEASE_SECONDS
            spec.acquire_time = None
    return None if result == lease else result


class LeaderElectionController:
    """Keys are places of Leases."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._leases = wiring.reader(v1.Lease)
        self._candidates = wiring.reader(v1beta1.LeaseCandidate)
        self._candidates.add_index("lease", lambda candidate: [_place(candidate)])
        self._leases.add_handler(self._lease_changed)
        self._candidates.add_handler(self._candidate_changed)

    def _lease_changed(self, old: v1.Lease | None, new: v1.Lease | None) -> None:
        place = key_from(new if new is not None else old)
        if self._candidates.indexed("lease", f"{place.namespace}/{place.name}"):
            self._wiring.enqueue(place)

    def _candidate_changed(self, old: v1beta1.LeaseCandidate | None, new: v1beta1.LeaseCandidate | None) -> None:
        candidate = new if new is not None else old
        assert candidate is not None
        if not _Times.of(candidate).owes_answer():  # It was only asked, by us.
            self._wiring.enqueue(NamespacedName(candidate.metadata.namespace, candidate.spec.lease_name))

    def sync(self, key: NamespacedName) -> Steps[None]:
        now = self._wiring.now_seconds()
        known = self._candidates.indexed("lease", f"{key.namespace}/{key.name}")
        candidates = [candidate for candidate in known if not _Times.of(candidate).is_expired(now)]
        if not candidates:
            return
        yield Requeue(LOOK_SECONDS)
        try:
            if not _needs_election(self._leases.get(key.namespace, key.name), candidates, now):
                return
            questions, waiting = _ask(candidates, now)
            if questions:
                for result in (yield Together(questions, first_batch=len(questions))):
                    if isinstance(result, apierrors.ApiError):
                        raise result
            if waiting:
                return
            answered = [candidate for candidate in candidates if _Times.of(candidate).answered_lately(now)]
            if answered:
                yield from self._elect(key, answered, now)
        except Undecided:
            return  # Until one of them changes its mind or goes, which is a change of a candidate.

    def _elect(self, key: NamespacedName, candidates: Sequence[v1beta1.LeaseCandidate], now: float) -> Steps[None]:
        strategy = strategy_of(candidates)
        chosen = best(candidates) if strategy == OLDEST_EMULATION_VERSION else None
        holder = chosen.metadata.name if chosen is not None else None  # Of other strategies somebody else decides.
        spec = v1.LeaseSpec(
            strategy=strategy,
            lease_duration_seconds=LEASE_SECONDS,
            renew_time=times.format_micro_time(now),
            holder_identity=holder,
        )
        try:
            yield Create(v1.Lease(metadata=meta.ObjectMeta(name=key.name, namespace=key.namespace), spec=spec))
            return
        except apierrors.AlreadyExists:
            lease = yield Fetch(_LEASES, key.namespace, key.name)
        settled = _settled(lease, strategy, holder, now) if lease is not None else None
        if settled is not None:
            yield Update(settled)


class LeaseCandidateCleaner:
    """Deletes candidates that were silent for too long. Keys are their places."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._candidates = wiring.reader(v1beta1.LeaseCandidate)
        self._candidates.add_handler(self._candidate_changed)

    def _candidate_changed(self, old: v1beta1.LeaseCandidate | None, new: v1beta1.LeaseCandidate | None) -> None:
        if new is not None:
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        candidate: v1beta1.LeaseCandidate | None = self._candidates.get(key.namespace, key.name)
        for is_fresh in (False, True):
            if candidate is None:
                return
            last = _Times.of(candidate).answered
            if last is None:
                last = times.parse(candidate.metadata.creation_timestamp or times.format_time(0))
            left = last + CANDIDATE_SECONDS - self._wiring.now_seconds()
            if left >= 0:
                yield Requeue(left + 1)
                return
            if not is_fresh:
                candidate = yield Fetch(_CANDIDATES, key.namespace, key.name)
        assert candidate is not None
        yield Delete(_CANDIDATES, key.namespace, key.name, uid=candidate.metadata.uid)


def _place(candidate: v1beta1.LeaseCandidate) -> str:
    return f"{candidate.metadata.namespace}/{candidate.spec.lease_name}"
