"""Many watchers of one collection, and how late they learn of changes.

Every watch is a TLS connection of its own. A hundred ConfigMaps are written a second, with the time of the sending in
them; the delay is what lies between that moment and the watcher's having the event, the write included. The
watchers run in a process of their own (`python -m bench.watches`), which needs processor time too.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from typing import Any

from bench.target import Requests, Target, trusting

__all__ = ["Delays", "measure"]

_PATH = "/api/v1/namespaces/default/configmaps"
_SENT = re.compile(rb'"sent":"(\d+)"')
_EVENT = b'{"type":"'
CONNECTS_AT_ONCE = 20
LANES = 40
"""Connections that write, each an object of its own: a slow answer holds up few."""


class Delays:
    """What the watchers saw; `seen` is the share of the events that arrived, `per_second` how many were written.

    `own_share` is how much of a core the watchers themselves needed: near 1 they are what is too slow.
    """

    def __init__(self, p50_ms: float, p99_ms: float, seen: float, per_second: float, own_share: float) -> None:
        self.p50_ms, self.p99_ms, self.seen, self.per_second = p50_ms, p99_ms, seen, per_second
        self.own_share = own_share


def measure(target: Target, watchers: int, per_second: int, seconds: float) -> Delays:
    """Watch in another process, and write in this one."""
    for lane in range(LANES):
        target.request("POST", _PATH, {"metadata": {"name": f"watched-{lane}"}, "data": {"sent": "0"}})
    command = [sys.executable, "-m", "bench.watches", target.host, str(target.port), target.token]
    command += [str(watchers), str(per_second), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-600:])
    return Delays(**json.loads(done.stdout))


class _Watch(asyncio.Protocol):
    """One watcher: counts all events, and notes each one's delay."""

    def __init__(self, request: bytes, delays: list[int], opened: asyncio.Future[None]) -> None:
        self._request = request
        self._delays = delays
        self._opened = opened
        self._rest = b""
        self.events = 0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._opened.done():
            if not data.startswith(b"HTTP/1.1 200"):
                self._opened.set_exception(RuntimeError(data[:300].decode(errors="replace")))
                return
            self._opened.set_result(None)
        if self._rest:
            data = self._rest + data
        end = 0
        for found in _SENT.finditer(data):
            self._delays.append(now - int(found[1]))
            self.events += 1
            end = found.end()
        self._rest = data[end:][-4096:]


async def _main(target: Target, watchers: int, per_second: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    status, answer = await asyncio.to_thread(target.request, "GET", f"{_PATH}?limit=1")
    assert status == 200, answer
    revision = json.loads(answer)["metadata"]["resourceVersion"]
    request = (
        f"GET {_PATH}?watch=1&resourceVersion={revision} HTTP/1.1\r\nHost: {target.host}\r\n"
        f"Authorization: Bearer {target.token}\r\nUser-Agent: bench\r\nAccept: application/json\r\n\r\n"
    ).encode()
    tls, delays, watches = trusting(), list[int](), list[_Watch]()
    slots = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def connect() -> None:
        async with slots:
            opened: asyncio.Future[None] = loop.create_future()
            _, watch = await loop.create_connection(
                lambda: _Watch(request, delays, opened), target.host, target.port, ssl=tls
            )
            watches.append(watch)
            # Some servers send the head of the answer only with the first event.
            await asyncio.wait([opened], timeout=0.05)

    await asyncio.gather(*(connect() for _ in range(watchers)))
    await _write(target, 20, 20)  # The first events warm everything up, and show that every watch is open.
    await asyncio.sleep(1.0)
    for watch in watches:
        watch.events = 0
    delays.clear()
    count = int(per_second * seconds)
    began, used = time.monotonic(), time.process_time()
    await _write(target, count, per_second)
    took = time.monotonic() - began
    share = (time.process_time() - used) / took
    deadline = time.monotonic() + 10.0
    while sum(watch.events for watch in watches) < count * watchers and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    delays.sort()
    p50, p99 = (delays[min(len(delays) - 1, int(len(delays) * part))] / 1e6 for part in (0.5, 0.99))
    seen = sum(watch.events for watch in watches) / (count * watchers)
    for watch in watches:
        watch.transport.abort()
    return {"p50_ms": p50, "p99_ms": p99, "seen": seen, "per_second": count / took, "own_share": share}


async def _write(target: Target, count: int, per_second: int) -> None:
    """Write at an even pace, whether answers come or not."""
    sender = Requests(target, 1)
    began = time.monotonic()

    async def one(lane: int, lanes: int) -> None:
        class Paced:
            """Requests that are each made when their moment has come."""

            def __init__(self) -> None:
                self._numbers = iter(range(lane, count, lanes))

            def __aiter__(self) -> Paced:
                return self

            async def __anext__(self) -> tuple[str, str, Any]:
                number = next(self._numbers, None)
                if number is None:
                    raise StopAsyncIteration
                await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
                body = {"metadata": {"name": f"watched-{lane}"}, "data": {"sent": str(time.monotonic_ns())}}
                return "PUT", f"{_PATH}/watched-{lane}", body

        await sender.send_each(Paced())

    await asyncio.gather(*(one(lane, LANES) for lane in range(LANES)))


if __name__ == "__main__":
    import resource

    import uvloop

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    host, port, token, watchers, per_second, seconds = sys.argv[1:]
    one = Target("watched", host, int(port), token)
    print(json.dumps(uvloop.run(_main(one, int(watchers), int(per_second), float(seconds)))))
