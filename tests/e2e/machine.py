"""A machine of a test's own: namespaces in which `haven up` finds a bare network, an empty /run, no cluster.

What runs in it ends with it (a process namespace), what it mounts is seen by nobody else, its network leads nowhere.

    @pytest.fixture(scope="module")
    def machine() -> Iterator[Machine]:
        with a_machine() as machine: yield machine
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.namespaces import enter_network
from tests.e2e.node import scratch_directory

__all__ = ["HAVEN", "Cluster", "Machine", "a_machine", "wait_until"]

HAVEN = Path(sys.executable).parent / "haven"
WAIT_SECONDS_MAX = 240.0  # A busy machine is no failure.
HAVE = ("containerd", "nft", "ip", "/usr/lib/cni/bridge", "/bin/busybox")
REQUEST = """
import json, sys
from haven.cli.api import Api
from haven.cli.settings import ClusterSettings
method, path = sys.argv[1:]
status, answer = Api(ClusterSettings.load()).request(method, path, json.load(sys.stdin))
print(json.dumps((status, json.loads(answer))))
"""
SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock
[ ! -d /var/lib/cni ] || mount -t tmpfs tmpfs /var/lib/cni
mount --make-rshared /
ip link set lo up
ip link add uplink type veth peer name nowhere
ip link set uplink up
ip link set nowhere up
ip addr add 192.0.2.10/24 dev uplink
ip route add default via 192.0.2.1
echo ready
while :; do sleep 1000 & wait; done
"""


