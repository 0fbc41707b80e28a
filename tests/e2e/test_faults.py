"""What a machine can lack, and what fails under a running cluster: one sentence with the fix, nothing half-made."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.machine import Cluster, Machine, a_machine

from haven.clock import SystemClock
from haven.cluster.pki import PkiSettings, ensure
from haven.kubelet.cgroups import CgroupMode, cgroup_mode
from haven.kubelet.containerd import Containerd, ContainerdSettings

pytestmark = pytest.mark.e2e
LISTEN = (
    "import socket, sys\n"
    "kind = socket.SOCK_DGRAM if sys.argv[3] == 'udp' else socket.SOCK_STREAM\n"
    "s = socket.socket(socket.AF_INET, kind); s.bind((sys.argv[1], int(sys.argv[2])))\n"
    "kind == socket.SOCK_STREAM and s.listen()\n"
    "print('listening', flush=True); sys.stdin.read()"
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with a_machine() as machine:
        yield machine


@pytest.fixture
def cluster(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that never was; nothing of it may be left."""
    cluster = machine.cluster(f"c{zlib.crc32(request.node.name.encode())}")
    yield cluster
    traces = cluster.traces()
    if traces:
        cluster.try_haven("reset", "--yes")
    assert traces == []
    shutil.rmtree(cluster.data, ignore_errors=True)


# Before anything is made.


@pytest.mark.parametrize(
    ("hidden", "named"),
    [
        ("/usr/bin/containerd", "apt-get install -y containerd"),
        ("/usr/lib/cni/bridge", "apt-get install -y containernetworking-plugins"),
    ],
)
def test_a_missing_program_is_named_with_its_package(cluster: Cluster, hidden: str, named: str) -> None:
    path = Path(hidden).resolve()
    if not path.exists():
        pytest.skip(f"{hidden} is elsewhere here")
    # A file that nobody may execute is as good as none; for plugins, an empty directory.
    what = f"mount --bind /dev/null {path}" if "cni" not in hidden else f"mount -t tmpfs none {path.parent}"
    cluster.machine.sh(what)
    try:
        sentence = cluster.refusal("up")
    finally:
        cluster.machine.sh(f"umount {path if 'cni' not in hidden else path.parent}")

    assert named in sentence
    assert not cluster.data.exists()


