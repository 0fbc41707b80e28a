"""What a cluster for tests costs: first and further ones, many at once, memory, and what is left of them.

    python bench/testing.py [--cycles 200]

Prints one JSON document; figures are of this machine at this moment.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

FIRST = """
import time; began, cpu = time.perf_counter(), time.process_time()
from haven.testing import Cluster
cluster = Cluster().start()
print(time.perf_counter() - began, time.process_time() - cpu)
cluster.close()
"""
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "web"}]},
        },
    },
}


def rss_mib() -> float:
    """Return this process's resident memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def first(runs: int) -> dict[str, Any]:
    """Measure the first cluster of a process: everything loaded, and ready."""
    spans, cpus = [], []
    with tempfile.TemporaryDirectory() as compiled:  # As after an installation: modules are compiled already.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
        for run in range(runs + 1):
            done = subprocess.run(
                [sys.executable, "-c", FIRST], capture_output=True, text=True, check=True, env=environment
            )
            if run > 0:
                span, cpu = map(float, done.stdout.split())
                spans.append(span)
                cpus.append(cpu)
    return {
        "ready_ms_median": milliseconds(statistics.median(spans)),
        "ready_ms_best": milliseconds(min(spans)),
        "ready_cpu_ms_median": milliseconds(statistics.median(cpus)),
    }


def further(count: int) -> dict[str, Any]:
    """Measure later clusters: ready, a Deployment available, closed."""
    from haven.testing import Cluster

    ready, deployed, closed, cpus = [], [], [], []
    for _ in range(count):
        times, cpu = [time.perf_counter()], time.process_time()
        cluster = Cluster().start()
        times.append(time.perf_counter())
        cpus.append(time.process_time() - cpu)
        cluster.apply(DEPLOYMENT)
        cluster.wait_for("deployment/web", "Available")
        times.append(time.perf_counter())
        cluster.close()
        times.append(time.perf_counter())
        for into, start, end in zip((ready, deployed, closed), times, times[1:], strict=False):
            into.append(end - start)
    return {
        "ready_ms_median": milliseconds(statistics.median(ready)),
        "ready_ms_p95": milliseconds(sorted(ready)[int(0.95 * count)]),
        "ready_cpu_ms_median": milliseconds(statistics.median(cpus)),
        "deployment_available_ms_median": milliseconds(statistics.median(deployed)),
        "close_ms_median": milliseconds(statistics.median(closed)),
    }


def snapshots(count: int) -> dict[str, Any]:
    """Measure going back."""
    from haven.testing import Cluster

    spans = []
    with Cluster() as cluster:
        cluster.apply(DEPLOYMENT)
        cluster.wait_for("deployment/web", "Available")
        snapshot = cluster.snapshot()
        for _ in range(count):
            cluster.delete("deployment", "web")
            began = time.perf_counter()
            cluster.restore(snapshot)
            spans.append(time.perf_counter() - began)
    return {"restore_ms_median": milliseconds(statistics.median(spans))}


def at_once(count: int) -> dict[str, Any]:
    """Measure many clusters side by side."""
    from haven.testing import Cluster

    gc.collect()
    before, began = rss_mib(), time.perf_counter()
    clusters = [Cluster().start() for _ in range(count)]
    ready = time.perf_counter() - began
    for cluster in clusters:
        cluster.apply(DEPLOYMENT)
    for cluster in clusters:
        cluster.wait_for("deployment/web", "Available", timeout=60)
    worked = time.perf_counter() - began
    memory = rss_mib() - before
    for cluster in clusters:
        cluster.close()
    return {
        "clusters": count,
        "all_ready_s": round(ready, 2),
        "all_deployed_s": round(worked, 2),
        "memory_mib_each": round(memory / count, 1),
    }


def nodes(count: int) -> dict[str, Any]:
    """Measure a large cluster."""
    from haven.testing import Cluster

    with Cluster(events=False) as cluster:
        began = time.perf_counter()
        cluster.add_nodes(count, prefix="more")
        added = time.perf_counter() - began
        cluster.apply({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 5 * count}})  # type: ignore[dict-item]
        began = time.perf_counter()
        cluster.wait_for("deployment/web", {"status": {"readyReplicas": 5 * count}}, timeout=300)
        return {
            "nodes": count,
            "added_s": round(added, 2),
            "pods_ready_per_s": round(5 * count / (time.perf_counter() - began)),
        }


def leak(cycles: int) -> dict[str, Any]:
    """Make and close many; what grows?"""
    from haven.testing import Cluster

    def cycle() -> None:
        with Cluster() as cluster:
            cluster.apply(DEPLOYMENT)
            cluster.wait_for("deployment/web", "Available")

    for _ in range(10):
        cycle()
    gc.collect()
    before = rss_mib(), descriptors(), threading.active_count(), len(gc.get_objects())
    for _ in range(cycles):
        cycle()
    gc.collect()
    after = rss_mib(), descriptors(), threading.active_count(), len(gc.get_objects())
    memory, files, threads, objects = (end - start for start, end in zip(before, after, strict=True))
    return {
        "cycles": cycles,
        "memory_mib_growth": round(memory, 1),
        "descriptors_growth": files,
        "threads_growth": threads,
        "objects_growth": objects,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    parts = {
        "first": lambda: first(5),
        "further": lambda: further(50),
        "snapshots": lambda: snapshots(20),
        "at_once": lambda: at_once(20),
        "nodes": lambda: nodes(100),
        "leak": lambda: leak(arguments.cycles),
    }
    found = {name: part() for name, part in parts.items() if not arguments.only or name in arguments.only.split(",")}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
