"""Scores and masks of nodes' room are kept from Pod to Pod, and are always those of now."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from tests.spec.scheduler.objects import a_node, a_pod

from haven.apimachinery.names import UID
from haven.scheduler.plugins.noderesources import BalancedAllocation, NodeResourcesFit
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Snapshot


def info(number: int, cpu: str, memory: str) -> PodInfo:
    return replace(PodInfo.of(a_pod(cpu=cpu, memory=memory)), uid=UID(str(number)))


@pytest.mark.parametrize("seed", range(5))
def test_kept_answers_equal_those_of_a_plugin_that_never_saw_the_snapshot(seed: int) -> None:
    chance = random.Random(seed)
    snapshot = Snapshot()
    fit, balanced = NodeResourcesFit(), BalancedAllocation()
    placed: list[PodInfo] = []
    for number in range(400):
        step = chance.random()
        name = f"node-{chance.randrange(90)}"
        if step < 0.3:
            snapshot.set_node(a_node(name, cpu=str(chance.randrange(5)), pods=chance.randrange(4)))
        elif step < 0.35:
            snapshot.remove_node(name)
        elif step < 0.8:
            placed.append(info(number, chance.choice(("0", "100m", "1")), chance.choice(("0", "1Gi"))))
            snapshot.add_pod(placed[-1], name)
        elif placed:
            snapshot.remove_pod(placed.pop(chance.randrange(len(placed))).uid)
        asking = info(-1, chance.choice(("0", "100m", "1")), chance.choice(("0", "1Gi")))
        feasible = np.flatnonzero(snapshot.alive)
        for kept, fresh in ((fit, NodeResourcesFit()), (balanced, BalancedAllocation())):
            assert np.array_equal(
                np.asarray(kept.scores(asking, snapshot, feasible)),
                np.asarray(fresh.scores(asking, snapshot, feasible)),
            )
        assert np.array_equal(
            np.asarray(fit.mask(asking, snapshot)), np.asarray(NodeResourcesFit().mask(asking, snapshot))
        )
    snapshot.check()


def test_a_cache_that_slept_long_reckons_everything_anew() -> None:
    snapshot, fit = Snapshot(), NodeResourcesFit()
    snapshot.set_node(a_node("a", cpu="4"))
    asking = info(-1, "3", "0")
    assert np.asarray(fit.mask(asking, snapshot)).sum() == 1
    for number in range(3000):
        snapshot.add_pod(info(number, "0", "0"), "a")
        snapshot.remove_pod(UID(str(number)))
    snapshot.add_pod(info(1, "2", "0"), "a")
    assert np.asarray(fit.mask(asking, snapshot)).sum() == 0
