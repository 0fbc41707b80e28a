"""A container runtime in memory: the states of CRI without processes, for tests and hollow nodes.

Containers run until `exit` says otherwise, or, when stopped, end with 143 at once unless their name is in `stubborn`.
It keeps the same contract as the real driver (tests/contract/test_cri.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from haven.clock import Clock
from haven.cri import errors
from haven.cri import interface as cri

__all__ = ["FakeRuntime"]

_NANO = 1_000_000_000
_EXIT_SIGTERM, _EXIT_SIGKILL = 143, 137
_LOG_NAME_MAX = 256


@dataclass(slots=True)
class _Sandbox:
    config: cri.SandboxConfig
    status: cri.SandboxStatus


@dataclass(slots=True)
class _Container:
    sandbox_id: str
    config: cri.ContainerConfig
    status: cri.ContainerStatus
    exited: asyncio.Event = field(default_factory=asyncio.Event)


Exec = Callable[[str, Sequence[str]], Awaitable[cri.ExecResult]]


class FakeRuntime:
    """Sandboxes, containers and images in dictionaries. Attributes may be changed by tests at any time."""

    def __init__(self, clock: Clock, *, images: Sequence[str] = (), has_events: bool = False) -> None:
        self._clock = clock
        self._sandboxes: dict[str, _Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._images: dict[str, cri.Image] = {}
        self._tallies: dict[str, cri.CallTally] = {}
        self._called = cri.CallTally()
        self._ids = itertools.count(1)
        self._events: list[asyncio.Queue[cri.ContainerEvent]] = []
        self.has_events = has_events
        self.registry: set[str] = set()
        """Images that a pull finds."""
        self.pulls: list[tuple[str, cri.Auth | None]] = []
        self.stubborn: set[str] = set()
        """Names of containers that ignore the stop signal and die by SIGKILL after the timeout."""
        self.exec: Exec | None = None
        self.failures: dict[str, errors.RuntimeFailure] = {}
        """Calls (by method name) that fail."""
        self.network_ready = True
        for image in images:
            self.add_image(image)

    # What tests do from outside.

    def add_image(self, name: str, *, uid: int | None = None, username: str = "", size_bytes: int = 1000) -> cri.Image:
        """Put an image into the store."""
        name = _full_name(name)
        digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        repo = name.rsplit(":", 1)[0]
        image = cri.Image(digest, (name,), (f"{repo}@{digest}",), size_bytes, uid, username)
        self._images[digest] = image
        return image

    def exit(self, container_id: str, exit_code: int, *, reason: str = "", message: str = "") -> None:
        """Let a running container end by itself."""
        container = self._container(container_id)
        assert container.status.state is cri.ContainerState.RUNNING, container.status
        self._finish(container, exit_code, reason, message)

    def break_sandbox(self, sandbox_id: str) -> None:
        """Let a sandbox die, and everything in it."""
        sandbox = self._sandboxes[sandbox_id]
        for container in self._in(sandbox_id):
            if container.status.state is cri.ContainerState.RUNNING:
                self._finish(container, _EXIT_SIGKILL, "Error", "")
        info = dataclasses.replace(sandbox.status.info, state=cri.SandboxState.NOT_READY)
        sandbox.status = dataclasses.replace(sandbox.status, info=info)
        self._tell(sandbox_id, info.uid)

    def find(self, pod_name: str, container: str) -> cri.ContainerStatus:
        """Return the newest container of that name in the pod."""
        found = [
            item.status
            for item in self._containers.values()
            if item.config.name == container and self._sandboxes[item.sandbox_id].config.name == pod_name
        ]
        assert found, f"no container {container} in pod {pod_name}"
        return max(found, key=lambda status: (status.created_at, status.attempt))

    def config_of(self, container_id: str) -> cri.ContainerConfig:
        """Return what the container was created from."""
        return self._container(container_id).config

    def sandbox_config_of(self, sandbox_id: str) -> cri.SandboxConfig:
        """Return what the sandbox was created from."""
        return self._sandboxes[sandbox_id].config

    # cri.Runtime

    async def version(self) -> cri.Version:
        self._check("version")
        return cri.Version("fake", "1.0.0", "v1")

    async def status(self) -> cri.RuntimeStatus:
        self._check("status")
        network = cri.RuntimeCondition("NetworkReady", self.network_ready)
        if not self.network_ready:
            network = cri.RuntimeCondition("NetworkReady", False, "NetworkPluginNotReady", "cni plugin not initialized")
        return cri.RuntimeStatus((cri.RuntimeCondition("RuntimeReady", True), network))

    async def features(self) -> cri.Features:
        return cri.Features(container_events=self.has_events, runtime_config=False, systemd_cgroups=None)

    async def update_pod_cidr(self, pod_cidr: str) -> None:
        self._check("update_pod_cidr")

    async def run_sandbox(self, config: cri.SandboxConfig, runtime_handler: str = "") -> str:
        self._check("run_sandbox")
        for sandbox in self._sandboxes.values():
            other = sandbox.config
            if (other.uid, other.attempt) == (config.uid, config.attempt):
                raise errors.AlreadyExists(f"sandbox {config.name} attempt {config.attempt} exists")
        number = next(self._ids)
        sandbox_id = _id("sandbox", number)
        info = cri.SandboxInfo(
            id=sandbox_id,
            name=config.name,
            namespace=config.namespace,
            uid=config.uid,
            attempt=config.attempt,
            state=cri.SandboxState.READY,
            created_at=self._now(),
            labels=dict(config.labels),
            annotations=dict(config.annotations),
            runtime_handler=runtime_handler,
        )
        network = config.security.namespaces.network
        ips = (f"10.244.{number // 250}.{number % 250 + 2}",) if network is cri.NamespaceMode.POD else ()
        self._sandboxes[sandbox_id] = _Sandbox(config, cri.SandboxStatus(info, ips, network, pid=number))
        self._tell(sandbox_id, config.uid)
        return sandbox_id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        self._check("stop_sandbox")
        if sandbox_id in self._sandboxes:
            self.break_sandbox(sandbox_id)
            sandbox = self._sandboxes[sandbox_id]
            sandbox.status = dataclasses.replace(sandbox.status, ips=())

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._check("remove_sandbox")
        if sandbox_id not in self._sandboxes:
            return
        await self.stop_sandbox(sandbox_id)
        for container in self._in(sandbox_id):
            del self._containers[container.status.id]
        sandbox = self._sandboxes.pop(sandbox_id)
        self._tell(sandbox_id, sandbox.config.uid)

    async def sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> cri.SandboxStatus:
        self._check("sandbox_status")
        if sandbox_id not in self._sandboxes:
            raise errors.NotFound(f"sandbox {sandbox_id} not found")
        return self._sandboxes[sandbox_id].status

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.SandboxInfo]:
        self._check("list_sandboxes")
        return [
            sandbox.status.info for sandbox in self._sandboxes.values() if _carries(sandbox.status.info.labels, labels)
        ]

    async def create_container(self, sandbox_id: str, config: cri.ContainerConfig, sandbox: cri.SandboxConfig) -> str:
        self._check("create_container")
        if sandbox_id not in self._sandboxes:
            raise errors.NotFound(f"sandbox {sandbox_id} not found")
        image = await self.image_status(config.image)
        if image is None:
            raise errors.NotFound(f'failed to resolve image "{config.image}"')
        if any(
            (item.config.name, item.config.attempt) == (config.name, config.attempt) for item in self._in(sandbox_id)
        ):
            raise errors.AlreadyExists(f"container {config.name} attempt {config.attempt} exists")
        container_id = _id("container", next(self._ids))
        status = cri.ContainerStatus(
            id=container_id,
            name=config.name,
            attempt=config.attempt,
            state=cri.ContainerState.CREATED,
            created_at=self._now(),
            image=image.repo_tags[0] if image.repo_tags else config.image,
            image_ref=image.repo_digests[0] if image.repo_digests else image.id,
            image_id=image.id,
            labels=dict(config.labels),
            annotations=dict(config.annotations),
            log_path=f"{sandbox.log_directory}/{config.log_path}",
            resources=config.resources,
        )
        self._containers[container_id] = _Container(sandbox_id, config, status)
        self._tell(container_id, self._sandboxes[sandbox_id].config.uid)
        return container_id

    async def start_container(self, container_id: str) -> None:
        self._check("start_container")
        container = self._container(container_id)
        if container.status.state is not cri.ContainerState.CREATED:
            raise errors.RuntimeFailure("container is not in created state", "FailedPrecondition")
        container.status = dataclasses.replace(
            container.status, state=cri.ContainerState.RUNNING, started_at=self._now()
        )
        self._tell(container_id, self._sandboxes[container.sandbox_id].config.uid)

    async def stop_container(self, container_id: str, timeout_seconds: int) -> None:
        self._check("stop_container")
        container = self._containers.get(container_id)
        if container is None:
            return
        if container.status.state is cri.ContainerState.RUNNING and container.config.name in self.stubborn:
            await self._clock.sleep(timeout_seconds)
            if container.status.state is cri.ContainerState.RUNNING:
                self._finish(container, _EXIT_SIGKILL, "Error", "")
        elif container.status.state is cri.ContainerState.RUNNING:
            self._finish(container, _EXIT_SIGTERM if timeout_seconds else _EXIT_SIGKILL, "Error", "")

    async def remove_container(self, container_id: str) -> None:
        self._check("remove_container")
        container = self._containers.pop(container_id, None)
        if container is not None:
            self._tell(container_id, self._sandboxes[container.sandbox_id].config.uid)

    async def container_status(self, container_id: str, *, verbose: bool = False) -> cri.ContainerStatus:
        self._check("container_status")
        return self._container(container_id).status

    async def list_containers(
        self, *, sandbox_id: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[cri.ContainerInfo]:
        self._check("list_containers")
        return [
            cri.ContainerInfo(
                id=item.status.id,
                sandbox_id=item.sandbox_id,
                name=item.config.name,
                attempt=item.config.attempt,
                image=item.config.image,
                image_ref=item.status.image_ref,
                state=item.status.state,
                created_at=item.status.created_at,
                labels=item.status.labels,
                annotations=item.status.annotations,
            )
            for item in self._containers.values()
            if sandbox_id in ("", item.sandbox_id) and _carries(item.config.labels, labels)
        ]

    async def update_container_resources(self, container_id: str, resources: cri.LinuxResources) -> None:
        self._check("update_container_resources")
        container = self._container(container_id)
        container.status = dataclasses.replace(container.status, resources=resources)

    async def reopen_container_log(self, container_id: str) -> None:
        self._check("reopen_container_log")
        self._container(container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> cri.ExecResult:
        self._check("exec_sync")
        container = self._container(container_id)
        if container.status.state is not cri.ContainerState.RUNNING:
            raise errors.RuntimeFailure("container is in CONTAINER_EXITED state", "Unknown")
        if self.exec is None:
            return cri.ExecResult(b"", b"", 0)
        try:
            async with asyncio.timeout(timeout_seconds or None):
                return await self.exec(container.config.name, command)
        except TimeoutError:
            raise errors.DeadlineExceeded(f"command timed out: timeout {timeout_seconds}s exceeded") from None

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        self._container(container_id)
        return f"http://127.0.0.1:1/exec/{container_id}"

    async def attach_url(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        self._container(container_id)
        return f"http://127.0.0.1:1/attach/{container_id}"

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        if sandbox_id not in self._sandboxes:
            raise errors.NotFound(f"sandbox {sandbox_id} not found")
        return f"http://127.0.0.1:1/portforward/{sandbox_id}"

    async def list_images(self) -> Sequence[cri.Image]:
        self._check("list_images")
        return list(self._images.values())

    async def image_status(self, image: str) -> cri.Image | None:
        self._check("image_status")
        if image in self._images:
            return self._images[image]
        name = _full_name(image)
        return next(
            (item for item in self._images.values() if name in item.repo_tags or name in item.repo_digests), None
        )

    async def pull_image(
        self, image: str, auth: cri.Auth | None = None, sandbox: cri.SandboxConfig | None = None
    ) -> str:
        self._check("pull_image")
        self.pulls.append((image, auth))
        if image not in self.registry:
            raise errors.NotFound(f'failed to pull and unpack image "{_full_name(image)}": not found')
        return self.add_image(image).id

    async def remove_image(self, image: str) -> None:
        self._check("remove_image")
        found = await self.image_status(image)
        if found is not None:
            del self._images[found.id]

    async def image_filesystem(self) -> Sequence[cri.FilesystemUsage]:
        used = sum(image.size_bytes for image in self._images.values())
        return [cri.FilesystemUsage("/", used, len(self._images), self._now())]

    async def container_stats(self) -> Sequence[cri.ContainerStats]:
        return [
            cri.ContainerStats(item.status.id, item.config.name, item.config.labels, self._now())
            for item in self._containers.values()
            if item.status.state is cri.ContainerState.RUNNING
        ]

    async def pod_stats(self) -> Sequence[cri.PodStats]:
        return [
            cri.PodStats(key, item.config.name, item.config.namespace, item.config.uid, self._now())
            for key, item in self._sandboxes.items()
            if item.status.info.state is cri.SandboxState.READY
        ]

    def call_tallies(self) -> Mapping[str, cri.CallTally]:
        return self._tallies

    async def events(self) -> AsyncIterator[cri.ContainerEvent]:
        if not self.has_events:
            raise errors.Unimplemented("unknown method GetContainerEvents")
        queue: asyncio.Queue[cri.ContainerEvent] = asyncio.Queue()
        self._events.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._events.remove(queue)

    async def close(self) -> None:
        return

    # Details.

    def _check(self, method: str) -> None:
        tally = self._called = self._tallies.setdefault(method.replace("sandbox", "podsandbox"), cri.CallTally())
        tally.durations.add(0.0)
        if method in self.failures:
            tally.errors += 1
            raise self.failures[method]

    def _now(self) -> int:
        return int(self._clock.now_seconds() * _NANO)

    def _container(self, container_id: str) -> _Container:
        if container_id not in self._containers:
            self._called.errors += 1
            raise errors.NotFound(f"container {container_id} not found")
        return self._containers[container_id]

    def _in(self, sandbox_id: str) -> list[_Container]:
        return [container for container in self._containers.values() if container.sandbox_id == sandbox_id]

    def _finish(self, container: _Container, exit_code: int, reason: str, message: str) -> None:
        container.status = dataclasses.replace(
            container.status,
            state=cri.ContainerState.EXITED,
            finished_at=self._now(),
            exit_code=exit_code,
            reason=reason or ("Completed" if exit_code == 0 else "Error"),
            message=message,
        )
        container.exited.set()
        self._tell(container.status.id, self._sandboxes[container.sandbox_id].config.uid)

    def _tell(self, container_id: str, pod_uid: str) -> None:
        for queue in self._events:
            queue.put_nowait(cri.ContainerEvent(container_id, pod_uid))


def _id(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind}-{number}".encode()).hexdigest()


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(labels.get(key) == value for key, value in (wanted or {}).items())


def _full_name(image: str) -> str:
    """Spell out registry and tag, as containerd stores names."""
    name, at, digest = image.partition("@")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if at:
        return f"{name}@{digest}"
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
