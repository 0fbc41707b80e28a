"""A whole control plane: idle, filled with nodes and pods, scheduling them; and an API server with many pods stored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

from bench.objects import NODE, TOLERANT_POD, pods_path
from bench.target import Requests, Target

__all__ = ["fill_nodes", "idle", "schedule", "store_pods"]

NODES = 1000
PODS = 2000
CONNECTIONS = 32
SCHEDULE_SECONDS_MAX = 120.0


def idle(target: Target, seconds: float) -> tuple[float, float]:
    """Return (memory in MB, share of a core in %) of a control plane that nobody asks anything."""
    target.wait_quiet()
    before, began = target.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    used = target.cpu_seconds() - before
    return target.resident_mb(), 100.0 * used / (time.monotonic() - began)


def fill_nodes(target: Target) -> None:
    """Make nodes, and wait until the controllers have seen them."""
    asyncio.run(Requests(target, CONNECTIONS).send_all(_objects("/api/v1/nodes", NODE, "node", NODES)))
    target.wait_quiet(seconds_max=20.0, share_max=0.3)


def schedule(target: Target) -> float:
    """Return pods per second, from the first create to the last bind."""
    return asyncio.run(_schedule(target))


async def _schedule(target: Target) -> float:
    began = time.monotonic()
    await Requests(target, CONNECTIONS).send_all(_objects(pods_path(), TOLERANT_POD, "pod", PODS))
    path = f"{pods_path()}?fieldSelector=spec.nodeName%3D&limit=1"
    while True:
        status, answer = await asyncio.to_thread(target.request, "GET", path)
        assert status == 200, answer
        if not json.loads(answer)["items"]:
            return PODS / (time.monotonic() - began)
        if time.monotonic() - began > SCHEDULE_SECONDS_MAX:
            raise RuntimeError(f"{target.name} did not schedule {PODS} pods in {SCHEDULE_SECONDS_MAX:.0f} s")
        await asyncio.sleep(0.05)


def store_pods(target: Target, count: int) -> None:
    """Create many pods on an API server alone."""
    account = {"metadata": {"name": "default"}}
    target.request("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    asyncio.run(Requests(target, CONNECTIONS).send_all(_objects(pods_path(), TOLERANT_POD, "pod", count)))


def _objects(path: str, body: dict[str, Any], prefix: str, count: int) -> Iterator[tuple[str, str, Any]]:
    parts = json.dumps(body, separators=(",", ":")).encode().split(b"NAME")
    for number in range(count):
        yield "POST", path, f"{prefix}-{number}".encode().join(parts)
