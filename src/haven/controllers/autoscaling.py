"""How many replicas a workload should have by what it measures, and how fast it may get there. Pure.

Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.autoscaling import v2 as autoscaling
from haven.api.core import v1 as core
from haven.api.core.podresources import pod_requests
from haven.controllers import pods
from haven.controllers.podmetrics import MetricsMissing, PodMetric

__all__ = [
    "History",
    "Limited",
    "Tolerance",
    "by_ratio",
    "by_total",
    "by_usage",
    "by_utilization",
    "limited",
    "limited_by_behavior",
]

REPLICAS_MAX = 2**31 - 1
CPU_INITIALIZATION_SECONDS = 300.0  # A starting program uses more than it will: it does not count at first.
READINESS_DELAY_SECONDS = 30.0
DOWNSCALE_WINDOW_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a ratio may be from 1 before anything is done."""

    up: float = 0.1
    down: float = 0.1

    def covers(self, ratio: float) -> bool:
        """Tell whether a ratio is close enough."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class _Groups:
    ready: int
    unready: tuple[str, ...]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


# ---- From metrics to replicas


def by_utilization(
    selected: Sequence[core.Pod],
    metrics: Mapping[str, PodMetric],
    resource: str,
    container: str,
    target_percent: int,
    current: int,
    tolerance: Tolerance,
    now_seconds: float,
) -> tuple[int, int, int]:
    """Return replicas, use as a percentage of requests, and average use in thousandths; raise MetricsMissing."""
    groups, values = _split(selected, metrics, resource, now_seconds)
    requests = {pod.metadata.name: _request(pod, resource, container) for pod in selected}

    def percent(of: Mapping[str, int]) -> int:
        requested = sum(requests[name] for name in of if name in requests)
        if not requested:
            raise MetricsMissing("no metrics returned matched known pods")
        return sum(value for name, value in of.items() if name in requests) * 100 // requested

    known = [value for name, value in values.items() if name in requests]
    fallback = max(100, target_percent)
    replicas = _propose(
        current,
        groups,
        values,
        lambda of: percent(of) / target_percent,
        lambda name: requests[name] * fallback // 100,
        tolerance,
    )
    return replicas, percent(values), sum(known) // len(known)


def by_usage(
    selected: Sequence[core.Pod],
    metrics: Mapping[str, PodMetric],
    resource: str,
    target_milli: int,
    current: int,
    tolerance: Tolerance,
    now_seconds: float,
) -> tuple[int, int]:
    """Return replicas and average value in thousandths; `resource` is "" for custom metrics. Raise MetricsMissing."""
    groups, values = _split(selected, metrics, resource, now_seconds)

    def average(of: Mapping[str, int]) -> int:
        return sum(of.values()) // len(of)

    replicas = _propose(
        current, groups, values, lambda of: average(of) / target_milli, lambda _name: target_milli, tolerance
    )
    return replicas, average(values)


def by_ratio(selected: Sequence[core.Pod], ratio: float, current: int, tolerance: Tolerance) -> int:
    """Return replicas for one value shared by all Pods, given as its ratio to the target; raise MetricsMissing."""
    if current == 0:
        return math.ceil(ratio)
    if tolerance.covers(ratio):
        return current
    if not selected:
        raise MetricsMissing(
            "unable to calculate ready pods: no pods returned by selector while calculating replica count"
        )
    ready = sum(pod.status.phase == "Running" and pods.is_ready(pod) for pod in selected)
    return min(math.ceil(ratio * ready), REPLICAS_MAX)


def by_total(total_milli: int, target_milli: int, current: int, tolerance: Tolerance) -> tuple[int, int]:
    """Return replicas so that each has its share of a value, and what the share is now, in thousandths."""
    replicas = current
    if current == 0 or not tolerance.covers(total_milli / (target_milli * current)):
        replicas = min(math.ceil(total_milli / target_milli), REPLICAS_MAX)
    return replicas, math.ceil(total_milli / current) if current else 0


def _split(
    selected: Sequence[core.Pod], metrics: Mapping[str, PodMetric], resource: str, now_seconds: float
) -> tuple[_Groups, dict[str, int]]:
    """Sort the Pods by whether their values count, and return the values that do."""
    if not selected:
        raise MetricsMissing("no pods returned by selector while calculating replica count")
    ready, unready, missing, ignored = 0, [], [], []
    for pod in selected:
        name = pod.metadata.name
        if pod.metadata.deletion_timestamp is not None or pod.status.phase == "Failed":
            ignored.append(name)
        elif pod.status.phase == "Pending":
            unready.append(name)
        elif name not in metrics:
            missing.append(name)
        elif resource == "cpu" and _is_starting(pod, metrics[name], now_seconds):
            unready.append(name)
        else:
            ready += 1
    values = {name: each.milli for name, each in metrics.items() if name not in ignored and name not in unready}
    if not values:
        raise MetricsMissing("did not receive metrics for targeted pods (pods might be unready)")
    return _Groups(ready, tuple(unready), tuple(missing), tuple(ignored)), values


def _is_starting(pod: core.Pod, metric: PodMetric, now_seconds: float) -> bool:
    ready = pods.condition(pod, "Ready")
    if ready is None or pod.status.start_time is None:
        return True
    started = pods.seconds_of(pod.status.start_time)
    changed = pods.seconds_of(ready.last_transition_time)
    if started + CPU_INITIALIZATION_SECONDS > now_seconds:
        return ready.status == "False" or metric.seconds < changed + metric.window_seconds
    return ready.status == "False" and started + READINESS_DELAY_SECONDS > changed  # It was never ready.


def _propose(
    current: int,
    groups: _Groups,
    values: Mapping[str, int],
    ratio_of: Callable[[Mapping[str, int]], float],
    missing_value: Callable[[str], int],
    tolerance: Tolerance,
) -> int:
    """Return replicas; Pods without a value are assumed to speak against the change, so that it is not overdone."""
    ratio = ratio_of(values)
    counts_unready = bool(groups.unready) and ratio > 1.0
    if not counts_unready and not groups.missing:
        return current if tolerance.covers(ratio) else math.ceil(ratio * groups.ready)
    filled = dict(values)
    if ratio < 1.0:
        filled |= {name: missing_value(name) for name in groups.missing}
    elif ratio > 1.0:
        filled |= dict.fromkeys(groups.missing, 0)
    if counts_unready:
        filled |= dict.fromkeys(groups.unready, 0)
    new_ratio = ratio_of(filled)
    if tolerance.covers(new_ratio) or (ratio < 1.0 < new_ratio) or (new_ratio < 1.0 < ratio):
        return current
    replicas = math.ceil(new_ratio * len(filled))
    turns = (new_ratio < 1.0 and replicas > current) or (new_ratio > 1.0 and replicas < current)
    return current if turns else replicas


def _request(pod: core.Pod, resource: str, container: str) -> int:
    name = pod.metadata.name
    whole = pod.spec.resources
    if not container and whole is not None and whole.requests:
        request = pod_requests(pod).get(resource)
        if request is None:
            raise MetricsMissing(f"missing pod-level request for {resource} in Pod {name}")
        return request.milli_value
    sidecars = [each for each in pod.spec.init_containers if each.restart_policy == "Always"]
    counted = [each for each in (*(pod.spec.containers or ()), *sidecars) if container in ("", each.name)]
    if not counted:
        raise MetricsMissing(f"container {container} not found in Pod {name}")
    total = 0
    for each in counted:
        request = each.resources.requests.get(resource)
        if request is None:
            raise MetricsMissing(f"missing request for {resource} in container {each.name} of Pod {name}")
        total += request.milli_value
    return total


# ---- How fast


@dataclass(frozen=True, slots=True)
class Limited:
    """A number of replicas, and what the conditions AbleToScale and ScalingLimited say about it."""

    replicas: int
    able_reason: str
    able_message: str
    is_limited: bool
    limit_reason: str
    limit_message: str


@dataclass(slots=True)
class History:
    """What was recommended and done lately for one autoscaler; times in seconds."""

    recommendations: list[tuple[float, int]] = field(default_factory=list)
    added: list[tuple[float, int]] = field(default_factory=list)
    removed: list[tuple[float, int]] = field(default_factory=list)

    def note_change(
        self, behavior: autoscaling.HorizontalPodAutoscalerBehavior | None, before: int, after: int, now: float
    ) -> None:
        """Remember a change as long as some policy looks back at it."""
        if behavior is None or after == before:
            return
        rules, changes = (behavior.scale_up, self.added) if after > before else (behavior.scale_down, self.removed)
        period = max((policy.period_seconds for policy in rules.policies or ()), default=0) if rules is not None else 0
        changes[:] = [*(each for each in changes if each[0] >= now - period), (now, abs(after - before))]

    def at_start(self, replicas: int, period_seconds: int, now: float) -> int:
        """Return how many replicas there were so many seconds ago."""
        since = now - period_seconds
        added = sum(count for at, count in self.added if at > since)
        return replicas - added + sum(count for at, count in self.removed if at > since)

    def note_recommendation(self, replicas: int, window_seconds: float, now: float) -> None:
        """Remember a recommendation, and forget those that nobody looks back at."""
        kept = [each for each in self.recommendations if each[0] >= now - window_seconds]
        self.recommendations = [*kept, (now, replicas)]


_READY = ("ReadyForNewScale", "recommended size matches current size")
_DOWN = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
_UP = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_UP_LIMIT = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_DOWN_LIMIT = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")


def limited(desired: int, current: int, minimum: int, maximum: int, history: History, now: float) -> Limited:
    """Return how many replicas there may be now, without rules of the user's: at most twice as many at a time."""
    since = now - DOWNSCALE_WINDOW_SECONDS
    stable = max([desired, *(count for at, count in history.recommendations if at >= since)])
    history.note_recommendation(desired, DOWNSCALE_WINDOW_SECONDS, now)
    able = _READY if stable == desired else _DOWN
    ceiling = max(2 * current, 4)
    if stable < minimum:
        return Limited(minimum, *able, minimum != stable, *_TOO_FEW)
    if stable > min(maximum, ceiling):
        return Limited(min(maximum, ceiling), *able, True, *(_UP_LIMIT if maximum > ceiling else _TOO_MANY))
    return Limited(stable, *able, False, *_WITHIN)


