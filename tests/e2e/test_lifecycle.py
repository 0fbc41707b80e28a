"""A user's whole way on a real machine: up with the example, kubectl, down, up again, reset; the host is as before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
HAVEN = Path(sys.executable).parent / "haven"


def have(*programs: str) -> bool:
    return all(shutil.which(program) or Path(program).exists() for program in programs)


needs_node = pytest.mark.skipif(
    os.geteuid() != 0 or not have("containerd", "nft", "/usr/lib/cni/bridge", "/bin/busybox"),
    reason="needs root and the packages that tools/install-host.sh installs",
)


def snapshot() -> dict[str, list[str]]:
    """What a cluster could leave behind on a host."""

    def lines(*command: str) -> list[str]:
        return sorted(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())

    def names(folder: str) -> list[str]:
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    return {
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "links": sorted(name for name in os.listdir("/sys/class/net")),
        "netns": names("/run/netns"),
        "tables": lines("nft", "list", "tables"),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/kubepods*")),
        "folders": [*names("/var/lib"), *names("/var/log"), *names("/run")],
        "forwarding": [Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()],
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    data = tmp_path_factory.mktemp("haven")
    (data / "settings.json").write_text(json.dumps({"api_port": 26443, "kubelet_port": 26250}))
    environment = {**os.environ, "HAVEN_DATA_DIR": str(data)}
    yield environment
    subprocess.run([HAVEN, "reset", "--yes"], env=environment, check=False, capture_output=True)


def haven(environment: dict[str, str], *arguments: str) -> str:
    result = subprocess.run(
        [HAVEN, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    logs = ""
    if result.returncode != 0:
        for name in ("server", "agent"):
            path = Path(environment["HAVEN_DATA_DIR"]) / "log" / f"{name}.log"
            logs += f"\n--- {name}\n{path.read_text()[-3000:]}" if path.exists() else ""
    assert result.returncode == 0, result.stdout + result.stderr + logs
    return result.stdout


@needs_node
def test_up_example_down_up_reset(cluster: dict[str, str]) -> None:
    haven(cluster, "reset", "--yes")
    before = snapshot()
    Path(cluster["HAVEN_DATA_DIR"]).mkdir(exist_ok=True)
    settings = Path(cluster["HAVEN_DATA_DIR"]) / "settings.json"
    settings.write_text(json.dumps({"api_port": 26443, "kubelet_port": 26250}))

    first = haven(cluster, "up", "--example")
    again = haven(cluster, "up", "--example")  # Idempotent.
    status = json.loads(haven(cluster, "status", "--output", "json"))
    haven(cluster, "down")
    stopped = subprocess.run([HAVEN, "status"], env=cluster, capture_output=True, text=True, check=False)
    back = haven(cluster, "up", "--example")
    haven(cluster, "reset", "--yes")

    for output in (first, again, back):
        assert output.count("<h1>Hello from Haven</h1>") == 3, output
    assert status["well"]
    assert stopped.returncode == 1
    assert snapshot() == before


@needs_node
def test_a_busy_port_is_named_with_its_fix(cluster: dict[str, str]) -> None:
    import socket

    Path(cluster["HAVEN_DATA_DIR"]).mkdir(exist_ok=True)
    (Path(cluster["HAVEN_DATA_DIR"]) / "settings.json").write_text(json.dumps({"api_port": 26543}))
    with socket.create_server(("127.0.0.1", 26543)):
        result = subprocess.run([HAVEN, "up"], env=cluster, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert "127.0.0.1:26543 is in use" in result.stderr
    assert "ss -ltnp" in result.stderr
    assert not (Path(cluster["HAVEN_DATA_DIR"]) / "run" / "supervisor.pid").exists()


def test_help_answers_without_loading_the_rest() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "haven.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "haven.apiserver" not in result.stderr
    assert "rich" not in result.stderr
    assert "Start a cluster on this machine." in result.stdout
