"""Requests per second of an API server, of a second one if given, and of the bare floor; ratios from one run.

    python bench/apiserver.py [--seconds 5] [--server https://127.0.0.1:6443 --token T] [--only get,list]

The floor is a bare aiohttp TLS handler with one dictionary and a group-committing SQLite (synchronous=FULL), no checks
at all, under the same load. Without --server Haven's own is started on an empty directory. The load comes from wrk,
which must be installed (Debian: apt install wrk): a generator in Python would be the bottleneck.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

NAMESPACE = "default"
PODS = 1000
CONNECTIONS = 32
LIST_CONNECTIONS = 4

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "NAME",
        "labels": {"app": "bench", "tier": "web"},
        "annotations": {"example.com/note": "made by the benchmark"},
    },
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "registry.example.com/web:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "64Mi"},
                    "limits": {"cpu": "500m", "memory": "128Mi"},
                },
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5},
            },
            {
                "name": "log",
                "image": "registry.example.com/log:4.5",
                "args": ["--follow", "/var/log/web"],
                "volumeMounts": [{"name": "logs", "mountPath": "/var/log/web"}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            },
        ],
        "volumes": [{"name": "logs", "emptyDir": {}}],
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "web", "effect": "NoSchedule"}],
    },
}
CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "NAME", "labels": {"app": "bench"}},
    "data": {"k": "v", "other": "some more text"},
}


@dataclass(frozen=True)
class Target:
    """A server under test."""

    name: str
    host: str
    port: int
    token: str
    pid: int | None = None

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"


@dataclass(frozen=True)
class Figure:
    """What wrk saw."""

    per_second: float
    p99_ms: float
    refused: int


# ---- load


def request_once(target: Target, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(target.host, target.port, context=context, timeout=60)
    headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def wrk(target: Target, path: str, seconds: float, connections: int, script: str = "") -> Figure:
    """Load a path, or what a Lua script asks for."""
    command = ["wrk", "-t2", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {target.token}", "-H", "User-Agent: bench"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        if script:
            lua.write(script)
            lua.flush()
            command += ["-s", lua.name]
        text = subprocess.run([*command, target.url + path], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    assert rate is not None, text
    factor = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    p99 = float(tail.group(1)) * factor[tail.group(2)] if tail else 0.0
    return Figure(float(rate.group(1)), p99, int(bad.group(1)) if bad else 0)


def creating(path: str, body: dict[str, Any], token: str) -> str:
    """Return a script that posts objects with names of their own."""
    before, after = json.dumps(body, separators=(",", ":")).split("NAME")
    return f"""
local counter, n = 0, 0
function setup(thread) thread:set("id", counter); counter = counter + 1 end
function init(args) prefix = "b{secrets.token_hex(4)}-" .. id .. "-" end
function request()
  n = n + 1
  local headers = {{["Content-Type"]="application/json", ["Authorization"]="Bearer {token}"}}
  local body = [==[{before}]==] .. prefix .. n .. [==[{after}]==]
  return wrk.format("POST", "{path}", headers, body)