def limited_by_behavior(
    desired: int,
    current: int,
    minimum: int,
    maximum: int,
    behavior: autoscaling.HorizontalPodAutoscalerBehavior,
    history: History,
    now: float,
) -> Limited:
    """Return how many replicas there may be now by the rules that the user gave."""
    up, down = behavior.scale_up or autoscaling.HPAScalingRules(), behavior.scale_down or autoscaling.HPAScalingRules()
    stable = _stabilized(desired, current, up, down, history, now)
    able = _READY if stable == desired else (_UP if desired >= current else _DOWN)
    if stable > current:
        ceiling = max(_limit(current, up, history, now, is_up=True), current)
        allowed = min(maximum, ceiling)
        if stable > allowed:
            return Limited(allowed, *able, True, *(_UP_LIMIT if maximum > ceiling else _TOO_MANY))
    elif stable < current:
        floor = min(_limit(current, down, history, now, is_up=False), current)
        allowed = max(minimum, floor)
        if stable < allowed:
            return Limited(allowed, *able, True, *(_DOWN_LIMIT if minimum < floor else _TOO_FEW))
    return Limited(stable, *able, False, *_WITHIN)


def _stabilized(
    desired: int,
    current: int,
    up: autoscaling.HPAScalingRules,
    down: autoscaling.HPAScalingRules,
    history: History,
    now: float,
) -> int:
    """Return what all recommendations of the windows agree on: the least of them upwards, the most downwards."""
    up_window = up.stabilization_window_seconds or 0
    down_window = down.stabilization_window_seconds
    down_window = DOWNSCALE_WINDOW_SECONDS if down_window is None else down_window
    recent = history.recommendations
    lowest = min([desired, *(count for at, count in recent if at > now - up_window)])
    highest = max([desired, *(count for at, count in recent if at > now - down_window)])
    history.note_recommendation(desired, max(up_window, down_window), now)
    return min(max(current, lowest), highest)


def _limit(current: int, rules: autoscaling.HPAScalingRules, history: History, now: float, *, is_up: bool) -> int:
    if rules.select_policy == "Disabled":
        return current
    proposals = []
    for policy in rules.policies or ():
        start = history.at_start(current, policy.period_seconds, now)
        change = policy.value if policy.type == "Pods" else None
        if is_up:
            proposals.append(start + change if change is not None else math.ceil(start * (1 + policy.value / 100)))
        else:
            proposals.append(start - change if change is not None else int(start * (1 - policy.value / 100)))
    if not proposals:
        return REPLICAS_MAX if is_up else 0
    wants_least = rules.select_policy == "Min"
    return min(proposals) if wants_least == is_up else max(proposals)
