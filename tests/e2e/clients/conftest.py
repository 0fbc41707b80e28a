"""One cluster with a node for all tests of real clients, on a machine of its own, and the clients themselves."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.machine import Cluster as MachineCluster
from tests.e2e.machine import Machine, a_machine

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `kubectl` and `helm` are of one release."""

    haven: MachineCluster
    clients: Path
    release: str = "v1.36"

    def at(self, release: str) -> Cluster:
        return replace(self, release=release)

    @property
    def machine(self) -> Machine:
        return self.haven.machine

    @property
    def kubeconfig(self) -> Path:
        return self.haven.kubeconfig

    @property
    def environment(self) -> dict[str, str]:
        return {**self.haven.environment, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)}

    def run(
        self, program: str, *arguments: str, stdin: str | None = None, ok: bool = True
    ) -> subprocess.CompletedProcess[str]:
        path = self.clients / self.release / program
        result = self.machine.run(path, *arguments, ok=False, env=self.environment, input=stdin)
        assert not ok or result.returncode == 0, f"{program} {arguments}: {result.stdout}{result.stderr}{self.told()}"
        return result

    def told(self) -> str:
        """Return what there is, for who reads of a failure."""
        kubectl = self.clients / self.release / "kubectl"
        found = [
            self.machine.run(kubectl, "get", kind, "--all-namespaces", *more, ok=False, env=self.environment).stdout
            for kind, *more in (("pods", "--output=wide"), ("events", "--sort-by=.metadata.creationTimestamp"))
        ]
        return "\n--- ".join(["", *found, self.haven.logs()])

    def spawn(self, program: str | Path, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a program beside the cluster."""
        return self.machine.spawn(program, *arguments, env=self.environment, **options)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.run("kubectl", *arguments, stdin=stdin).stdout

    def helm(self, *arguments: str) -> str:
        return self.run("helm", *arguments).stdout


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with a_machine() as machine:
        clients = Path(sys.prefix) / "clients"
        subprocess.run([sys.executable, ROOT / "tools" / "fetch_clients.py", clients], check=True)
        haven = machine.cluster("clients")
        haven.haven("up")
        haven.haven("image", "build-example")
        yield Cluster(haven, clients)
        haven.try_haven("reset", "--yes")


@pytest.fixture(params=["v1.36", "v1.32"])
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Cluster:
    """The cluster, seen through one release's clients."""
    return cluster.at(request.param)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t-{zlib.crc32(request.node.nodeid.encode())}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "-n", name, "--for=create", "serviceaccount/default", "--timeout=240s")  # Pods need it.
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
