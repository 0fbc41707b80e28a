"""Starts one container of a pod: image, configuration, create, start, postStart hook. Raises StartError with a reason.

The reasons are the ones that show as `state.waiting.reason`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haven.api.core.v1 import Container, FileKeySelector, Pod, Secret
from haven.clock import Clock
from haven.cri import errors
from haven.cri import interface as cri
from haven.kubelet.env import ConfigError, EnvSources, environment, referenced_objects
from haven.kubelet.events import EventRecorder, container_reference
from haven.kubelet.fieldref import FieldError, FieldFacts
from haven.kubelet.handlers import HandlerRunner, OutcomeKind
from haven.kubelet.imagemounts import ImageMountError, ImageMounts
from haven.kubelet.images import ImageError, ImageManager
from haven.kubelet.nodestate import NodeState
from haven.kubelet.objects import NotReadYet, ObjectCaches
from haven.kubelet.observation import ObservedPod
from haven.kubelet.observer import termination_log_path
from haven.kubelet.podconfig import (
    ContainerInputs,
    MountPlan,
    PodInputs,
    container_config,
    cri_mount,
    log_directory,
    mounts_of,
)
from haven.kubelet.podnetwork import hosts_file
from haven.kubelet.security import verify_run_as_non_root
from haven.kubelet.settings import Settings
from haven.kubelet.termination import Terminator
from haven.kubelet.volumes.manager import MountedVolume
from haven.kubelet.volumes.subpath import SubPathError, prepare_subpath

__all__ = ["ContainerStarter", "Sandbox", "StartError"]


class StartError(Exception):
    """The container does not run. `reason` and `message` show in its status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that is ready for containers."""

    id: str
    config: cri.SandboxConfig
    ips: tuple[str, ...]


class ContainerStarter:
    """Starts containers for all pods."""

    def __init__(
        self,
        settings: Settings,
        runtime: cri.Runtime,
        clock: Clock,
        recorder: EventRecorder,
        images: ImageManager,
        objects: ObjectCaches,
        handlers: HandlerRunner,
        terminator: Terminator,
        node: NodeState,
        image_mounts: ImageMounts | None = None,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._clock = clock
        self._recorder = recorder
        self._images = images
        self._objects = objects
        self._handlers = handlers
        self._terminator = terminator
        self._node = node
        self._image_mounts = image_mounts
        self.starts = 0

    async def start(
        self,
        pod: Pod,
        container: Container,
        inputs: PodInputs,
        sandbox: Sandbox,
        volumes: Mapping[str, MountedVolume],
        observed: ObservedPod,
        *,
        target: str = "",
    ) -> str:
        """Start the container and return its id; raise StartError."""
        reference = container_reference(pod, container.name)
        image = await self._image(pod, container, sandbox)
        previous = observed.find(container.name)
        try:
            restart_count = (
                previous.restart_count + 1 if previous else await asyncio.to_thread(self._count_logs, pod, container)
            )
            verify_run_as_non_root(pod, container, image)
            target_id = self._target_id(observed, target)
            facts = FieldFacts(sandbox.ips, self._node.host_ips, self._node.allocatable)
            env = await self._environment(pod, container, facts, volumes)
            mounts = await self._mounts(pod, container, inputs, sandbox, volumes, env, restart_count)
            config = container_config(
                pod, container, inputs, ContainerInputs(image, env, mounts, restart_count, target_id)
            )
        except (ConfigError, FieldError, SubPathError, NotReadYet, OSError) as error:
            self._recorder.warning(reference, "Failed", f"Error: {error}")
            raise StartError("CreateContainerConfigError", str(error)) from error
        container_id = await self._create(pod, container, sandbox, config)
        await self._start_created(pod, container, container_id)
        self._link_log(pod, container, container_id, sandbox, config)
        await self._run_post_start(pod, container, container_id, sandbox)
        return container_id

    async def _image(self, pod: Pod, container: Container, sandbox: Sandbox) -> cri.Image:
        reference = container_reference(pod, container.name)

        async def secrets() -> Sequence[Secret]:
            names = {item.name for item in pod.spec.image_pull_secrets if item.name}
            try:
                found = await self._objects.wait_secrets(pod.metadata.namespace, names)
            except NotReadYet as error:
                raise ImageError("ErrImagePull", str(error)) from error
            missing = sorted(names - set(found))
            if missing:
                self._recorder.warning(
                    container_reference(pod, container.name),
                    "FailedToRetrieveImagePullSecret",
                    f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                    "attempting to pull the image may not succeed.",
                )
            return [found[name] for name in sorted(found)]

        try:
            return await self._images.ensure(
                pod, reference, container.image, container.image_pull_policy or "IfNotPresent", secrets, sandbox.config
            )
        except ImageError as error:
            self._recorder.warning(reference, "Failed", f"Error: {error.reason}")
            raise StartError(error.reason, error.message) from error

    def _count_logs(self, pod: Pod, container: Container) -> int:
        """The restart count goes on where old logs end, if the runtime has forgotten the container."""
        directory = log_directory(self._settings.pod_logs_directory, pod) / container.name
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return 0
        counts = [int(name.partition(".log")[0]) for name in names if name.partition(".log")[0].isdigit()]
        return max(counts) + 1 if counts else 0

    def _target_id(self, observed: ObservedPod, target: str) -> str:
        if not target:
            return ""
        found = observed.find(target)
        if found is None:
            raise ConfigError(f'unable to find target container "{target}"')
        return found.status.id

    async def _environment(
        self, pod: Pod, container: Container, facts: FieldFacts, volumes: Mapping[str, MountedVolume]
    ) -> dict[str, str]:
        config_maps, secrets = referenced_objects(container)
        namespace = pod.metadata.namespace

        def read_file(selector: FileKeySelector) -> str | None:
            volume = volumes.get(selector.volume_name)
            if volume is None:
                raise ConfigError(f'cannot find the volume "{selector.volume_name}" referenced by FileKeyRef')
            path = Path(os.path.realpath(volume.path / selector.path.lstrip("/")))
            if volume.path not in path.parents:
                raise ConfigError(f"{selector.path} leaves the volume {selector.volume_name}")
            try:
                return path.read_text()
            except FileNotFoundError:
                return None

        sources = EnvSources(
            config_maps=await self._objects.wait_config_maps(namespace, config_maps),
            secrets=await self._objects.wait_secrets(namespace, secrets),
            services=self._node.visible_services,
            facts=facts,
            read_file=read_file,
        )
        return environment(pod, container, sources)

    async def _mounts(
        self,
        pod: Pod,
        container: Container,
        inputs: PodInputs,
        sandbox: Sandbox,
        volumes: Mapping[str, MountedVolume],
        env: Mapping[str, str],
        restart_count: int,
    ) -> list[cri.Mount]:
        plans = mounts_of(container, volumes, env, inputs.features)
        plans = [await self._with_image(pod, container, sandbox, plan) if plan.volume.image else plan for plan in plans]
        return await asyncio.to_thread(self._prepare_mounts, pod, container, sandbox, plans, restart_count)

    async def _with_image(self, pod: Pod, container: Container, sandbox: Sandbox, plan: MountPlan) -> MountPlan:
        """Fetch the image of an image volume; the runtime mounts it, or we do where it cannot."""
        name = plan.mount.name
        source = next(volume.image for volume in pod.spec.volumes if volume.name == name)
        assert source is not None, name
        copy = Container(name=container.name, image=source.reference, image_pull_policy=source.pull_policy)
        image = await self._image(pod, copy, sandbox)
        if self._node.supports_image_volumes:
            return dataclasses.replace(plan, volume=dataclasses.replace(plan.volume, image=image.id))
        if self._image_mounts is None:
            raise ConfigError(
                f'volume "{name}": the container runtime {self._node.runtime_name} {self._node.runtime_version} '
                "cannot mount images"
            )
        if plan.sub_path:
            raise ConfigError(f'volume "{name}": this container runtime has no subpaths of image volumes')
        target = self._settings.pod_directory(pod.metadata.uid) / "volumes" / "kubernetes.io~image" / name
        reference = image.repo_tags[0] if image.repo_tags else image.repo_digests[0]
        try:
            await self._image_mounts.mount(reference, target)
        except ImageMountError as error:
            raise ConfigError(str(error)) from error
        return dataclasses.replace(plan, volume=MountedVolume(target, read_only=True))

    def _prepare_mounts(
        self, pod: Pod, container: Container, sandbox: Sandbox, plans: Sequence[MountPlan], restart_count: int
    ) -> list[cri.Mount]:
        directory = self._settings.pod_directory(pod.metadata.uid)
        result: list[cri.Mount] = []
        mounted: set[str] = set()
        for index, mount in enumerate(container.volume_mounts):
            plan = plans[index]
            path, sub_path = plan.volume.path, plan.sub_path
            if sub_path and not plan.volume.image:
                target = directory / "volume-subpaths" / mount.name / container.name / str(index)
                path = prepare_subpath(path, sub_path, target)
            result.append(cri_mount(plan, path))
            mounted.add(mount.mount_path)
        if "/etc/hosts" not in mounted:
            result.append(self._hosts_mount(pod, sandbox, directory))
        if container.termination_message_path:
            log = termination_log_path(directory, container.name, restart_count)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
            log.chmod(0o666)  # Whoever the container runs as.
            result.append(cri.Mount(container.termination_message_path, str(log)))
        return result

    def _hosts_mount(self, pod: Pod, sandbox: Sandbox, directory: Path) -> cri.Mount:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "etc-hosts"
        host_file = Path("/etc/hosts").read_text() if pod.spec.host_network else ""
        path.write_text(hosts_file(pod, sandbox.ips, self._settings.cluster_domain, host_file))
        path.chmod(0o644)
        return cri.Mount("/etc/hosts", str(path))

    async def _create(self, pod: Pod, container: Container, sandbox: Sandbox, config: cri.ContainerConfig) -> str:
        reference = container_reference(pod, container.name)
        try:
            container_id = await self._runtime.create_container(sandbox.id, config, sandbox.config)
        except errors.RuntimeFailure as error:
            self._recorder.warning(reference, "Failed", f"Error: {error.message}")
            raise StartError("CreateContainerError", error.message) from error
        self._recorder.normal(reference, "Created", "Container created")
        return container_id

    async def _start_created(self, pod: Pod, container: Container, container_id: str) -> None:
        reference = container_reference(pod, container.name)
        try:
            await self._runtime.start_container(container_id)
        except errors.RuntimeFailure as error:
            self._recorder.warning(reference, "Failed", f"Error: {error.message}")
            raise StartError("RunContainerError", error.message) from error
        self.starts += 1
        self._recorder.normal(reference, "Started", "Container started")

    def _link_log(
        self, pod: Pod, container: Container, container_id: str, sandbox: Sandbox, config: cri.ContainerConfig
    ) -> None:
        """The link that log collectors follow: <pod>_<namespace>_<container>-<id>.log."""
        metadata = pod.metadata
        directory = self._settings.container_logs_directory
        name = f"{metadata.name}_{metadata.namespace}_{container.name}"[: 251 - len(container_id) - 5]
        link = directory / f"{name}-{container_id}.log"
        log = Path(sandbox.config.log_directory) / config.log_path
        if log.exists():
            directory.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(log)

    async def _run_post_start(self, pod: Pod, container: Container, container_id: str, sandbox: Sandbox) -> None:
        hook = container.lifecycle.post_start if container.lifecycle else None
        if hook is None:
            return
        ip = sandbox.ips[0] if sandbox.ips else (self._node.host_ips[0] if self._node.host_ips else "")
        outcome = await self._handlers.hook(hook, pod, container, container_id, ip)
        if outcome.kind is OutcomeKind.SUCCESS:
            return
        reference = container_reference(pod, container.name)
        self._recorder.warning(reference, "FailedPostStartHook", "PostStartHook failed")
        self._recorder.normal(reference, "Killing", "FailedPostStartHook")
        await self._runtime.stop_container(container_id, 2)
        raise StartError("PostStartHookError", outcome.text)
