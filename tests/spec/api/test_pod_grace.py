"""How long a Pod has to end depends on what was asked for, on what it says and on whether it runs at all."""

from __future__ import annotations

import pytest

from haven.api.core import v1 as core
from haven.api.core.podstrategy import pod_grace_period_seconds


@pytest.mark.parametrize(
    ("own", "wanted", "seconds"),
    [(30, None, 30), (30, 5, 5), (0, 60, 60), (None, None, 0), (30, 0, 0), (-1, None, 1)],
)
def test_what_was_asked_for_goes_before_what_the_pod_says(own: int | None, wanted: int | None, seconds: int) -> None:
    pod = core.Pod(spec=core.PodSpec(node_name="n", termination_grace_period_seconds=own))

    assert pod_grace_period_seconds(pod, wanted) == seconds


def test_a_pod_that_does_not_run_ends_at_once() -> None:
    waiting = core.Pod(spec=core.PodSpec(termination_grace_period_seconds=30))
    ended = core.Pod(spec=core.PodSpec(node_name="n"), status=core.PodStatus(phase="Failed"))

    assert [pod_grace_period_seconds(pod, 60) for pod in (waiting, ended)] == [0, 0]
