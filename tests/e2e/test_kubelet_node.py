"""The node's part on a real containerd: static pods, restarts of everything, hooks, deadlines, eviction, odd pods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.e2e.kubelets import Bench, a_container, a_pod, kubelet_on, sh, wait_until
from tests.e2e.node import BUSYBOX, can_run_nodes, containerd_node, namespaces, scratch_directory

from haven.api.core.v1 import (
    ContainerRestartRule,
    ContainerRestartRuleOnExitCodes,
    EmptyDirVolumeSource,
    EphemeralContainer,
    ExecAction,
    Lifecycle,
    LifecycleHandler,
    Volume,
    VolumeMount,
)
from haven.apimachinery import serialization
from haven.apimachinery.quantity import Quantity
from haven.kubelet.eviction import EvictionSettings

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def node_directory() -> Iterator[Path]:
    if reason := can_run_nodes():
        pytest.skip(reason)
    with namespaces(), scratch_directory("kubelet") as directory:
        yield directory


@pytest.fixture
async def bench(node_directory: Path) -> AsyncIterator[Bench]:
    manifests = node_directory / "manifests"
    manifests.mkdir(exist_ok=True)
    async with (
        containerd_node(node_directory) as node,
        kubelet_on(
            node, node_directory, manifest_directory=manifests, eviction=EvictionSettings(hard=(), period_seconds=1)
        ) as bench,
    ):
        yield bench


async def test_a_manifest_becomes_a_pod_with_a_mirror_and_goes_with_its_file(bench: Bench) -> None:
    assert bench.settings is not None
    assert bench.settings.manifest_directory is not None
    path = bench.settings.manifest_directory / "web.yaml"
    path.write_text(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: static, namespace: default}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: main, image: "{BUSYBOX}", command: [sleep, "1000"]}}]
"""
    )

    mirror = await bench.wait_running("static-node-1")
    path.unlink()
    await bench.wait_gone("static-node-1")
    await wait_until(lambda: bench.kubelet.statistics().pods == 0, bench.kubelet.statistics)

    assert mirror.metadata.annotations["kubernetes.io/config.source"] == "file"
    assert mirror.metadata.owner_references[0].kind == "Node"


async def test_pods_go_on_while_the_api_server_is_away(bench: Bench) -> None:
    bench.api.put(a_pod("lonely", a_container("main", *sh("until [ -f /tmp/end ]; do sleep 0.1; done; exit 1"))))
    await bench.wait_running("lonely")

    starts = bench.kubelet.statistics().started_containers
    bench.api.down = True
    await bench.exec("lonely", "touch", "/tmp/end")
    await wait_until(lambda: bench.kubelet.statistics().started_containers > starts)  # Nobody could be asked about it.
    bench.api.down = False

    await bench.wait("lonely", lambda pod: pod.status.container_statuses[0].restart_count >= 1)


async def test_hooks_run_before_the_end_and_after_the_start(bench: Bench) -> None:
    lifecycle = Lifecycle(
        post_start=LifecycleHandler(exec=ExecAction(command=["sh", "-c", "echo start > /d/start"])),
        pre_stop=LifecycleHandler(exec=ExecAction(command=["sh", "-c", "echo stop > /d/stop"])),
    )
    directory = bench.settings.root_directory.parent / "hooks"
    directory.mkdir(exist_ok=True)
    from haven.api.core.v1 import HostPathVolumeSource

    bench.api.put(
        a_pod(
            "hooked",
            a_container("main", lifecycle=lifecycle, volume_mounts=[VolumeMount(name="d", mount_path="/d")]),
            volumes=[Volume(name="d", host_path=HostPathVolumeSource(path=str(directory)))],
        )
    )
    await bench.wait_running("hooked")
    assert (directory / "start").read_text() == "start\n"

    bench.api.delete_pod("hooked")
    await bench.wait_gone("hooked")

    assert (directory / "stop").read_text() == "stop\n"


async def test_a_failing_post_start_hook_kills_the_container(bench: Bench) -> None:
    hook = Lifecycle(post_start=LifecycleHandler(exec=ExecAction(command=["false"])))
    bench.api.put(a_pod("badhook", a_container("main", lifecycle=hook)))

    await bench.wait_event("badhook", "FailedPostStartHook: PostStartHook failed")
    await bench.wait(
        "badhook",
        lambda pod: bool(
            pod.status.container_statuses[0].state.waiting
            and pod.status.container_statuses[0].state.waiting.reason in ("PostStartHookError", "CrashLoopBackOff")
        ),
    )


async def test_a_pod_beyond_its_deadline_fails(bench: Bench) -> None:
    bench.api.put(a_pod("late", active_deadline_seconds=2, termination_grace_period_seconds=0))

    pod = await bench.wait_phase("late", "Failed")

    assert (pod.status.reason, pod.status.message) == (
        "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
    )  # fmt: skip


