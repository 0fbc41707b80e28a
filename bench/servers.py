"""Starting servers in processes of their own, on empty folders, and ending them.

For each there are two sizes: the API server alone (requests), and the whole control plane (starts, memory, scheduling).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.target import Target, trusting

__all__ = ["Running", "elsewhere", "floor", "haven_api", "haven_cluster", "upstream_api", "upstream_cluster"]

START_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.005


class Running:
    """A started server. `ready_seconds` is from exec to the first 200 of /readyz; `again_seconds` that of a restart.

    `working_seconds` is when the controllers had made the default ServiceAccount, what Pods wait for. `again` restarts
    the API server (not etcd) on what is stored, and returns it.
    """

    def __init__(
        self,
        target: Target,
        ready_seconds: float,
        again_seconds: float = 0.0,
        working_seconds: float = 0.0,
        again: Callable[[], Target] | None = None,
    ) -> None:
        self.working_seconds = working_seconds
        self.target = target
        self.ready_seconds = ready_seconds
        self.again_seconds = again_seconds
        self._again = again

    def again(self) -> Target:
        """Restart the API server."""
        assert self._again is not None
        return self._again()


class _Processes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._last: tuple[str, list[str], dict[str, str]] = ("", [], {})
        self.began = time.monotonic()

    def start(self, name: str, command: list[str], **environment: str) -> None:
        self._last = (name, command, environment)
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(environment))
        self._processes.append((name, process))

    @property
    def pids(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, process.pid) for name, process in self._processes)

    def wait_ready(self, target: Callable[[], Target | None]) -> tuple[Target, float]:
        """Return the target and how long it took from the first exec."""
        while True:
            with contextlib.suppress(OSError):
                found = target()
                if found is not None and found.request("GET", "/readyz", timeout=5.0)[0] == 200:
                    return found, time.monotonic() - self.began
            for name, process in self._processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self._tail(name)}")
            if time.monotonic() - self.began > START_SECONDS_MAX:
                raise RuntimeError(f"not ready after {START_SECONDS_MAX:.0f} s: {self._tail(self._processes[0][0])}")
            time.sleep(_POLL_SECONDS)

    def wait_working(self, target: Target) -> float:
        """Return how long it took until there is a ServiceAccount for Pods."""
        while target.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] != 200:
            if time.monotonic() - self.began > START_SECONDS_MAX:
                raise RuntimeError(f"the controllers do not work: {self._tail(self._processes[-1][0])}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - self.began

    def _tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-600:]

    def start_last_again(self) -> None:
        """End what was started last, and start it again."""
        _, process = self._processes.pop()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        self.began = time.monotonic()
        name, command, environment = self._last
        self.start(name, command, **environment)

    def stop(self) -> None:
        for _, process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for _, process in reversed(self._processes):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Return the environment of a server: that of a user, in which Python keeps what it has compiled."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | more


@contextlib.contextmanager
def _processes() -> Iterator[_Processes]:
    with tempfile.TemporaryDirectory(prefix="haven-bench-", ignore_cleanup_errors=True) as folder:
        processes = _Processes(Path(folder))
        try:
            yield processes
        finally:
            processes.stop()


@contextlib.contextmanager
def haven_api() -> Iterator[Running]:
    """Haven's API server, all checks on."""
    with _processes() as processes:
        token, port = secrets.token_hex(16), _free_port()
        tokens = processes.folder / "tokens.csv"
        tokens.write_text(f'{token},bench,1,"system:masters"\n')
        command = [sys.executable, "-m", "haven.apiserver", "--data", str(processes.folder), "--port", str(port)]
        command += ["--token-file", str(tokens), "--log-level", "warning"]
        yield _started(processes, "haven", command, port, token)


@contextlib.contextmanager
def floor() -> Iterator[Running]:
    """The floor (floor.py)."""
    with _processes() as processes:
        port = _free_port()
        command = [sys.executable, "-m", "bench.floor", str(processes.folder), str(port)]
        yield _started(processes, "floor", command, port, "none")


def _started(processes: _Processes, name: str, command: list[str], port: int, token: str) -> Running:
    processes.began = time.monotonic()
    processes.start(name, command)
    return _api_running(processes, name, port, token)


def _api_running(processes: _Processes, name: str, port: int, token: str) -> Running:
    def ready() -> tuple[Target, float]:
        target = Target(name, "127.0.0.1", port, token, processes.pids)
        return processes.wait_ready(lambda: target)

    def again() -> Target:
        processes.start_last_again()
        return ready()[0]

    return Running(*ready(), again=again)


