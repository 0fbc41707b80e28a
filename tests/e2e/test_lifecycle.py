"""A user's whole way on a real machine: up with the example, down, up again, moved, reset; the machine is as before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.e2e.machine import Cluster, Machine, a_machine, wait_until

from haven.cli.places import Places

pytestmark = pytest.mark.e2e
SNAPSHOT = """
cut -d' ' -f5 /proc/self/mountinfo | sort
ip -o link | cut -d: -f2 | sort
ip -o addr show dev lo
ls -A /run/netns 2>/dev/null || true
nft list tables
iptables -t nat -S 2>/dev/null || true
find /sys/fs/cgroup -maxdepth 2 -name "$1" | sort
ls -A /run | grep -vx mount  # Of the mount program.
ls -A /var/lib/cni 2>/dev/null || true
cat /proc/sys/net/ipv4/ip_forward
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with a_machine() as machine:
        machine.sh("iptables -t nat -L >/dev/null 2>&1 || true")  # Listing makes the tables that iptables works with.
        yield machine


@pytest.fixture
def cluster(machine: Machine) -> Iterator[Cluster]:
    cluster = machine.cluster("life")
    yield cluster
    cluster.try_haven("reset", "--yes")


def snapshot(cluster: Cluster) -> str:
    """Return what a cluster may change on its machine; cgroups are all machines' of this kernel, hence the name."""
    return cluster.machine.run("sh", "-ec", SNAPSHOT, "sh", Places(data=cluster.data).cgroup).stdout


def test_up_example_down_up_reset(cluster: Cluster) -> None:
    before = snapshot(cluster)

    first = cluster.haven("up", "--example")
    again = cluster.haven("up", "--example")  # Idempotent.
    status = cluster.status()
    cluster.haven("down")
    stopped = cluster.try_haven("status")
    active = cluster.traces()
    back = cluster.haven("up", "--example")
    cluster.haven("reset", "--yes")

    for output in (first, again, back):
        assert output.count("<h1>Hello from Haven</h1>") == 3, output
    assert status["well"]
    assert stopped.returncode == 1
    # What is kept is quiet: cgroups and mounted volumes of Pods that come back.
    assert [item for item in active if "/" not in item and "kubepods" not in item] == []
    assert snapshot(cluster) == before
    assert not cluster.data.exists()


def test_a_cluster_moves_to_other_ports_with_its_pods_running(cluster: Cluster) -> None:
    cluster.haven("up", "--example")
    pods = cluster.pods()

    cluster.haven("up", "--api-port", "26444", "--kubelet-port", "26250")
    status = cluster.status()
    kubeconfig = (cluster.data / "pki" / "admin.conf").read_text()
    refused = cluster.refusal("up", "--pod-cidr", "10.9.0.0/24")

    assert status["well"]
    assert [facts["starts"] for facts in status["components"].values()] == [1, 1], "a part had to be started twice"
    assert "server: https://127.0.0.1:26444" in kubeconfig
    wait_until(lambda: cluster.pods() == pods, "the same containers run", cluster.pods)
    assert "this cluster was made with other values of --pod-cidr" in refused
    cluster.haven("reset", "--yes")
    assert json.dumps(cluster.traces()) == "[]"


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