async def test_a_pod_that_fills_its_empty_dir_is_evicted(bench: Bench) -> None:
    volume = Volume(name="v", empty_dir=EmptyDirVolumeSource(size_limit=Quantity.parse("1Mi")))
    script = "dd if=/dev/zero of=/v/big bs=1M count=5; sleep 1000"
    bench.api.put(
        a_pod(
            "hoarder",
            a_container("main", *sh(script), volume_mounts=[VolumeMount(name="v", mount_path="/v")]),
            volumes=[volume],
        )
    )

    pod = await bench.wait_phase("hoarder", "Failed")

    assert pod.status.reason == "Evicted"
    assert pod.status.message == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert any(item.type == "DisruptionTarget" for item in pod.status.conditions)


async def test_an_ephemeral_container_joins_a_running_pod(bench: Bench) -> None:
    bench.api.put(a_pod("host"))
    await bench.wait_running("host")

    pod = serialization.copy(bench.pod("host"))
    pod.spec.ephemeral_containers = [
        EphemeralContainer(
            name="debug", image=BUSYBOX, image_pull_policy="IfNotPresent", command=["sh", "-c", "ps; sleep 1000"],
            target_container_name="main",
        )
    ]  # fmt: skip
    bench.api.put(pod)

    found = await bench.wait(
        "host",
        lambda pod: (
            bool(pod.status.ephemeral_container_statuses)
            and pod.status.ephemeral_container_statuses[0].state.running is not None
        ),
    )
    assert found.status.container_statuses[0].restart_count == 0
    assert "sleep 3600" in await bench.exec("host", "ps", container="debug")  # It sees its target's processes.


async def test_a_rule_restarts_the_whole_pod(bench: Bench) -> None:
    rule = ContainerRestartRule(
        action="RestartAllContainers", exit_codes=ContainerRestartRuleOnExitCodes(operator="In", values=[42])
    )
    script = "if [ -f /s/done ]; then sleep 1000; fi; touch /s/done; until [ -f /s/other ]; do sleep 0.1; done; exit 42"
    from haven.api.core.v1 import Container

    source: Container = a_container(
        "source", *sh(script), restart_policy="Never", restart_policy_rules=[rule],
        volume_mounts=[VolumeMount(name="s", mount_path="/s")],
    )  # fmt: skip
    other = a_container(
        "other", *sh("touch /s/other; sleep 1000"), volume_mounts=[VolumeMount(name="s", mount_path="/s")]
    )
    bench.api.put(a_pod("again", source, other, volumes=[Volume(name="s", empty_dir=EmptyDirVolumeSource())]))

    pod = await bench.wait(
        "again",
        lambda found: (
            len(found.status.container_statuses) == 2
            and all(item.restart_count == 1 and item.ready for item in found.status.container_statuses)
        ),
    )

    condition = next(item for item in pod.status.conditions if item.type == "AllContainersRestarting")
    assert condition.status == "False"


async def test_an_image_that_cannot_be_had_is_reported_and_held_back(bench: Bench) -> None:
    missing = a_container("main")
    missing.image, missing.image_pull_policy = "registry.invalid/none:1", "IfNotPresent"
    never = a_container("main")
    never.image, never.image_pull_policy = "registry.invalid/none:1", "Never"
    wrong = a_container("main")
    wrong.image = "Not A Name"
    for name, container in (("missing", missing), ("never", never), ("wrong", wrong)):
        bench.api.put(a_pod(name, container))

    for name, reasons in (
        ("missing", ("ErrImagePull", "ImagePullBackOff")),
        ("never", ("ErrImageNeverPull",)),
        ("wrong", ("InvalidImageName",)),
    ):
        await bench.wait(
            name,
            lambda pod, reasons=reasons: bool(
                pod.status.container_statuses
                and pod.status.container_statuses[0].state.waiting
                and pod.status.container_statuses[0].state.waiting.reason in reasons
            ),
        )
    await bench.wait(
        "missing",
        lambda pod: (
            (waiting := pod.status.container_statuses[0].state.waiting) and waiting.reason == "ImagePullBackOff"
        ),
    )
    await bench.wait_event(
        "never", 'ErrImageNeverPull: Container image "registry.invalid/none:1" is not present with pull policy of Never'
    )


async def test_user_namespaces_are_refused_where_the_runtime_would_ignore_them(bench: Bench) -> None:
    bench.api.put(a_pod("userns", host_users=False))

    await wait_until(
        lambda: any("does not support user namespaces" in text for text in bench.events("userns")),
        lambda: bench.events("userns"),
    )

    assert bench.pod("userns").status.phase == "Pending"