end
"""


def measure(target: Target, seconds: float, only: set[str], seeds: dict[str, Any]) -> dict[str, Figure]:
    """Return the figures of one server. The first fills `seeds` with what it serves: the floor is to send as much."""
    maps, pods = (f"/api/v1/namespaces/{NAMESPACE}/{kind}" for kind in ("configmaps", "pods"))
    account = {"metadata": {"name": "default"}}
    request_once(target, "POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)
    if not seeds:
        request_once(target, "POST", maps, {**CONFIG_MAP, "metadata": {"name": "bench"}})
        seeds["map"] = json.loads(request_once(target, "GET", f"{maps}/bench")[1])
        for number in range(PODS if "list" in only else 0):
            metadata: Any = POD["metadata"]
            request_once(target, "POST", pods, {**POD, "metadata": {**metadata, "name": f"p{number}"}})
        seeds["pods"] = json.loads(request_once(target, "GET", pods)[1])["items"]
    else:
        request_once(target, "POST", maps, seeds["map"])
        for pod in seeds["pods"]:
            request_once(target, "POST", pods, pod)
    result: dict[str, Figure] = {}
    if "get" in only:
        result["GET ConfigMap"] = wrk(target, f"{maps}/bench", seconds, CONNECTIONS)
    if "list" in only:
        size = len(request_once(target, "GET", pods)[1])
        result[f"LIST {PODS} Pods ({size / 1e6:.1f} MB)"] = wrk(target, pods, seconds, LIST_CONNECTIONS)
    if "map" in only:
        result["create ConfigMap"] = wrk(target, "", seconds, CONNECTIONS, creating(maps, CONFIG_MAP, target.token))
    if "pod" in only:
        result["create Pod"] = wrk(target, "", seconds, CONNECTIONS, creating(pods, POD, target.token))
    return result


# ---- servers


@contextlib.contextmanager
def started(name: str, command: list[str], port: int, token: str) -> Iterator[Target]:
    """Run a server in a process of its own."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    target = Target(name, "127.0.0.1", port, token, process.pid)
    try:
        while True:
            with contextlib.suppress(OSError):
                if request_once(target, "GET", "/readyz")[0] == 200:
                    break
            if process.poll() is not None or time.monotonic() - began > 30:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.02)
        print(f"{name}: ready after {time.monotonic() - began:.2f} s, {_resident_mb(process.pid):.0f} MB")
        yield target
        print(f"{name}: {_resident_mb(process.pid):.0f} MB at the end")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _resident_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Floor:
    """The least that a durable API over TLS can be: a dictionary, and SQLite with one sync for all that wait."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._path = folder / "floor.db"
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            database.execute("BEGIN")
            database.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", [(key, data) for key, data, _ in batch])
            database.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._answer, [future for _, _, future in batch])

    @staticmethod
    def _answer(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    async def handle(self, request: Any) -> Any:
        from aiohttp import web

        path = request.raw_path
        if request.method == "POST":
            data = await request.read()
            name = json.loads(data)["metadata"]["name"]
            future: asyncio.Future[None] = self._loop.create_future()
            self._queue.put((f"{path}/{name}", data, future))
            await future
            self.objects.setdefault(path, {})[name] = data
            return web.Response(status=201, body=data, content_type="application/json")
        if path == "/readyz":
            return web.Response(body=b"ok")
        if path in self.objects:
            body = b'{"kind":"List","items":[' + b",".join(self.objects[path].values()) + b"]}"
            return web.Response(body=body, content_type="application/json")
        collection, _, name = path.rpartition("/")
        found = self.objects.get(collection, {}).get(name)
        return web.Response(status=200 if found else 404, body=found or b"", content_type="application/json")


async def serve_floor(folder: Path, port: int) -> None:
    """Serve the floor until killed."""
    from aiohttp import web

    from haven.apiserver.devpki import serving_files

    certificate, key, _ = serving_files(folder, ["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    floor = Floor(folder)
    await asyncio.get_running_loop().create_server(web.Server(floor.handle), "127.0.0.1", port, ssl=tls)
    await asyncio.Event().wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default="get,list,map,pod")
    parser.add_argument("--server", help="another server, instead of Haven's own")
    parser.add_argument("--token", default="")
    parser.add_argument("--floor", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.floor:
        import uvloop

        uvloop.run(serve_floor(Path(arguments.floor[0]), int(arguments.floor[1])))
        return
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing; apt install wrk")
    only = set(arguments.only.split(","))
    seconds = arguments.seconds
    seeds: dict[str, Any] = {}
    if arguments.server:
        host, _, number = arguments.server.removeprefix("https://").partition(":")
        name = arguments.server
        figures = measure(Target(name, host, int(number or 443), arguments.token), seconds, only, seeds)
    else:
        name = "haven"
        token = secrets.token_hex(16)
        with tempfile.TemporaryDirectory(prefix="haven-bench-") as folder:
            port = _free_port()
            tokens = Path(folder) / "tokens.csv"
            tokens.write_text(f'{token},bench,1,"system:masters"\n')
            command = [sys.executable, "-m", "haven.apiserver", "--data", folder, "--port", str(port)]
            command += ["--token-file", str(tokens), "--log-level", "warning"]
            with started(name, command, port, token) as target:
                figures = measure(target, seconds, only, seeds)
    with tempfile.TemporaryDirectory(prefix="haven-bench-") as folder:
        port = _free_port()
        command = [sys.executable, os.path.abspath(__file__), "--floor", folder, str(port)]
        with started("floor", command, port, "none") as target:
            floor = measure(target, seconds, only, seeds)
    print(f"{'':30} {'floor':>10} {'p99 ms':>8} {name:>14} {'p99 ms':>8} {'ratio':>6}")
    for (label, one), (own, other) in zip(floor.items(), figures.items(), strict=True):
        label = own if label.startswith("LIST") else label
        note = f"  {other.refused} refused" if other.refused else ""
        print(
            f"{label:30} {one.per_second:10,.0f} {one.p99_ms:8.1f} {other.per_second:14,.0f} {other.p99_ms:8.1f} "
            f"{other.per_second / one.per_second:6.2f}{note}"
        )


if __name__ == "__main__":
    main()
