"""One cluster with a node for all tests of real clients, and the clients themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HAVEN = Path(sys.executable).parent / "haven"


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `kubectl` and `helm` are of one release."""

    kubeconfig: Path
    environment: dict[str, str]
    clients: Path
    release: str = "v1.36"

    def at(self, release: str) -> Cluster:
        return replace(self, release=release)

    def run(
        self, program: str, *arguments: str, stdin: str | None = None, ok: bool = True, seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [self.clients / self.release / program, *arguments],
            env={**self.environment, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert not ok or result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}"
        return result

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.run("kubectl", *arguments, stdin=stdin).stdout

    def helm(self, *arguments: str) -> str:
        return self.run("helm", *arguments).stdout


@pytest.fixture(scope="module")  # Not longer: other tests bring up clusters of their own on this host.
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0 or not shutil.which("containerd"):
        pytest.skip("needs root and the packages that tools/install-host.sh installs")
    clients = Path(sys.prefix) / "clients"
    subprocess.run([sys.executable, ROOT / "tools" / "fetch_clients.py", clients], check=True)
    data = tmp_path_factory.mktemp("haven-clients")
    (data / "settings.json").write_text(json.dumps({"api_port": 27443, "kubelet_port": 27250}))
    environment = {**os.environ, "HAVEN_DATA_DIR": str(data)}
    up = subprocess.run([HAVEN, "up"], env=environment, capture_output=True, text=True, check=False)
    try:
        assert up.returncode == 0, up.stderr
        subprocess.run([HAVEN, "image", "build-example"], env=environment, check=True, capture_output=True)
        yield Cluster(data / "pki" / "admin.conf", environment, clients)
    finally:
        subprocess.run([HAVEN, "reset", "--yes"], env=environment, check=False, capture_output=True)


@pytest.fixture(params=["v1.36", "v1.32"])
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Cluster:
    """The cluster, seen through one release's clients."""
    return cluster.at(request.param)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