def wait_until(condition: Callable[[], object], what: str, seen: Callable[[], object] = lambda: "") -> None:
    """Return once a condition is true; if it does not come true, fail with what is seen instead."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS_MAX:.0f} s: {what}; there is {seen()}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Machine:
    """The namespaces of one process, and a directory in memory."""

    pid: int
    scratch: Path

    def command(self, *command: str | Path) -> list[str]:
        """Return the command line that runs a command in here."""
        return [
            "nsenter",
            f"--target={self.pid}",
            "--mount",
            "--net",
            "--uts",
            "--ipc",
            "--pid",
            "--",
            *map(str, command),
        ]

    def run(self, *command: str | Path, ok: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in here and return what became of it."""
        options = {"timeout": 600, **options}
        result = subprocess.run(self.command(*command), capture_output=True, text=True, check=False, **options)
        assert not ok or result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result

    def sh(self, script: str) -> str:
        """Run a shell script in here and return what it prints."""
        return self.run("sh", "-ec", script).stdout

    def spawn(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command in here."""
        return subprocess.Popen(self.command(*command), text=True, **options)

    def cluster(self, name: str, **settings: object) -> Cluster:
        """Return a cluster that is not there yet, in a directory of its own."""
        cluster = Cluster(self, self.scratch / name)
        if settings:
            cluster.data.mkdir(parents=True, exist_ok=True)
            (cluster.data / "settings.json").write_text(json.dumps(settings))
        return cluster

    def pids(self, *words: str) -> list[int]:
        """Return the processes in here that have all words on their command line.

        A child with its parent's command line is left out: it is about to become another program.
        """
        found: dict[int, tuple[int, str]] = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().decode(errors="replace")
                if folder.name.isdigit() and all(word in line for word in words) and self._is_mine(int(folder.name)):
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    found[int(folder.name)] = (int(parent), line)
        return [pid for pid, (parent, line) in found.items() if found.get(parent, (0, ""))[1] != line]

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Let what this thread connects and listens to inside the block be the machine's network."""
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        enter_network(theirs)
        try:
            yield
        finally:
            enter_network(ours)
            os.close(ours)
            os.close(theirs)

    def _is_mine(self, pid: int) -> bool:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{self.pid}/ns/pid")


@dataclass(frozen=True)
class Cluster:
    """A cluster on a machine, through its command."""

    machine: Machine
    data: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        return self.data / "pki" / "admin.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "HAVEN_DATA_DIR": str(self.data), **self.more}

    def try_haven(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run haven and return what became of it."""
        return self.machine.run(HAVEN, *arguments, ok=False, env=self.environment)

    def haven(self, *arguments: str) -> str:
        """Run haven, which must succeed, and return what it prints."""
        result = self.try_haven(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr + self.logs()
        return result.stdout

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Return once a condition is true; otherwise fail with the cluster's status and logs."""
        wait_until(condition, what, lambda: f"{self.try_haven('status', '--output', 'json').stdout}{self.logs()}")

    def wait_well(self, when: str) -> None:
        """Return once everything of it is well."""
        self.wait_until(lambda: self.status()["well"], f"all is well {when}")

    def logs(self) -> str:
        texts = ""
        for name in ("supervisor", "server", "agent"):
            path = self.data / "log" / f"{name}.log"
            texts += f"\n--- {name}\n{path.read_text()[-3000:]}" if path.exists() else ""
        return texts

    def refusal(self, *arguments: str) -> str:
        """Run haven, which must fail with one sentence, and return that."""
        result = self.try_haven(*arguments)
        assert result.returncode == 1, result.stdout + result.stderr
        assert "Traceback" not in result.stderr, result.stderr
        told = [line for line in result.stderr.splitlines() if line.startswith("haven: ")]
        assert len(told) == 1, result.stderr
        return told[0]

    def status(self) -> Any:
        result = self.try_haven("status", "--output", "json")
        assert result.stdout.startswith("{"), result.stdout + result.stderr
        return json.loads(result.stdout)

    def get(self, path: str) -> Any:
        """Return an object or a list of the API; None if it does not answer or has none."""
        status, body = self.request("GET", path)
        return body if status == 200 else None

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return (status, body) of a request as the admin; status 0 if nobody answers."""
        result = self.machine.run(
            sys.executable, "-c", REQUEST, method, path, ok=False, env=self.environment, input=json.dumps(body)
        )
        return tuple(json.loads(result.stdout)) if result.returncode == 0 else (0, None)

    def pods(self) -> dict[str, tuple[str, int, str]]:
        """Return the running Pods of the example: uid -> (container, restarts, node's word for it)."""
        found = self.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dhello") or {"items": []}
        result = {}
        for pod in found["items"]:
            for status in pod["status"].get("containerStatuses", []):
                result[pod["metadata"]["uid"]] = (
                    status.get("containerID", ""), status["restartCount"], next(iter(status.get("state", {})), ""),
                )  # fmt: skip
        return result

    def condition(self, kind: str) -> str:
        """Return the status of a condition of the only node."""
        nodes = self.get("/api/v1/nodes") or {"items": []}
        for node in nodes["items"]:
            for condition in node["status"].get("conditions", []):
                if condition["type"] == kind:
                    return str(condition["status"])
        return ""

    def traces(self) -> list[str]:
        """Return what of this cluster is on the machine besides the files of its directory."""
        from haven.cli.places import Places

        places = Places(data=self.data, run=self.data / "run")
        found = [f"process {pid}" for pid in self.machine.pids(str(self.data))]
        found += [f"process {pid}" for pid in self.machine.pids("haven.cli.supervisor")]
        names = (places.bridge, places.nft_table, places.cgroup, places.address_label)
        text = self.machine.sh(
            "ip -o link; ip -o addr; nft list tables; find /sys/fs/cgroup -maxdepth 2 -name 'kubepods*'; "
            f"grep -o '{self.data}/[^ ]*' /proc/mounts || true"
        )
        found += [name for name in names if name in text]
        return found + [line for line in text.splitlines() if line.startswith(f"{self.data}/")]


@contextlib.contextmanager
def a_machine() -> Iterator[Machine]:
    """Make the namespaces; whatever runs in them is killed afterwards."""
    missing = [item for item in HAVE if not (shutil.which(item) or Path(item).exists())]
    if os.geteuid() != 0 or missing:
        pytest.skip("needs root and the packages that tools/install-host.sh installs")
    with scratch_directory("machine", in_memory=True) as scratch, _namespaces(scratch) as first:
        yield Machine(first, scratch)


@contextlib.contextmanager
def _namespaces(scratch: Path) -> Iterator[int]:
    holder = subprocess.Popen(
        [
            "unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
            "--propagation=private", "sh", "-c", SETUP,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != "ready\n":
            pytest.fail(f"no machine could be made: {holder.stderr.read()}")
        (first,) = _children(holder.pid)
        try:
            yield first
        finally:
            holder.kill()
            wait_until(lambda: _is_gone(first), "the first process of the machine, and so all of them, ended")
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()
        _remove_cgroups(scratch)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _children(pid: int) -> Sequence[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _remove_cgroups(scratch: Path) -> None:
    """A test that failed may leave cgroups, which no namespace takes away with it."""
    from haven.cli.places import Places

    root = Path("/sys/fs/cgroup")
    for data in scratch.iterdir():
        name = Places(data=data).cgroup
        for top in (root / name, *(path / name for path in root.iterdir() if path.is_dir())):
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