@contextlib.contextmanager
def haven_cluster() -> Iterator[Running]:
    """Haven's whole control plane: `haven server`, first on an empty folder, then again on what that left."""
    with _processes() as processes:
        folder, port = processes.folder, _free_port()
        (folder / "settings.json").write_text(json.dumps({"api_port": port, "node_name": "bench"}))
        command = [sys.executable, "-m", "haven.cli.main", "server", "--log-level", "warning"]
        seconds, working = [], 0.0
        for _ in range(2):
            processes.stop()
            processes.began = time.monotonic()
            processes.start("haven", command, HAVEN_DATA_DIR=str(folder))
            target, took = processes.wait_ready(lambda: _by_certificate(folder, port, processes.pids))
            seconds.append(took)
            working = working or processes.wait_working(target)
        admin = Target("haven", "127.0.0.1", port, _make_token(target), processes.pids)
        yield Running(admin, seconds[0], seconds[1], working)


def _by_certificate(folder: Path, port: int, pids: tuple[tuple[str, int], ...]) -> Target | None:
    """Return the server as its administrator sees it; None as long as there are no certificates."""
    import base64

    import yaml

    try:
        user = yaml.safe_load((folder / "pki" / "admin.conf").read_text())["users"][0]["user"]
    except FileNotFoundError:
        return None
    tls: ssl.SSLContext = trusting()
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        pair.flush()
        tls.load_cert_chain(pair.name)
    return Target("haven", "127.0.0.1", port, pids=pids, tls=tls)


def _make_token(target: Target) -> str:
    """Return a token that may do everything: wrk has no certificate to show."""
    accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
    binding = {
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "bench", "namespace": "kube-system"}],
    }
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    for path, body in ((accounts, {"metadata": {"name": "bench"}}), (bindings, binding)):
        status, answer = target.request("POST", path, body)
        assert status in (201, 409), answer
    status, answer = target.request("POST", f"{accounts}/bench/token", {"spec": {"expirationSeconds": 7200}})
    assert status == 201, answer
    return str(json.loads(answer)["status"]["token"])


@contextlib.contextmanager
def upstream_api(binaries: Path) -> Iterator[Running]:
    """kube-apiserver and etcd."""
    with _processes() as processes:
        yield _api_running(processes, "upstream", *_start_upstream(processes, binaries))


@contextlib.contextmanager
def upstream_cluster(binaries: Path) -> Iterator[Running]:
    """kube-apiserver, etcd, kube-controller-manager and kube-scheduler."""
    with _processes() as processes:
        port, token = _start_upstream(processes, binaries)
        config = processes.folder / "kubeconfig"
        config.write_text(_KUBECONFIG.format(url=f"https://127.0.0.1:{port}", token=token))
        manager = [_find(binaries, "kube-controller-manager"), "--kubeconfig", str(config), "--secure-port=0"]
        manager += [f"--service-account-private-key-file={processes.folder / 'sa.key'}"]
        manager += ["--use-service-account-credentials", "--leader-elect=false"]
        processes.start("kube-controller-manager", manager)
        scheduler = [_find(binaries, "kube-scheduler"), "--kubeconfig", str(config), "--secure-port=0"]
        processes.start("kube-scheduler", [*scheduler, "--leader-elect=false"])
        running = _api_running(processes, "upstream", port, token)
        running.working_seconds = processes.wait_working(running.target)
        yield running


_KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: a, cluster: {{server: "{url}", insecure-skip-tls-verify: true}}}}]
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
users: [{{name: a, user: {{token: {token}}}}}]
current-context: a
"""


def _start_upstream(processes: _Processes, binaries: Path) -> tuple[int, str]:
    folder = processes.folder
    _write_token_key(folder)
    port, client_port, peer_port = _free_port(), _free_port(), _free_port()
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f'{token},bench,1,"system:masters"\n')
    peer, client = f"http://127.0.0.1:{peer_port}", f"http://127.0.0.1:{client_port}"
    etcd = [_find(binaries, "etcd"), "--data-dir", str(folder / "etcd"), "--listen-client-urls", client]
    etcd += ["--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    etcd += ["--initial-cluster", f"default={peer}"]
    server = [_find(binaries, "kube-apiserver"), "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"]
    server += [f"--secure-port={port}", f"--etcd-servers={client}", f"--cert-dir={folder / 'certs'}"]
    server += ["--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={folder}/sa.pub"]
    server += [f"--service-account-signing-key-file={folder}/sa.key", f"--token-auth-file={folder}/tokens.csv"]
    server += ["--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.96.0.0/16"]
    server += ["--enable-admission-plugins=NodeRestriction"]
    processes.began = time.monotonic()
    processes.start("etcd", etcd)
    processes.start("kube-apiserver", server)
    return port, token


def _find(binaries: Path, name: str) -> str:
    """Return a program of the folder given; etcd may be the distribution's."""
    import shutil

    found = binaries / name
    if found.exists():
        return str(found)
    installed = shutil.which(name)
    if installed is None:
        raise RuntimeError(f"{name} is neither in {binaries} nor on the PATH")
    return installed


def _write_token_key(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    (folder / "sa.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "sa.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))


@contextlib.contextmanager
def elsewhere(url: str, token: str) -> Iterator[Running]:
    """A server that somebody else runs: its processes are not ours to look at."""
    host, _, port = url.removeprefix("https://").rstrip("/").partition(":")
    yield Running(Target(url, host, int(port or 443), token), 0.0)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
