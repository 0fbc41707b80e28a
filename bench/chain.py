"""What a write costs behind the listener: requests go straight into the chain, so that sockets and TLS are left out.

    python -m bench.chain [--requests 4000] [--callers 32] [--only 'create Pod'] [--profile FILE]

Prints the processor time that a request takes: of all threads, and of the event loop's alone. Other work on the machine
changes it far less than rates. With --profile, cProfile's figures of the event loop are written to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.objects import CONFIG_MAP, DIFFERENT_POD, NAMESPACE, POD, pods_path
from haven.apiserver import assembly, garbage
from haven.apiserver.authentication.statictokens import parse_token_file
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.devpki import serving_files
from haven.apiserver.request import Request
from haven.apiserver.settings import Settings
from haven.store.sqlite import SqliteStore

_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "create ConfigMap": (_MAPS, CONFIG_MAP),
    "create Pod": (pods_path(), POD),
    "create Pod, no two alike": (pods_path(), DIFFERENT_POD),
}
_TOKEN = "bench"


def _request(method: str, path: str, body: bytes = b"") -> Request:
    headers = {
        "host": "127.0.0.1",
        "authorization": f"Bearer {_TOKEN}",
        "user-agent": "bench",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    return Request(method=method, path=path, query={}, headers=headers, body=body, uri=path, remote="127.0.0.1")


class Driver:
    """A server without a listener, and requests to it."""

    def __init__(self, server: assembly.ApiServer) -> None:
        self._server = server

    async def ask(self, method: str, path: str, body: bytes = b"") -> None:
        """Ask once; fail unless it is done."""
        response = await self._server.chain.handle(_request(method, path, body))
        assert response.status < 300, response.body

    async def load(self, path: str, bodies: list[bytes], callers: int) -> tuple[float, float]:
        """Post bodies; return the microseconds of processor time for each: of all threads, and of this one."""
        waiting = iter(bodies)

        async def call() -> None:
            for body in waiting:
                await self.ask("POST", path, body)

        everywhere, here = time.process_time(), time.thread_time()
        await asyncio.gather(*(asyncio.create_task(call()) for _ in range(callers)))
        everywhere, here = time.process_time() - everywhere, time.thread_time() - here
        return everywhere / len(bodies) * 1e6, here / len(bodies) * 1e6


def _bodies(body: dict[str, Any], count: int) -> list[bytes]:
    text = json.dumps(body, separators=(",", ":"))
    mark = "b" + secrets.token_hex(4)
    return [text.replace("NAME", f"{mark}-{number}").encode() for number in range(count)]


async def measure(arguments: argparse.Namespace) -> None:
    """Print a line for each row."""
    with tempfile.TemporaryDirectory(prefix="haven-bench-") as name:
        folder = Path(name)
        _, _, signing_key = serving_files(folder, ["127.0.0.1"])
        store = await SqliteStore.open(folder / "store.db")
        tokens = parse_token_file(f"{_TOKEN},admin,admin,system:masters")
        trust = assembly.Trust(SigningKeys(signing_key.read_bytes()), static_tokens=tokens)
        server = await assembly.start(Settings(), store, trust, listen=False)
        driver = Driver(server)
        account = {"metadata": {"name": "default"}}
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        await driver.ask("POST", path, json.dumps(account).encode())
        garbage.settle()
        profile = cProfile.Profile() if arguments.profile else None
        for row, (path, body) in ROWS.items():
            if arguments.only and arguments.only != row:
                continue
            await driver.load(path, _bodies(body, max(arguments.requests // 10, 100)), arguments.callers)
            best: list[tuple[float, float]] = []
            for _ in range(arguments.rounds):
                bodies = _bodies(body, arguments.requests)
                if profile is not None:
                    profile.enable()
                best.append(await driver.load(path, bodies, arguments.callers))
                if profile is not None:
                    profile.disable()
            best.sort()
            everywhere, here = best[0]
            middle = best[len(best) // 2][0]
            print(f"{row:26} {everywhere:7.1f} µs CPU (loop {here:7.1f}; median {middle:7.1f})", flush=True)
        if profile is not None:
            profile.dump_stats(arguments.profile)
        await server.stop()
        await store.close()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--only", default="")
    parser.add_argument("--profile", default="")
    uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
