"""A host whose cgroup v1 hierarchies have a v2 one beside them, and whose mounts are private: containerd gets a mount
namespace of its own, and the agent's volumes must appear there all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.kubelets import a_container, a_pod, kubelet_on, wait_until
from tests.e2e.node import can_run_nodes, containerd_node, namespaces, scratch_directory

from haven.api.core.v1 import Secret, SecretVolumeSource, Volume, VolumeMount
from haven.apimachinery import meta
from haven.kubelet.cgroups import CgroupMode, cgroup_mode

pytestmark = pytest.mark.e2e


@pytest.fixture
def node_directory() -> Iterator[Path]:
    if reason := can_run_nodes():
        pytest.skip(reason)
    if cgroup_mode() is not CgroupMode.HYBRID:
        pytest.skip("needs a hybrid cgroup hierarchy")
    with namespaces(as_host=True), scratch_directory("hybrid") as directory:
        yield directory


async def test_volumes_appear_and_pods_survive_the_daemon_in_its_own_mount_namespace(node_directory: Path) -> None:
    async with containerd_node(node_directory) as node, kubelet_on(node, node_directory) as bench:
        ours = os.readlink("/proc/thread-self/ns/mnt")
        assert os.readlink(f"/proc/{node.containerd.pid}/ns/mnt") != ours
        bench.api.put(Secret(metadata=meta.ObjectMeta(name="key", namespace="default"), data={"k": b"hush"}))
        bench.api.put(
            a_pod(
                "hybrid",
                a_container("main", volume_mounts=[VolumeMount(name="key", mount_path="/key")]),
                volumes=[Volume(name="key", secret=SecretVolumeSource(secret_name="key"))],
            )
        )
        await bench.wait_running("hybrid")
        assert await bench.exec("hybrid", "cat", "/key/k") == "hush"

        os.kill(node.containerd.pid, signal.SIGKILL)
        await wait_until(lambda: node.containerd.pid == 0)
        await node.containerd.start()

        assert await bench.exec("hybrid", "cat", "/key/k") == "hush"
        bench.api.delete_pod("hybrid", grace_seconds=1)
        await bench.wait_gone("hybrid")
    points = [line.split()[4] for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    assert not [point for point in points if point.startswith(str(node_directory))]
