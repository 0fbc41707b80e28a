"""Volumes, environments, identities and limits of pods, seen from inside real containers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.e2e.kubelets import Bench, a_container, a_pod, kubelet_on, wait_until
from tests.e2e.node import BUSYBOX, can_run_nodes, containerd_node, namespaces, scratch_directory

from haven.api.core.v1 import (
    ConfigMap,
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    EmptyDirVolumeSource,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    HostAlias,
    HostPathVolumeSource,
    ImageVolumeSource,
    ObjectFieldSelector,
    PodSecurityContext,
    ProjectedVolumeSource,
    ResourceRequirements,
    Secret,
    SecretEnvSource,
    SecretVolumeSource,
    SecurityContext,
    ServiceAccountTokenProjection,
    Volume,
    VolumeMount,
    VolumeProjection,
)
from haven.apimachinery import meta, serialization
from haven.apimachinery.quantity import Quantity
from haven.kubelet.cgroups import CgroupMode, cgroup_mode

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


def named(name: str) -> meta.ObjectMeta:
    return meta.ObjectMeta(name=name, namespace="default")


async def test_volumes_show_objects_and_follow_their_changes(bench: Bench) -> None:
    bench.api.put(ConfigMap(metadata=named("page"), data={"index": "one"}))
    bench.api.put(Secret(metadata=named("key"), data={"password": b"hush"}))
    mounts = [VolumeMount(name=name, mount_path=f"/v/{name}") for name in ("page", "key", "all", "memory", "me")]
    mounts.append(VolumeMount(name="page", mount_path="/sub/index", sub_path="index"))
    bench.api.put(
        a_pod(
            "volumes",
            a_container("main", volume_mounts=mounts),
            labels={"app": "demo"},
            volumes=[
                Volume(name="page", config_map=ConfigMapVolumeSource(name="page")),
                Volume(name="key", secret=SecretVolumeSource(secret_name="key", default_mode=0o400)),
                Volume(
                    name="all",
                    projected=ProjectedVolumeSource(
                        sources=[
                            VolumeProjection(
                                service_account_token=ServiceAccountTokenProjection(
                                    path="token", expiration_seconds=600
                                )
                            )
                        ]
                    ),
                ),
                Volume(
                    name="memory", empty_dir=EmptyDirVolumeSource(medium="Memory", size_limit=Quantity.parse("1Mi"))
                ),
                Volume(
                    name="me",
                    downward_api=DownwardAPIVolumeSource(
                        items=[
                            DownwardAPIVolumeFile(
                                path="labels", field_ref=ObjectFieldSelector(field_path="metadata.labels")
                            )
                        ]
                    ),
                ),
            ],
        )
    )
    await bench.wait_running("volumes")

    assert await bench.exec("volumes", "cat", "/v/page/index") == "one"
    assert await bench.exec("volumes", "cat", "/v/key/password") == "hush"
    assert (await bench.exec("volumes", "cat", "/v/all/token")).startswith("token-default-")
    assert await bench.exec("volumes", "cat", "/v/me/labels") == 'app="demo"'
    assert "tmpfs" in await bench.exec("volumes", "grep", "/v/memory", "/proc/mounts")
    assert (await bench.exec("volumes", "stat", "-L", "-c", "%a", "/v/key/password")).strip() == "400"

    bench.api.put(ConfigMap(metadata=named("page"), data={"index": "two", "more": "3"}))
    directory = bench.settings.pod_directory(bench.pod("volumes").metadata.uid)
    page = directory / "volumes" / "kubernetes.io~configmap" / "page" / "index"

    def shown() -> str:
        with contextlib.suppress(FileNotFoundError):  # The old version goes while its name is looked up.
            return page.read_text()
        return ""

    await wait_until(lambda: shown() == "two", shown)
    assert await bench.exec("volumes", "cat", "/v/page/index") == "two"
    assert await bench.exec("volumes", "cat", "/v/page/more") == "3"
    assert await bench.exec("volumes", "cat", "/sub/index") == "one"  # A subpath is a snapshot.


async def test_a_pod_waits_for_a_missing_config_map_and_starts_when_it_comes(bench: Bench) -> None:
    bench.api.put(
        a_pod(
            "early",
            a_container("main", volume_mounts=[VolumeMount(name="late", mount_path="/late")]),
            volumes=[Volume(name="late", config_map=ConfigMapVolumeSource(name="late"))],
        )
    )
    text = 'FailedMount: MountVolume.SetUp failed for volume "late" : configmap "late" not found'
    await bench.wait_event("early", text)

    bench.api.put(ConfigMap(metadata=named("late"), data={"a": "b"}))

    pod = await bench.wait_running("early")
    assert pod.status.container_statuses[0].restart_count == 0


async def test_the_environment_comes_from_fields_secrets_and_expansion(bench: Bench) -> None:
    bench.api.put(Secret(metadata=named("env"), data={"USER_NAME": b"ann"}))
    field = EnvVarSource(field_ref=ObjectFieldSelector(field_path="status.podIP"))
    bench.api.put(
        a_pod(
            "env",
            a_container(
                "main",
                env_from=[EnvFromSource(prefix="S_", secret_ref=SecretEnvSource(name="env"))],
                env=[EnvVar(name="IP", value_from=field), EnvVar(name="HI", value="hi $(S_USER_NAME) $$(IP) $(NO)")],
            ),
            host_aliases=[HostAlias(ip="192.0.2.77", hostnames=["far.example"])],
            hostname="box",
            subdomain="sub",
        )
    )
    pod = await bench.wait_running("env")

    lines = (await bench.exec("env", "env")).splitlines()
    assert f"IP={pod.status.pod_ip}" in lines
    assert "HI=hi ann $(IP) $(NO)" in lines
    hosts = await bench.exec("env", "cat", "/etc/hosts")
    assert f"{pod.status.pod_ip}\tbox.sub.default.svc.cluster.local\tbox\n" in hosts
    assert "192.0.2.77\tfar.example\n" in hosts
    assert (await bench.exec("env", "hostname")).strip() == "box"
    resolv = await bench.exec("env", "cat", "/etc/resolv.conf")
    assert "nameserver 10.96.0.10" in resolv
    assert "default.svc.cluster.local svc.cluster.local cluster.local" in resolv
    assert "ndots:5" in resolv


async def test_users_groups_and_capabilities_are_as_the_security_context_says(bench: Bench) -> None:
    context = SecurityContext(
        run_as_user=1000, run_as_group=3000, allow_privilege_escalation=False, read_only_root_filesystem=True
    )
    bench.api.put(
        a_pod(
            "secure",
            a_container("main", security_context=context, volume_mounts=[VolumeMount(name="d", mount_path="/d")]),
            security_context=PodSecurityContext(fs_group=2000, supplemental_groups=[4000], run_as_non_root=True),
            volumes=[Volume(name="d", empty_dir=EmptyDirVolumeSource())],
        )
    )
    await bench.wait_running("secure")

    assert (await bench.exec("secure", "id", "-u")).strip() == "1000"
    assert set((await bench.exec("secure", "id", "-G")).split()) == {"3000", "2000", "4000"}
    assert (await bench.exec("secure", "stat", "-c", "%g %a", "/d")).strip() == "2000 2777"
    assert "NoNewPrivs:\t1" in await bench.exec("secure", "cat", "/proc/self/status")
    await bench.exec("secure", "touch", "/d/ok")
    with pytest.raises(AssertionError, match="Read-only file system"):
        await bench.exec("secure", "touch", "/not-ok")


async def test_root_is_refused_where_the_pod_must_not_run_as_root(bench: Bench) -> None:
    bench.api.put(a_pod("rooted", security_context=PodSecurityContext(run_as_non_root=True)))

    pod = await bench.wait(
        "rooted",
        lambda found: bool(
            found.status.container_statuses
            and found.status.container_statuses[0].state.waiting
            and found.status.container_statuses[0].state.waiting.reason == "CreateContainerConfigError"
        ),
    )

    waiting = pod.status.container_statuses[0].state.waiting
    assert waiting is not None
    assert waiting.message.startswith("container has runAsNonRoot and image will run as root (pod: ")


async def test_a_host_path_of_the_wrong_type_holds_the_pod_back(bench: Bench, tmp_path: Path) -> None:
    bench.api.put(
        a_pod(
            "hostpath",
            a_container("main", volume_mounts=[VolumeMount(name="h", mount_path="/h")]),
            volumes=[Volume(name="h", host_path=HostPathVolumeSource(path=str(tmp_path / "no"), type="Directory"))],
        )
    )
    await wait_until(
        lambda: any("hostPath type check failed" in text for text in bench.events("hostpath")),
        lambda: bench.events("hostpath"),
    )

    os.mkdir(tmp_path / "no")
    (tmp_path / "no" / "file").write_text("x")

    await bench.wait_running("hostpath")
    assert await bench.exec("hostpath", "cat", "/h/file") == "x"


async def test_resources_change_in_place(bench: Bench) -> None:
    def resources(cpu: str, memory: str) -> ResourceRequirements:
        amounts = {"cpu": Quantity.parse(cpu), "memory": Quantity.parse(memory)}
        return ResourceRequirements(requests=dict(amounts), limits=dict(amounts))

    bench.api.put(a_pod("grow", a_container("main", resources=resources("100m", "64Mi"))))
    before = await bench.wait_running("grow")
    limit = "memory.max" if cgroup_mode() is CgroupMode.V2 else "memory/memory.limit_in_bytes"

    for cpu, memory in (("200m", "96Mi"), ("50m", "48Mi")):
        pod = serialization.copy(bench.pod("grow"))
        pod.spec.containers[0].resources = resources(cpu, memory)
        bench.api.put(pod)
        wanted = resources(cpu, memory)
        pod = await bench.wait(
            "grow", lambda found, wanted=wanted: found.status.container_statuses[0].resources == wanted
        )

        assert pod.status.container_statuses[0].container_id == before.status.container_statuses[0].container_id
        assert pod.status.container_statuses[0].allocated_resources == wanted.requests
        bytes_ = str(Quantity.parse(memory).value)
        assert (await bench.exec("grow", "cat", f"/sys/fs/cgroup/{limit}")).strip() == bytes_

    pod = serialization.copy(bench.pod("grow"))
    pod.spec.containers[0].resources = resources("5000", "48Mi")
    bench.api.put(pod)
    pod = await bench.wait(
        "grow", lambda found: any(item.type == "PodResizePending" for item in found.status.conditions)
    )
    condition = next(item for item in pod.status.conditions if item.type == "PodResizePending")
    assert condition.reason == "Infeasible"
    assert pod.status.container_statuses[0].allocated_resources["cpu"] == Quantity.parse("50m")


async def test_an_image_is_a_volume_even_where_the_runtime_cannot_mount_one(bench: Bench) -> None:
    bench.api.put(
        a_pod(
            "imaged",
            a_container("main", volume_mounts=[VolumeMount(name="i", mount_path="/image", read_only=True)]),
            volumes=[Volume(name="i", image=ImageVolumeSource(reference=BUSYBOX, pull_policy="IfNotPresent"))],
        )
    )
    await bench.wait_running("imaged")

    assert "root:x:0:0" in await bench.exec("imaged", "cat", "/image/etc/passwd")
    with pytest.raises(AssertionError, match="Read-only file system"):
        await bench.exec("imaged", "touch", "/image/new")

    directory = bench.settings.pod_directory(bench.pod("imaged").metadata.uid)
    bench.api.delete_pod("imaged", grace_seconds=1)
    await bench.wait_gone("imaged")
    await wait_until(lambda: not directory.exists(), lambda: list(directory.rglob("*")))