@pytest.mark.parametrize(
    ("address", "port", "protocol", "said"),
    [
        ("127.0.0.1", 6443, "tcp", "where the API server listens, is in use (mend it: stop what listens there"),
        ("0.0.0.0", 10250, "tcp", "haven up --kubelet-port"),
        ("0.0.0.0", 53, "udp", "where the DNS listens, is in use (mend it: stop what listens there (ss -lunp"),
    ],
)
def test_a_busy_port_is_named_with_who_needs_it(
    cluster: Cluster, address: str, port: int, protocol: str, said: str
) -> None:
    with cluster.machine.spawn(
        sys.executable, "-c", LISTEN, address, str(port), protocol, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        sentence = cluster.refusal("up")
        listener.communicate("")

    assert said in sentence
    assert not cluster.data.exists()


@pytest.mark.skipif(cgroup_mode() is CgroupMode.V2, reason="version 2 has one mount, which others here need as it is")
def test_read_only_or_missing_cgroups_are_named(cluster: Cluster) -> None:
    memory = Path("/sys/fs/cgroup/memory").resolve()
    cluster.machine.sh(f"mount --bind {memory} {memory} && mount -o remount,bind,ro {memory}")
    try:
        read_only = cluster.refusal("up")
        cluster.machine.sh(f"mount -t tmpfs none {memory}")
        missing = cluster.refusal("up")
    finally:
        cluster.machine.sh(f"umount {memory}; umount {memory}")

    assert "read-only" in read_only
    assert "remount,rw" in read_only
    assert "v1 without memory" in missing


def test_too_small_a_disk_is_named(cluster: Cluster) -> None:
    cluster.data.mkdir()
    cluster.machine.sh(f"mount -t tmpfs -o size=20M none {cluster.data}")
    try:
        sentence = cluster.refusal("up")
        left = cluster.machine.sh(f"ls -A {cluster.data}")
    finally:
        cluster.machine.sh(f"umount {cluster.data}")

    assert f"free at least 1 GiB below {cluster.data}" in sentence
    assert left == ""


def test_somebody_elses_directory_is_neither_used_nor_removed(cluster: Cluster) -> None:
    cluster.data.mkdir()
    (cluster.data / "thesis.tex").write_text("years of work")

    up, reset = cluster.refusal("up"), cluster.refusal("reset", "--yes")

    assert "holds other files (thesis.tex)" in up
    assert "holds no cluster" in reset
    assert (cluster.data / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_data_directorys_place_is_named(cluster: Cluster) -> None:
    cluster.data.write_text("")

    assert "is a file: name a directory with HAVEN_DATA_DIR" in cluster.refusal("up")
    cluster.data.unlink()


def test_damaged_settings_are_named_and_can_be_reset(cluster: Cluster) -> None:
    cluster.data.mkdir()
    (cluster.data / "settings.json").write_text('{"api_port": "many"}')
    wrong = cluster.refusal("up")
    (cluster.data / "settings.json").write_text('{"api_por')
    torn = cluster.refusal("up")
    cluster.haven("reset", "--yes")

    assert "settings.json is damaged (api_port is no number): mend it" in wrong
    assert "settings.json is damaged" in torn
    assert not cluster.data.exists()


# While it starts: what was made is taken down again.


def test_a_containerd_that_does_not_come_up_ends_the_start_with_its_reason(cluster: Cluster) -> None:
    fake = cluster.machine.scratch / "containerd"
    fake.write_text('#!/bin/sh\necho \'time="now" level=fatal msg="no bolts" error="rust"\'\nexit 1\n')
    fake.chmod(0o755)
    real = Path(shutil.which("containerd") or "").resolve()
    cluster.machine.sh(f"mount --bind {fake} {real}")
    try:
        sentence = cluster.refusal("up")
    finally:
        cluster.machine.sh(f"umount {real}")

    assert "containerd does not come up: no bolts: rust" in sentence
    assert {path.name for path in cluster.data.iterdir()} == {"log"}


def test_a_damaged_store_is_named_and_stays_as_it_is(cluster: Cluster) -> None:
    cluster.data.mkdir()
    (cluster.data / "settings.json").write_text("{}")
    (cluster.data / "store.db").write_bytes(b"not a database, certainly " * 1000)

    sentence = cluster.refusal("up")

    assert "store.db" in sentence
    assert (cluster.data / "store.db").read_bytes().startswith(b"not a database")
    assert cluster.traces() == []


def test_another_programs_database_is_named(cluster: Cluster) -> None:
    cluster.data.mkdir()
    (cluster.data / "settings.json").write_text("{}")
    connection = sqlite3.connect(cluster.data / "store.db")
    connection.execute("CREATE TABLE recipes(name TEXT)")
    connection.commit()
    connection.close()

    assert "no Haven store" in cluster.refusal("up")


def test_a_daemon_in_a_container_is_nobody_elses(machine: Machine, tmp_path: Path) -> None:
    containerd = Containerd(ContainerdSettings(root=tmp_path / "root", state=tmp_path / "state"), SystemClock())
    script = "import sys; print('started', flush=True); sys.stdin.read()"
    command = (sys.executable, "-c", script, "--config", str(containerd.settings.config_path))
    # As one word: nsenter, which stays outside, must not look like the daemon.
    inside = ("sh", "-c", f"exec {shlex.join(command)}")
    with machine.spawn(*inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "started\n"
        visible = machine.pids(*command[1:])
        found = containerd.pid
        daemon.communicate("")

    assert visible
    assert found == 0


def test_an_authority_that_ended_is_named_and_can_be_renewed(cluster: Cluster) -> None:
    (cluster.data / "pki").mkdir(parents=True)
    (cluster.data / "settings.json").write_text("{}")
    (cluster.data / "store.db").touch()  # It is no first start.
    settings = PkiSettings(directory=cluster.data / "pki", authority_life=timedelta(days=1))
    ensure(settings, time.time() - 5 * 86400)

    ended = cluster.refusal("up")
    cluster.haven("up", "--renew-authority")
    cluster.haven("reset", "--yes")

    assert "ca.crt ended on " in ended
    assert "haven up --renew-authority signs it anew" in ended


def test_a_damaged_authority_is_named(cluster: Cluster) -> None:
    (cluster.data / "pki").mkdir(parents=True)
    (cluster.data / "settings.json").write_text("{}")
    (cluster.data / "store.db").touch()
    ensure(PkiSettings(directory=cluster.data / "pki"), time.time())
    (cluster.data / "pki" / "ca.key").write_text("rubbish")

    assert "ca.crt or its key is damaged: restore both from a backup" in cluster.refusal("up")


# Under a running cluster.


def reasons(cluster: Cluster) -> set[str]:
    events = cluster.get("/api/v1/namespaces/default/events") or {"items": []}
    return {event["reason"] for event in events["items"]}


def taints(cluster: Cluster) -> set[str]:
    nodes = cluster.get("/api/v1/nodes") or {"items": []}
    return {taint["key"] for node in nodes["items"] for taint in node["spec"].get("taints", [])}


def test_a_disk_that_fills_up_is_reported_and_harms_nothing(cluster: Cluster) -> None:
    machine, data = cluster.machine, cluster.data
    data.mkdir()
    machine.sh(f"mount -t tmpfs -o size=1200M none {data}")
    # The disk shrinks to what is used, instead of being filled: it may be the memory of a small machine.
    cluster.haven("up", "--example")
    used = int(machine.sh(f"df --output=used -k {data} | tail -1"))
    pods = cluster.pods()

    machine.sh(f"mount -o remount,size={used * 1024 // 1000 + 900}k {data}")  # Some room, but less than a tenth.
    cluster.wait_until(lambda: cluster.condition("DiskPressure") == "True", "DiskPressure is reported")
    cluster.wait_until(
        lambda: {"NodeHasDiskPressure", "EvictionThresholdMet"} <= reasons(cluster), "both events are there"
    )
    cluster.wait_until(lambda: "node.kubernetes.io/disk-pressure" in taints(cluster), "the node is tainted")
    note: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "note"},
        "data": {"text": "x" * 900_000},
    }
    for number in range(30):  # The store's log has some megabytes of room of its own; the node may free some, too.
        machine.sh(f"head -c 100M /dev/zero >> {data}/filler || true")  # Now there is none at all.
        note["metadata"] = {"name": f"note-{number}"}
        refused, complaint = cluster.request("POST", "/api/v1/namespaces/default/configmaps", note)
        if refused != 201:
            break
    alive = cluster.status()
    machine.sh(f"rm {data}/filler && mount -o remount,size=1200M {data}")
    cluster.wait_well("again")
    accepted, _ = cluster.request("POST", "/api/v1/namespaces/default/configmaps", note)
    starts = {name: facts["starts"] for name, facts in cluster.status()["components"].items()}
    again = cluster.haven("reset", "--yes")
    left = machine.sh(f"ls -A {data}")
    machine.sh(f"umount {data}")

    assert len(pods) == 3
    assert alive["running"]
    assert (refused, accepted) == (500, 201)
    assert "free disk space" in complaint["message"]
    assert starts == {"server": 1, "agent": 1}, "a full disk ended a process"
    assert left == "", again


def test_reset_ends_pods_by_force_where_containerd_is_gone(cluster: Cluster) -> None:
    cluster.haven("up", "--example")
    real = Path(shutil.which("containerd") or "").resolve()
    cluster.machine.sh(f"mount --bind /dev/null {real}")  # The agent cannot start it again.
    try:
        for pid in cluster.machine.pids("containerd", "--config", str(cluster.data)):
            os.kill(pid, signal.SIGKILL)
        cluster.haven("reset", "--yes")
    finally:
        cluster.machine.sh(f"umount {real}")

    assert not cluster.data.exists()


def test_two_clusters_live_side_by_side(machine: Machine) -> None:
    first, second = machine.cluster("first"), machine.cluster("second", api_port=7443, kubelet_port=11250)

    first.haven("up", "--example")
    second.haven("up", "--example")
    chosen = [json.loads((cluster.data / "settings.json").read_text()) for cluster in (first, second)]
    second.haven("reset", "--yes")
    after = first.status()
    page = first.haven("up", "--example")
    third = machine.cluster("third", pod_cidr="10.244.0.0/24", api_port=8443, kubelet_port=12250)
    refused = third.refusal("up")
    first.haven("reset", "--yes")

    assert chosen[0]["service_cidr"] == "10.96.0.0/16"
    assert chosen[1]["service_cidr"] != "10.96.0.0/16"
    assert chosen[1]["pod_cidr"] != chosen[0]["pod_cidr"]
    assert after["well"]
    assert page.count("<h1>Hello from Haven</h1>") == 3
    assert "10.244.0.0/24 is used by another Haven cluster" in refused
    assert first.traces() == []
    assert second.traces() == []
