"""The real container runtime: CRI v1 over gRPC on a unix socket (containerd 1.6 and later, cri-o).

gRPC's errors are translated here, once. A call without its own limit gets `_CALL_SECONDS`, so that a hung runtime
turns into DeadlineExceeded instead of a stuck pod.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
from cri_api.v1 import api_pb2, api_pb2_grpc

from haven.cri import errors, messages
from haven.cri import interface as cri

__all__ = ["GrpcRuntime"]

pb: Any = api_pb2  # The generated modules are only partly typed.
pb_grpc: Any = api_pb2_grpc

_CALL_SECONDS = 120.0  # Upstream's runtimeRequestTimeout is 2 minutes.
_PULL_SECONDS = 3600.0  # A large image on a slow line; the caller can still cancel.
_MESSAGE_BYTES_MAX = 16 * 1024 * 1024  # Upstream's limit; 4 MiB is too small for exec output.

_ERRORS: dict[grpc.StatusCode, type[errors.RuntimeFailure]] = {
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
}


def _translate(error: grpc.aio.AioRpcError) -> errors.RuntimeFailure:
    code = error.code()
    name = "".join(word.capitalize() for word in code.name.split("_"))
    return _ERRORS.get(code, errors.RuntimeFailure)(error.details() or "", name)


class GrpcRuntime:
    """A runtime behind a socket; give `endpoint` as unix:///run/containerd/containerd.sock."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._channel = grpc.aio.insecure_channel(
            endpoint,
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
                # A restarted containerd must be found again within a second, not after the default two minutes.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._runtime = pb_grpc.RuntimeServiceStub(self._channel)
        self._images = pb_grpc.ImageServiceStub(self._channel)
        self._tallies: dict[str, cri.CallTally] = {}

    async def _call(self, method: Any, request: Any, timeout_seconds: float = _CALL_SECONDS) -> Any:
        tally = self._tallies.setdefault(_operation(type(request).__name__), cri.CallTally())
        started = time.monotonic()
        try:
            return await method(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            tally.errors += 1
            raise _translate(error) from error
        finally:
            tally.durations.add(time.monotonic() - started)

    def call_tallies(self) -> Mapping[str, cri.CallTally]:
        return self._tallies

    async def _call_to_the_end(self, method: Any, request: Any) -> Any:
        """As `_call`, but go on to the end even if we are cancelled, and only then say so.

        A runtime whose call is broken off kills what it was starting, and reports a container that failed to start.
        """
        call = asyncio.ensure_future(self._call(method, request))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait({call})
            raise

    async def version(self) -> cri.Version:
        answer = await self._call(self._runtime.Version, pb.VersionRequest(version="v1"))
        return cri.Version(answer.runtime_name, answer.runtime_version, answer.runtime_api_version)

    async def status(self) -> cri.RuntimeStatus:
        return messages.runtime_status(await self._call(self._runtime.Status, pb.StatusRequest()))

    async def features(self) -> cri.Features:
        status = await self.status()
        systemd: bool | None = None
        try:
            config = await self._call(self._runtime.RuntimeConfig, pb.RuntimeConfigRequest())
            systemd = config.linux.cgroup_driver == pb.CgroupDriver.SYSTEMD
            has_config = True
        except errors.Unimplemented:
            has_config = False
        return cri.Features(
            container_events=await self._has_events(),
            runtime_config=has_config,
            systemd_cgroups=systemd,
            handlers=status.handlers,
        )

    async def _has_events(self) -> bool:
        """Open the stream and see whether it is refused at once; a quiet stream that stays open is support."""
        call = self._runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=0.5)
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            return bool(error.code() != grpc.StatusCode.UNIMPLEMENTED)
        finally:
            call.cancel()
        return True

    async def update_pod_cidr(self, pod_cidr: str) -> None:
        config = pb.RuntimeConfig(network_config=pb.NetworkConfig(pod_cidr=pod_cidr))
        await self._call(self._runtime.UpdateRuntimeConfig, pb.UpdateRuntimeConfigRequest(runtime_config=config))

    async def run_sandbox(self, config: cri.SandboxConfig, runtime_handler: str = "") -> str:
        request = pb.RunPodSandboxRequest(config=messages.sandbox_config(config), runtime_handler=runtime_handler)
        # Twice the usual limit, as upstream: the sandbox image may have to be pulled.
        answer = await self._call(self._runtime.RunPodSandbox, request, 2 * _CALL_SECONDS)
        return str(answer.pod_sandbox_id)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        try:
            await self._call(self._runtime.StopPodSandbox, pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        except errors.NotFound:
            return

    async def remove_sandbox(self, sandbox_id: str) -> None:
        try:
            await self._call(self._runtime.RemovePodSandbox, pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
        except errors.NotFound:
            return

    async def sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> cri.SandboxStatus:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=verbose)
        return messages.sandbox_status(await self._call(self._runtime.PodSandboxStatus, request))

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[cri.SandboxInfo]:
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(label_selector=dict(labels or {})))
        answer = await self._call(self._runtime.ListPodSandbox, request)
        return [messages.sandbox_info(item) for item in answer.items]

    async def create_container(self, sandbox_id: str, config: cri.ContainerConfig, sandbox: cri.SandboxConfig) -> str:
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=messages.container_config(config),
            sandbox_config=messages.sandbox_config(sandbox),
        )
        answer = await self._call_to_the_end(self._runtime.CreateContainer, request)
        return str(answer.container_id)

    async def start_container(self, container_id: str) -> None:
        await self._call_to_the_end(self._runtime.StartContainer, pb.StartContainerRequest(container_id=container_id))

    async def stop_container(self, container_id: str, timeout_seconds: int) -> None:
        request = pb.StopContainerRequest(container_id=container_id, timeout=timeout_seconds)
        try:
            await self._call(self._runtime.StopContainer, request, timeout_seconds + _CALL_SECONDS)
        except errors.NotFound:
            return

    async def remove_container(self, container_id: str) -> None:
        try:
            await self._call(self._runtime.RemoveContainer, pb.RemoveContainerRequest(container_id=container_id))
        except errors.NotFound:
            return

    async def container_status(self, container_id: str, *, verbose: bool = False) -> cri.ContainerStatus:
        request = pb.ContainerStatusRequest(container_id=container_id, verbose=verbose)
        return messages.container_status(await self._call(self._runtime.ContainerStatus, request))

    async def list_containers(
        self, *, sandbox_id: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[cri.ContainerInfo]:
        filter_ = pb.ContainerFilter(pod_sandbox_id=sandbox_id, label_selector=dict(labels or {}))
        answer = await self._call(self._runtime.ListContainers, pb.ListContainersRequest(filter=filter_))
        return [messages.container_info(item) for item in answer.containers]

    async def update_container_resources(self, container_id: str, resources: cri.LinuxResources) -> None:
        request = pb.UpdateContainerResourcesRequest(
            container_id=container_id, linux=messages.linux_resources(resources)
        )
        await self._call(self._runtime.UpdateContainerResources, request)

    async def reopen_container_log(self, container_id: str) -> None:
        await self._call(self._runtime.ReopenContainerLog, pb.ReopenContainerLogRequest(container_id=container_id))

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> cri.ExecResult:
        # CRI counts whole seconds; a zero there means "no limit", so fractions round up.
        limit = -int(-timeout_seconds // 1)
        request = pb.ExecSyncRequest(container_id=container_id, cmd=command, timeout=limit)
        answer = await self._call(self._runtime.ExecSync, request, limit + _CALL_SECONDS if limit else _PULL_SECONDS)
        return cri.ExecResult(answer.stdout, answer.stderr, answer.exit_code)

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        request = pb.ExecRequest(
            container_id=container_id, cmd=command, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr
        )
        return str((await self._call(self._runtime.Exec, request)).url)

    async def attach_url(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        request = pb.AttachRequest(container_id=container_id, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr)
        return str((await self._call(self._runtime.Attach, request)).url)

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        request = pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports)
        return str((await self._call(self._runtime.PortForward, request)).url)

    async def list_images(self) -> Sequence[cri.Image]:
        answer = await self._call(self._images.ListImages, pb.ListImagesRequest())
        return [messages.image(item) for item in answer.images]

    async def image_status(self, image: str) -> cri.Image | None:
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image))
        answer = await self._call(self._images.ImageStatus, request)
        return messages.image(answer.image) if answer.HasField("image") else None

    async def pull_image(
        self, image: str, auth: cri.Auth | None = None, sandbox: cri.SandboxConfig | None = None
    ) -> str:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=image, user_specified_image=image))
        if auth is not None:
            request.auth.CopyFrom(
                pb.AuthConfig(
                    username=auth.username,
                    password=auth.password,
                    auth=auth.auth,
                    server_address=auth.server_address,
                    identity_token=auth.identity_token,
                    registry_token=auth.registry_token,
                )
            )
        if sandbox is not None:
            request.sandbox_config.CopyFrom(messages.sandbox_config(sandbox))
        return str((await self._call(self._images.PullImage, request, _PULL_SECONDS)).image_ref)

    async def remove_image(self, image: str) -> None:
        try:
            await self._call(self._images.RemoveImage, pb.RemoveImageRequest(image=pb.ImageSpec(image=image)))
        except errors.NotFound:
            return

    async def image_filesystem(self) -> Sequence[cri.FilesystemUsage]:
        answer = await self._call(self._images.ImageFsInfo, pb.ImageFsInfoRequest())
        return [
            cri.FilesystemUsage(
                item.fs_id.mountpoint, item.used_bytes.value, item.inodes_used.value, timestamp=item.timestamp
            )
            for item in answer.image_filesystems
        ]

    async def container_stats(self) -> Sequence[cri.ContainerStats]:
        answer = await self._call(self._runtime.ListContainerStats, pb.ListContainerStatsRequest())
        return [messages.container_stats(item) for item in answer.stats]

    async def pod_stats(self) -> Sequence[cri.PodStats]:
        try:
            answer = await self._call(self._runtime.ListPodSandboxStats, pb.ListPodSandboxStatsRequest())
        except errors.RuntimeFailure:
            return await self._pod_stats_one_by_one()
        return [messages.pod_stats(item) for item in answer.stats]

    async def _pod_stats_one_by_one(self) -> Sequence[cri.PodStats]:
        """The way around containerd 1.x on cgroup v2: one finished pod, whose cgroup is gone, fails the whole list."""
        found: list[cri.PodStats] = []
        failure: errors.RuntimeFailure | None = None
        for sandbox in await self.list_sandboxes():
            if sandbox.state is not cri.SandboxState.READY:
                continue
            try:
                request = pb.PodSandboxStatsRequest(pod_sandbox_id=sandbox.id)
                answer = await self._call(self._runtime.PodSandboxStats, request)
            except errors.RuntimeFailure as error:
                failure = error  # It ended meanwhile.
            else:
                found.append(messages.pod_stats(answer.stats))
        if failure is not None and not found:
            raise failure
        return found

    async def events(self) -> AsyncIterator[cri.ContainerEvent]:
        call = self._runtime.GetContainerEvents(pb.GetEventsRequest())
        try:
            async for item in call:
                yield cri.ContainerEvent(item.container_id, item.pod_sandbox_status.metadata.uid)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()


def _operation(request: str) -> str:
    """Return how metrics call an operation: RunPodSandboxRequest is run_podsandbox."""
    name = request.removesuffix("Request").replace("PodSandbox", "Podsandbox")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower().removesuffix("_resources")
