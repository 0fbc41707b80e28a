"""Pods on a real containerd: they run, end, come back, and survive what happens to the node's programs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.e2e.kubelets import WAIT_SECONDS_MAX, Bench, a_container, a_pod, kubelet_on, sh, wait_until
from tests.e2e.node import can_run_nodes, containerd_node, namespaces, scratch_directory

from haven.api.core.v1 import Node

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def node_directory() -> Iterator[Path]:
    if reason := can_run_nodes():
        pytest.skip(reason)
    with namespaces(), scratch_directory("kubelet") as directory:
        yield directory


@pytest.fixture
async def bench(node_directory: Path) -> AsyncIterator[Bench]:
    async with containerd_node(node_directory) as node, kubelet_on(node, node_directory) as bench:
        yield bench


async def test_a_pod_runs_and_its_logs_appear(bench: Bench) -> None:
    bench.api.put(a_pod("hello", a_container("main", *sh("echo hello from $HOSTNAME; sleep 1000"))))

    pod = await bench.wait_running("hello")

    status = pod.status
    assert (status.phase, status.qos_class) == ("Running", "BestEffort")
    assert status.pod_ip.startswith("10.244.77.")
    assert status.host_ip == "192.0.2.10"
    assert status.container_statuses[0].container_id.startswith("containerd://")
    assert [item.type for item in status.conditions] == [
        "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"
    ]  # fmt: skip
    await wait_until(lambda: bench.log("hello") == "hello from hello", lambda: bench.log("hello"))
    await bench.wait_event("hello", "Started: Container started")


async def test_the_node_registers_and_reports_ready(bench: Bench) -> None:
    def is_ready() -> bool:
        node = bench.api.object(Node, "node-1")
        return bool(node) and any(item.type == "Ready" and item.status == "True" for item in node.status.conditions)

    await wait_until(is_ready)

    node = bench.api.object(Node, "node-1")
    conditions = {item.type: (item.status, item.reason) for item in node.status.conditions}
    assert conditions["Ready"] == ("True", "KubeletReady")
    assert node.status.capacity["pods"].value == 110
    assert node.status.node_info.container_runtime_version.startswith("containerd://1.")


async def test_a_pod_that_completes_succeeds_and_keeps_its_message(bench: Bench) -> None:
    bench.api.put(
        a_pod("job", a_container("main", *sh("echo -n all done > /dev/termination-log")), restart_policy="Never")
    )

    pod = await bench.wait_phase("job", "Succeeded")

    ended = pod.status.container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason, ended.message) == (0, "Completed", "all done")


async def test_a_crashing_container_is_restarted_and_then_held_back(bench: Bench) -> None:
    bench.api.put(a_pod("crash", a_container("main", *sh("exit 3"))))

    pod = await bench.wait(
        "crash",
        lambda found: bool(
            found.status.container_statuses
            and found.status.container_statuses[0].state.waiting
            and found.status.container_statuses[0].state.waiting.reason == "CrashLoopBackOff"
        ),
    )

    status = pod.status.container_statuses[0]
    assert pod.status.phase == "Running"
    assert status.restart_count == 1
    assert status.last_state.terminated is not None
    assert status.last_state.terminated.exit_code == 3
    assert status.state.waiting is not None
    assert status.state.waiting.message.startswith("back-off 10s restarting failed container=main pod=crash_default(")


async def test_init_containers_run_in_order_and_a_sidecar_stays(bench: Bench) -> None:
    bench.api.put(
        a_pod(
            "ordered",
            a_container("main", *sh("sleep 1000")),
            init_containers=[
                a_container("first", *sh("true")),
                a_container("side", *sh("sleep 1000"), restart_policy="Always"),
                a_container("last", *sh("true")),
            ],
        )
    )

    pod = await bench.wait_running("ordered")

    init = {status.name: status for status in pod.status.init_container_statuses}
    assert init["first"].state.terminated is not None
    assert init["side"].state.running is not None
    assert init["last"].state.terminated is not None
    assert init["first"].state.terminated.finished_at <= init["last"].state.terminated.started_at


async def test_a_deleted_pod_ends_gracefully_and_goes(bench: Bench) -> None:
    script = "trap 'echo got term; exit 0' TERM; while true; do sleep 0.1; done"
    bench.api.put(a_pod("polite", a_container("main", *sh(script)), termination_grace_period_seconds=10))
    await bench.wait_running("polite")
    uid = bench.pod("polite").metadata.uid
    path = bench.kubelet.log_path("default", "polite", "main")

    with path.open() as log:  # It can be read to its end though its name is gone.
        bench.api.delete_pod("polite")
        await bench.wait_gone("polite")
        text = log.read()

    def left() -> list[Path]:
        found = [bench.settings.root_directory / "pods" / uid]
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            if (hierarchy / "cgroup.procs").exists():
                found += hierarchy.glob(f"{bench.node.cgroup_parent.strip('/')}/kubepods/**/pod{uid}")
        return [item for item in found if item.exists()]

    assert "got term" in text
    await wait_until(lambda: not left(), left)
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while await bench.node.runtime.list_sandboxes():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_container_that_takes_too_much_memory_is_oom_killed(bench: Bench) -> None:
    from haven.api.core.v1 import ResourceRequirements
    from haven.apimachinery.quantity import Quantity

    limits = {"memory": Quantity.parse("20Mi"), "cpu": Quantity.parse("100m")}
    bench.api.put(
        a_pod(
            "greedy",
            a_container(
                "main", *sh("tail -c 100m /dev/zero"), resources=ResourceRequirements(limits=limits, requests=limits)
            ),
            restart_policy="Never",
        )
    )

    pod = await bench.wait_phase("greedy", "Failed")

    ended = pod.status.container_statuses[0].state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    assert pod.status.qos_class == "Guaranteed"


async def test_a_failing_liveness_probe_restarts_and_readiness_follows_its_probe(bench: Bench) -> None:
    from haven.api.core.v1 import ExecAction, HTTPGetAction, Probe

    live = Probe(
        exec=ExecAction(command=["test", "!", "-f", "/tmp/ill"]), period_seconds=1, failure_threshold=1,
        timeout_seconds=60, success_threshold=1,
    )  # fmt: skip
    ready = Probe(http_get=HTTPGetAction(path="/", port=8080), period_seconds=1, timeout_seconds=60,
                  failure_threshold=1, success_threshold=1)  # fmt: skip
    script = (
        "mkdir /tmp/www; echo ok > /tmp/www/index.html; until [ -f /tmp/go ]; do sleep 0.1; done; "
        "exec httpd -f -p 8080 -h /tmp/www"
    )
    bench.api.put(a_pod("probed", a_container("main", *sh(script), liveness_probe=live, readiness_probe=ready)))

    await bench.wait_event("probed", "Unhealthy: Readiness probe failed: Get")
    await bench.exec("probed", "touch", "/tmp/go")
    await bench.wait_running("probed")
    await bench.exec("probed", "touch", "/tmp/ill")
    pod = await bench.wait("probed", lambda found: found.status.container_statuses[0].restart_count >= 1)

    await bench.wait_event("probed", "Unhealthy: Liveness probe failed: ")
    await bench.wait_event("probed", "Killing: Container main failed liveness probe, will be restarted")
    assert pod.status.phase == "Running"


async def test_restarting_the_kubelet_leaves_pods_running(bench: Bench) -> None:
    bench.api.put(a_pod("steady"))
    before = await bench.wait_running("steady")

    await bench.stop_kubelet()
    await bench.start_kubelet()
    bench.api.put(a_pod("newcomer"))
    await bench.wait_running("newcomer")  # So it has looked at everything.

    after = bench.pod("steady")
    assert after is not None
    assert after.status == before.status
    assert after.status.container_statuses[0].restart_count == 0


async def test_killing_containerd_loses_no_pod(bench: Bench) -> None:
    bench.api.put(a_pod("survivor"))
    before = await bench.wait_running("survivor")
    watching = asyncio.get_running_loop().create_task(bench.node.containerd.run())

    os.kill(bench.node.containerd.pid, signal.SIGKILL)
    await wait_until(lambda: bench.node.containerd.restarts > 0)
    bench.api.put(a_pod("newcomer"))
    await bench.wait_running("newcomer")
    watching.cancel()

    after = bench.pod("survivor")
    assert after is not None
    assert after.status.container_statuses[0].container_id == before.status.container_statuses[0].container_id
    assert after.status.container_statuses[0].state.running is not None
    assert await bench.exec("survivor", "echo", "alive") == "alive\n"
