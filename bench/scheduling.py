"""The scheduler without an API server: a queue of pods, a snapshot of nodes, one cycle after the other.

`python -m bench.scheduling NODES PODS` prints pods per second; it runs in a process of its own.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from typing import Any

from bench.objects import NODE, POD

__all__ = ["alone"]


def alone(nodes: int, pods: int) -> float:
    """Return pods per second."""
    command = [sys.executable, "-m", "bench.scheduling", str(nodes), str(pods)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class _Nothing:
    """An informer of a kind that has no objects."""

    def add_index(self, *_arguments: Any) -> None:
        """Have an index of nothing."""

    def get(self, *_key: Any) -> None:
        return None

    def indexed(self, *_key: Any) -> tuple[Any, ...]:
        return ()

    def list(self, *_key: Any) -> tuple[Any, ...]:
        return ()


def measure(nodes: int, pods: int) -> float:
    """Place pods; a placed one takes its room."""
    from haven.api.core import v1 as core
    from haven.apimachinery import serialization
    from haven.apimachinery.names import UID
    from haven.scheduler.cycle import Placement, default_profile, place
    from haven.scheduler.podinfo import PodInfo
    from haven.scheduler.queue import Queue
    from haven.scheduler.snapshot import Snapshot
    from haven.scheduler.volumes import Listers, Volumes

    nothing: Any = _Nothing()
    snapshot, queue, chance = Snapshot(), Queue(), random.Random(1)
    profile = default_profile(snapshot, lambda _: {}, Volumes(Listers(*[nothing] * 7)))
    for number in range(nodes):
        node = serialization.convert(NODE, core.Node)
        node.metadata.name = f"node-{number}"
        node.metadata.labels["kubernetes.io/hostname"] = node.metadata.name
        snapshot.set_node(node)
    template = serialization.encode(serialization.convert(POD, core.Pod))
    waiting = []
    for number in range(pods):
        pod = serialization.decode(template, core.Pod)
        pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = f"pod-{number}", "default", UID(str(number))
        pod.metadata.creation_timestamp = "2026-01-01T00:00:00Z"
        waiting.append(pod)
    began = time.perf_counter()
    for pod in waiting:
        queue.add(PodInfo.of(pod), 0.0)
    for _ in itertools.repeat(None, pods):
        info = queue.pop(0.0)
        assert info is not None
        result = place(info, snapshot, profile, chance)
        assert isinstance(result, Placement), result
        snapshot.add_pod(info, result.node_name)
        queue.remove(info.uid)
    return pods / (time.perf_counter() - began)


if __name__ == "__main__":
    print(measure(int(sys.argv[1]), int(sys.argv[2])))
