"""The best candidate that answers gets the Lease; a better one that comes later is named as preferred."""

from __future__ import annotations

import pytest
from tests.spec.controllers.world import START, World

from haven.api.coordination import v1, v1beta1
from haven.apimachinery import meta, times
from haven.controllers.leaderelection import (
    CANDIDATE_SECONDS,
    LeaderElectionController,
    LeaseCandidateCleaner,
    Undecided,
    best,
    strategy_of,
    version_key,
)

OLDEST = "OldestEmulationVersion"


def a_candidate(
    name: str, emulated: str, binary: str = "1.20.0", *, strategy: str = OLDEST, came: float = START, lease: str = "l"
) -> v1beta1.LeaseCandidate:
    return v1beta1.LeaseCandidate(
        metadata=meta.ObjectMeta(name=name, namespace="n", creation_timestamp=times.format_time(came)),
        spec=v1beta1.LeaseCandidateSpec(
            lease_name=lease,
            renew_time=times.format_micro_time(came),
            binary_version=binary,
            emulation_version=emulated,
            strategy=strategy,
        ),
    )


def a_world(*objects: v1beta1.LeaseCandidate | v1.Lease) -> World:
    world = World()
    for one in objects:
        world.put(one)
    world.start(LeaderElectionController)
    return world


def lease(world: World) -> v1.LeaseSpec:
    found: v1.Lease = world.get(v1.Lease, "n", "l")
    return found.spec


def answer(world: World, name: str) -> None:
    def renew(candidate: v1beta1.LeaseCandidate) -> None:
        candidate.spec.renew_time = times.format_micro_time(world.now)

    world.change(v1beta1.LeaseCandidate, "n", name, renew)


def hold(world: World) -> None:
    def renew(each: v1.Lease) -> None:
        each.spec.renew_time = times.format_micro_time(world.now)

    world.change(v1.Lease, "n", "l", renew)


def test_versions_are_ordered_as_semantic_versions() -> None:
    texts = ["1.9.0", "v1.10", "1.10.1-alpha.2", "1.10.1-alpha.10", "1.10.1-beta", "1.10.1", "2"]
    keys = [version_key(text) for text in texts]

    assert sorted(key for key in keys if key is not None) == keys
    assert version_key("one") is None


def test_the_oldest_emulated_version_is_best_then_the_oldest_program_then_who_came_first() -> None:
    assert best([a_candidate("a", "1.20.0"), a_candidate("b", "1.19.0"), a_candidate("c", "")]).metadata.name == "b"  # type: ignore[union-attr]
    assert best([a_candidate("a", "1.19.0"), a_candidate("b", "1.19.0", "1.19.0")]).metadata.name == "b"  # type: ignore[union-attr]
    assert best([a_candidate("a", "1.19.0", came=START + 1), a_candidate("b", "1.19.0")]).metadata.name == "b"  # type: ignore[union-attr]
    assert best([a_candidate("a", "what")]) is None


def test_the_newest_program_decides_how_to_choose() -> None:
    newest = a_candidate("b", "1.20.0", "1.21.0", strategy="example.com/dice")

    assert strategy_of([a_candidate("a", "1.20.0"), newest]) == "example.com/dice"
    with pytest.raises(Undecided):
        strategy_of([newest, a_candidate("c", "1.20.0", "1.21.0")])


def test_candidates_that_just_came_need_not_be_asked() -> None:
    world = a_world(a_candidate("a", "1.20.0"), a_candidate("b", "1.19.0"), a_candidate("x", "1.1.0", lease="other"))

    assert (lease(world).holder_identity, lease(world).strategy) == ("b", OLDEST)


def test_of_candidates_that_are_asked_only_those_that_answer_count() -> None:
    world = World()
    world.put(a_candidate("a", "1.20.0", came=START - 60))
    world.put(a_candidate("b", "1.19.0", came=START - 60))
    world.start(LeaderElectionController)
    assert world.get(v1.Lease, "n", "l") is None
    assert all(one.spec.ping_time for one in world.all(v1beta1.LeaseCandidate))

    world.wait(3)
    answer(world, "a")
    world.settle()
    assert world.get(v1.Lease, "n", "l") is None  # b has two seconds left.
    world.wait(3)

    assert lease(world).holder_identity == "a"


def test_a_better_candidate_is_preferred_while_the_lease_is_held_and_gets_it_when_it_is_not() -> None:
    world = a_world(a_candidate("a", "1.20.0"))
    world.wait(1)
    hold(world)
    world.put(a_candidate("b", "1.19.0", came=world.now))
    world.settle()
    answer(world, "a")
    world.settle()
    assert (lease(world).holder_identity, lease(world).preferred_holder) == ("a", "b")

    def release(each: v1.Lease) -> None:
        each.spec.holder_identity = None

    world.change(v1.Lease, "n", "l", release)
    world.settle()

    assert (lease(world).holder_identity, lease(world).preferred_holder) == ("b", None)


def test_of_a_strategy_of_somebody_else_there_is_a_lease_without_holder() -> None:
    world = a_world(a_candidate("a", "1.20.0", strategy="example.com/dice"))

    assert (lease(world).holder_identity, lease(world).strategy) == (None, "example.com/dice")


def test_a_lease_that_is_held_by_somebody_who_is_no_candidate_stays_until_it_runs_out() -> None:
    held = v1.Lease(
        metadata=meta.ObjectMeta(name="l", namespace="n"),
        spec=v1.LeaseSpec(
            holder_identity="old", lease_duration_seconds=5, renew_time=times.format_micro_time(START)
        ),
    )  # fmt: skip
    world = a_world(held, a_candidate("a", "1.20.0"))
    assert (lease(world).holder_identity, lease(world).preferred_holder) == ("old", "a")

    for _ in range(4):
        world.wait(3)
        answer(world, "a")
        world.settle()

    assert lease(world).holder_identity == "a"


def test_silent_candidates_are_deleted() -> None:
    world = World()
    world.put(a_candidate("a", "1.20.0"), a_candidate("b", "1.20.0"))
    world.start(LeaseCandidateCleaner)

    world.wait(CANDIDATE_SECONDS - 10)
    answer(world, "b")
    world.wait(20)

    assert [one.name for one in world.deleted] == ["a"]
