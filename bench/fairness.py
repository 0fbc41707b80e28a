"""How long a quiet client waits while another floods the server with lists.

    python bench/fairness.py [--seconds 8] [--connections 64] [--pods 1000] [--without]

Two service accounts may list and get Pods. One gets a Pod, every 20 ms; then the other lists all Pods over many
connections as fast as it can (wrk, which must be installed), while the first goes on. Without (--without), the server
runs with priority and fairness turned off, which shows what would be. Service accounts share a priority level, so
this is fairness between flows; what is printed as "exempt" is a cluster administrator's latency at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import re
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "", "labels": {"app": "bench"}},
    "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1"}]},
}
USERS = {
    "admin": "system:masters",
    "system:serviceaccount:default:flood": "",
    "system:serviceaccount:default:quiet": "",
}
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
EVERY_SECONDS = 0.02


def connect(port: int) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", port, context=ssl._create_unverified_context(), timeout=60)


def ask(connection: http.client.HTTPSConnection, token: str, method: str, path: str, body: Any = None) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


class Prober(threading.Thread):
    """Gets one Pod again and again and notes how long that takes."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(daemon=True)
        self.taken: list[float] = []
        self.refused = 0
        self.stopping = threading.Event()
        self._port = port
        self._token = token

    def run(self) -> None:
        connection = connect(self._port)
        while not self.stopping.is_set():
            began = time.perf_counter()
            status = ask(connection, self._token, "GET", "/api/v1/namespaces/default/pods/pod-0")
            self.taken.append(time.perf_counter() - began)
            self.refused += status != 200
            time.sleep(EVERY_SECONDS)

    def text(self) -> str:
        ordered = sorted(self.taken)
        middle, late = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
        return f"p50 {middle * 1000:7.1f} ms   p99 {late * 1000:7.1f} ms   n {len(ordered)}   refused {self.refused}"


def probe(port: int, seconds: float) -> None:
    probers = {"quiet": Prober(port, "t2"), "exempt": Prober(port, "t0")}
    for prober in probers.values():
        prober.start()
    time.sleep(seconds)
    for name, prober in probers.items():
        prober.stopping.set()
        prober.join()
        print(f"    {name:8}{prober.text()}", flush=True)


async def serve(folder: str, port: int, fair: bool) -> None:
    """Serve with three users until told to stop."""
    from haven.apiserver import assembly
    from haven.apiserver.authentication.tokenkeys import SigningKeys
    from haven.apiserver.devpki import serving_files
    from haven.apiserver.request import UserInfo
    from haven.apiserver.settings import Settings
    from haven.store.sqlite import SqliteStore

    certificate, key, signing_key = serving_files(Path(folder), ["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    users = {
        f"t{index}": UserInfo(name, groups=(group,) if group else GROUPS)
        for index, (name, group) in enumerate(USERS.items())
    }
    trust = assembly.Trust(SigningKeys(signing_key.read_bytes()), static_tokens=users, tls=tls)
    store = await SqliteStore.open(Path(folder) / "store.db")
    server = await assembly.start(Settings(port=port, priority_and_fairness=fair), store, trust)
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    print("ready", server.port, flush=True)
    await done.wait()
    await server.stop()
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--without", action="store_true", help="turn priority and fairness off")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        import uvloop

        uvloop.run(serve(arguments.serve, 0, not arguments.without))
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--serve", folder, *(["--without"] if arguments.without else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        try:
            assert process.stdout is not None
            port = next(int(line.split()[1]) for line in process.stdout if line.startswith("ready "))
            run(port, arguments)
        finally:
            process.terminate()
            process.wait()


def run(port: int, arguments: argparse.Namespace) -> None:
    admin = connect(port)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "name": GROUPS[0], "apiGroup": "rbac.authorization.k8s.io"}],
    }
    assert ask(admin, "t0", "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", role) == 201
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    assert ask(admin, "t0", "POST", "/api/v1/namespaces/default/serviceaccounts", account) in (201, 409)
    for index in range(arguments.pods):
        body = {**POD, "metadata": {**POD["metadata"], "name": f"pod-{index}"}}
        assert ask(admin, "t0", "POST", "/api/v1/namespaces/default/pods", body) == 201
    print("alone", flush=True)
    probe(port, min(3.0, arguments.seconds))
    flood = subprocess.Popen(
        [
            *("wrk", "-t", "1", "-c", str(arguments.connections), "-d", f"{arguments.seconds + 2:.0f}s"),
            *("-H", "Authorization: Bearer t1", "--timeout", "60s"),
            f"https://127.0.0.1:{port}/api/v1/namespaces/default/pods",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.0)
    print(f"with {arguments.connections} connections listing {arguments.pods} Pods", flush=True)
    probe(port, arguments.seconds)
    text = flood.communicate()[0]
    rate, errors = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"Non-2xx.*", text)
    print(f"    flood   {rate[1] if rate else '?'}/s   {errors[0] if errors else 'all answered'}")


if __name__ == "__main__":
    main()
