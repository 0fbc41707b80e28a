"""Every process of a node is killed while kubectl applies on: no Pod restarts, and no acknowledged write is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.e2e.machine import Cluster, a_machine

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
APPLY_ON = """
number=0
while [ ! -e "$1/stop" ]; do
  number=$((number + 1))
  printf '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"note-%d"},"data":{"number":"%d"}}' $number $number |
    "$2" --kubeconfig "$3" apply --request-timeout=20s -f - >/dev/null 2>&1 && echo $number
done
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with a_machine() as machine:
        cluster = machine.cluster("killed")
        yield cluster
        cluster.try_haven("reset", "--yes")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def was_started_again(cluster: Cluster, name: str) -> bool:
    return bool(cluster.status()["components"].get(name, {}).get("starts") == 2)


def test_kills_restart_no_pod_and_lose_no_write(cluster: Cluster) -> None:
    clients = Path(sys.prefix) / "clients"
    subprocess.run([sys.executable, ROOT / "tools" / "fetch_clients.py", clients], check=True)
    machine, data = cluster.machine, cluster.data
    cluster.haven("up", "--example")
    pods = cluster.pods()
    kubectl, kubeconfig = clients / "v1.36" / "kubectl", data / "pki" / "admin.conf"
    writer = machine.spawn("sh", "-c", APPLY_ON, "sh", data, kubectl, kubeconfig, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline())]

    for name in ("server", "agent"):
        before = machine.pids("haven.cli.main", name)
        assert len(before) == 1
        kill(before[0])
        cluster.wait_until(partial(was_started_again, cluster, name), f"the {name} is started again")
        cluster.wait_well(f"after the {name} was killed")

    before = machine.pids("containerd", "--config", str(data))
    for pid in before:
        kill(pid)
    cluster.wait_until(
        lambda: set(machine.pids("containerd", "--config", str(data))) - set(before), "containerd is back"
    )
    cluster.wait_well("after containerd was killed")

    programs = {name: machine.pids("haven.cli.main", name) for name in ("server", "agent")}
    kill(machine.pids("haven.cli.supervisor")[0])
    cluster.wait_until(lambda: cluster.status().get("supervised") is False, "the supervisor is gone")
    unsupervised = cluster.status()
    cluster.haven("up")
    adopted = cluster.status()
    kept = {name: machine.pids("haven.cli.main", name) for name in ("server", "agent")}
    kill(kept["server"][0])  # One that was taken over is watched as well.
    cluster.wait_until(
        lambda: machine.pids("haven.cli.main", "server") not in ([], kept["server"]), "the server is back"
    )
    cluster.wait_well("in the end")

    while len(acknowledged) < 20:  # There was load.
        acknowledged.append(int(writer.stdout.readline()))
    (data / "stop").touch()
    acknowledged += [int(line) for line in writer.stdout]
    writer.wait()
    writer.stdout.close()
    listed = cluster.get("/api/v1/namespaces/default/configmaps")["items"]
    found = {item["metadata"]["name"]: item["data"].get("number") for item in listed}

    assert len(pods) == 3
    cluster.wait_until(lambda: cluster.pods() == pods, "the same containers run, as often started as before")
    assert all(found.get(f"note-{number}") == str(number) for number in acknowledged), "an acknowledged write is lost"
    assert unsupervised["api"]
    assert not unsupervised["well"]
    assert adopted["well"]
    assert kept == programs, "the new supervisor did not take the programs over"


def test_programs_of_a_killed_supervisor_can_be_stopped(cluster: Cluster) -> None:
    cluster.haven("up")
    kill(cluster.machine.pids("haven.cli.supervisor")[0])

    cluster.haven("down")

    assert cluster.traces() == []
