"""What every container runtime does, the fake one and containerd alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.node import BUSYBOX, can_run_nodes, containerd_node, namespaces, scratch_directory

from haven.clock import SystemClock
from haven.cri import errors
from haven.cri.fake import FakeRuntime
from haven.cri.interface import (
    ContainerConfig,
    ContainerState,
    LinuxResources,
    Runtime,
    SandboxConfig,
    SandboxState,
)


@dataclass
class Bench:
    runtime: Runtime
    logs: str
    cgroup_parent: str
    number: int = 0

    def sandbox(self, name: str, *, attempt: int = 0) -> SandboxConfig:
        labels = {"io.kubernetes.pod.uid": f"uid-{name}", "io.kubernetes.pod.name": name, "test": name}
        return SandboxConfig(
            name, "default", f"uid-{name}", attempt, name, f"{self.logs}/{name}", labels=labels,
            cgroup_parent=self.cgroup_parent,
        )  # fmt: skip


@pytest.fixture(scope="module")
def node_directory() -> Iterator[Path]:
    with namespaces(), scratch_directory("cri") as directory:
        yield directory


@pytest.fixture(params=["fake", pytest.param("containerd", marks=pytest.mark.e2e)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield Bench(FakeRuntime(SystemClock(), images=[BUSYBOX]), str(tmp_path), "/test")
        return
    if reason := can_run_nodes():
        pytest.skip(reason)
    async with containerd_node(request.getfixturevalue("node_directory")) as node:
        yield Bench(node.runtime, str(tmp_path), node.cgroup_parent)


def a_container(name: str = "main", *, attempt: int = 0) -> ContainerConfig:
    return ContainerConfig(
        name, BUSYBOX, attempt, command=("sleep", "1000"), log_path=f"{name}/{attempt}.log",
        labels={"io.kubernetes.container.name": name}, resources=LinuxResources(cpu_shares=100),
    )  # fmt: skip


async def test_a_runtime_says_what_it_is_and_how_it_is(bench: Bench) -> None:
    version, status = await bench.runtime.version(), await bench.runtime.status()

    assert version.api_version == "v1"
    assert version.runtime_name
    assert [condition.status for condition in status.conditions] == [True, True]
    assert isinstance((await bench.runtime.features()).container_events, bool)


async def test_a_start_that_is_cancelled_is_not_broken_off(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("cancelled")
    sandbox_id = await runtime.run_sandbox(config)
    container_id = await runtime.create_container(sandbox_id, a_container(), config)

    starting = asyncio.create_task(runtime.start_container(container_id))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)

    assert (await runtime.container_status(container_id)).state is ContainerState.RUNNING
    await runtime.stop_sandbox(sandbox_id)
    await runtime.remove_sandbox(sandbox_id)


async def test_a_runtime_counts_what_it_was_asked_and_what_failed(bench: Bench) -> None:
    config = bench.sandbox("counted")

    sandbox_id = await bench.runtime.run_sandbox(config)
    with pytest.raises(errors.RuntimeFailure):
        await bench.runtime.start_container("nobody")
    await bench.runtime.remove_sandbox(sandbox_id)

    tallies = bench.runtime.call_tallies()
    assert tallies["run_podsandbox"].durations.count >= 1
    assert tallies["run_podsandbox"].errors == 0
    assert tallies["start_container"].errors >= 1


async def test_a_sandbox_has_an_address_until_it_is_stopped(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("addr")

    sandbox_id = await runtime.run_sandbox(config)
    ready = await runtime.sandbox_status(sandbox_id)
    await runtime.stop_sandbox(sandbox_id)
    stopped = await runtime.sandbox_status(sandbox_id)
    await runtime.remove_sandbox(sandbox_id)

    assert ready.info.state is SandboxState.READY
    assert ready.ips[0].startswith("10.244.")
    assert (ready.info.name, ready.info.namespace, ready.info.uid) == ("addr", "default", "uid-addr")
    assert stopped.info.state is SandboxState.NOT_READY
    with pytest.raises(errors.NotFound):
        await runtime.sandbox_status(sandbox_id)


async def test_a_container_goes_from_created_over_running_to_exited(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("life")
    sandbox_id = await runtime.run_sandbox(config)

    container_id = await runtime.create_container(sandbox_id, a_container(), config)
    states = [(await runtime.container_status(container_id)).state]
    await runtime.start_container(container_id)
    states.append((await runtime.container_status(container_id)).state)
    await runtime.stop_container(container_id, 0)
    ended = await runtime.container_status(container_id)

    assert [*states, ended.state] == [ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED]
    assert ended.exit_code == 137
    assert ended.created_at <= ended.started_at <= ended.finished_at
    assert ended.image_ref


async def test_lists_are_narrowed_by_labels_and_by_sandbox(bench: Bench) -> None:
    runtime = bench.runtime
    ids = [await runtime.run_sandbox(bench.sandbox(name)) for name in ("one", "two")]
    container_id = await runtime.create_container(ids[0], a_container(), bench.sandbox("one"))

    narrowed = await runtime.list_sandboxes({"test": "two"})
    inside = await runtime.list_containers(sandbox_id=ids[0])
    elsewhere = await runtime.list_containers(sandbox_id=ids[1])

    assert [sandbox.id for sandbox in narrowed] == [ids[1]]
    assert {sandbox.id for sandbox in await runtime.list_sandboxes()} == set(ids)
    assert [(container.id, container.sandbox_id) for container in inside] == [(container_id, ids[0])]
    assert elsewhere == []


async def test_removing_a_sandbox_removes_its_containers(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("gone")
    sandbox_id = await runtime.run_sandbox(config)
    container_id = await runtime.create_container(sandbox_id, a_container(), config)
    await runtime.start_container(container_id)

    await runtime.stop_sandbox(sandbox_id)
    await runtime.remove_sandbox(sandbox_id)

    assert await runtime.list_containers() == []
    with pytest.raises(errors.NotFound):
        await runtime.container_status(container_id)


async def test_stopping_and_removing_what_is_not_there_is_success(bench: Bench) -> None:
    await bench.runtime.stop_container("0123456789abcdef", 1)
    await bench.runtime.remove_container("0123456789abcdef")
    await bench.runtime.remove_sandbox("0123456789abcdef")
    await bench.runtime.remove_image("docker.io/library/no-such-image:1")


async def test_a_container_needs_an_image_that_is_there(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("noimage")
    sandbox_id = await runtime.run_sandbox(config)

    with pytest.raises(errors.RuntimeFailure):
        await runtime.create_container(sandbox_id, ContainerConfig("main", "docker.io/library/no-such-image:1"), config)

    assert await runtime.image_status("docker.io/library/no-such-image:1") is None


async def test_an_image_is_found_by_name_and_by_id(bench: Bench) -> None:
    by_name = await bench.runtime.image_status(BUSYBOX)
    assert by_name is not None

    by_id = await bench.runtime.image_status(by_name.id)

    assert by_id == by_name
    assert BUSYBOX in by_name.repo_tags
    assert by_name.id in {image.id for image in await bench.runtime.list_images()}


async def test_a_command_returns_its_exit_code_and_one_in_a_dead_container_fails(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("exec")
    sandbox_id = await runtime.run_sandbox(config)
    container_id = await runtime.create_container(sandbox_id, a_container(), config)
    await runtime.start_container(container_id)

    result = await runtime.exec_sync(container_id, ["true"], 60)
    await runtime.stop_container(container_id, 0)

    assert result.exit_code == 0
    with pytest.raises(errors.RuntimeFailure):
        await runtime.exec_sync(container_id, ["true"], 60)


async def test_a_command_that_takes_too_long_is_cut_off(bench: Bench) -> None:
    async def never(_container: str, _command: object) -> None:
        await asyncio.Event().wait()

    if isinstance(bench.runtime, FakeRuntime):
        bench.runtime.exec = never  # type: ignore[assignment]
    runtime, config = bench.runtime, bench.sandbox("slow")
    sandbox_id = await runtime.run_sandbox(config)
    container_id = await runtime.create_container(sandbox_id, a_container(), config)
    await runtime.start_container(container_id)

    with pytest.raises(errors.DeadlineExceeded):
        await runtime.exec_sync(container_id, ["sleep", "100"], 1)


async def test_limits_can_be_changed_while_it_runs(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("resize")
    sandbox_id = await runtime.run_sandbox(config)
    container_id = await runtime.create_container(sandbox_id, a_container(), config)
    await runtime.start_container(container_id)

    await runtime.update_container_resources(container_id, LinuxResources(cpu_shares=512))

    resources = (await runtime.container_status(container_id)).resources
    assert resources is not None
    assert resources.cpu_shares == 512


async def test_streams_are_served_at_urls(bench: Bench) -> None:
    runtime, config = bench.runtime, bench.sandbox("stream")
    sandbox_id = await runtime.run_sandbox(config)
    container_id = await runtime.create_container(sandbox_id, a_container(), config)
    await runtime.start_container(container_id)

    urls = [
        await runtime.exec_url(container_id, ["sh"], tty=False, stdin=True, stdout=True, stderr=True),
        await runtime.attach_url(container_id, tty=False, stdin=False, stdout=True, stderr=True),
        await runtime.port_forward_url(sandbox_id, [80]),
    ]

    assert all(url.startswith("http://127.0.0.1:") for url in urls)
