"""Reads what the runtime holds of a pod, with termination messages; what cannot change any more is remembered."""

from __future__ import annotations

import asyncio
from pathlib import Path

from haven.cri import errors
from haven.cri.interface import ContainerInfo, ContainerState, Runtime, SandboxInfo, SandboxState, SandboxStatus
from haven.kubelet.observation import (
    ANNOTATION_TERMINATION_PATH,
    ANNOTATION_TERMINATION_POLICY,
    LABEL_POD_UID,
    ObservedContainer,
    ObservedPod,
)

__all__ = ["Observer", "termination_log_path"]

_MESSAGE_BYTES_MAX = 4096
_LOG_TAIL_BYTES_MAX = 2048
_LOG_TAIL_LINES_MAX = 80


def termination_log_path(pod_directory: Path, container: str, restart_count: int) -> Path:
    """Return the file that a container sees as its termination log."""
    return pod_directory / "containers" / container / f"{restart_count}.termination-log"


class Observer:
    """Looks at one pod."""

    def __init__(self, runtime: Runtime, runtime_name: str, uid: str, pod_directory: Path) -> None:
        self._runtime = runtime
        self._runtime_name = runtime_name
        self._uid = uid
        self._pod_directory = pod_directory
        self._ended: dict[str, ObservedContainer] = {}
        self._sandboxes: dict[str, SandboxStatus] = {}

    async def observe(self) -> ObservedPod:
        """Return what there is now; raise RuntimeFailure."""
        labels = {LABEL_POD_UID: self._uid}
        sandboxes, containers = await asyncio.gather(
            self._runtime.list_sandboxes(labels), self._runtime.list_containers(labels=labels)
        )
        sandboxes = sorted(sandboxes, key=lambda item: (-item.created_at, -item.attempt))
        containers = sorted(containers, key=lambda item: (-item.created_at, -item.attempt))
        found_sandboxes = await asyncio.gather(*(self._sandbox(item) for item in sandboxes))
        found_containers = await asyncio.gather(*(self._container(item) for item in containers))
        for memory, ids in (
            (self._ended, {item.id for item in containers}),
            (self._sandboxes, {item.id for item in sandboxes}),
        ):
            for key in [key for key in memory if key not in ids]:
                del memory[key]
        return ObservedPod(
            tuple(item for item in found_sandboxes if item is not None),
            tuple(item for item in found_containers if item is not None),
            self._runtime_name,
        )

    async def _sandbox(self, info: SandboxInfo) -> SandboxStatus | None:
        known = self._sandboxes.get(info.id)
        if known is not None and known.info.state is info.state and (known.ips or info.state is SandboxState.NOT_READY):
            return known
        try:
            status = await self._runtime.sandbox_status(info.id)
        except errors.NotFound:
            return None
        self._sandboxes[info.id] = status
        return status

    async def _container(self, info: ContainerInfo) -> ObservedContainer | None:
        known = self._ended.get(info.id)
        if known is not None:
            return known
        try:
            status = await self._runtime.container_status(info.id)
        except errors.NotFound:
            return None
        found = ObservedContainer(status, info.sandbox_id, status.message)
        if status.state is ContainerState.EXITED:
            message = await asyncio.to_thread(self._termination_message, found)
            if message:
                joined = f"{status.message}: {message}" if status.message else message
                found = ObservedContainer(status, info.sandbox_id, joined)
            self._ended[info.id] = found
        return found

    def _termination_message(self, found: ObservedContainer) -> str:
        annotations = found.status.annotations
        if annotations.get(ANNOTATION_TERMINATION_PATH):
            path = termination_log_path(self._pod_directory, found.name, found.restart_count)
            text = _head(path, _MESSAGE_BYTES_MAX)
            if text:
                return text
        wants_logs = annotations.get(ANNOTATION_TERMINATION_POLICY) == "FallbackToLogsOnError"
        if wants_logs and found.status.exit_code != 0 and found.status.reason != "ContainerCannotRun":
            return log_tail(Path(found.status.log_path))
        return ""


def _head(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def log_tail(path: Path) -> str:
    """Return the last lines that a container wrote, without the log format's prefix; "" if there is no log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            # Prefixes are about 45 bytes a line: read enough that the limit applies to the text.
            file.seek(max(0, size - _LOG_TAIL_BYTES_MAX - 64 * _LOG_TAIL_LINES_MAX))
            raw = file.read().decode(errors="replace")
    except OSError:
        return ""
    parts: list[str] = []
    for line in raw.splitlines()[-_LOG_TAIL_LINES_MAX:]:
        fields = line.split(" ", 3)
        if len(fields) == 4:
            parts.append(fields[3] + ("" if fields[2] == "P" else "\n"))
    return "".join(parts)[-_LOG_TAIL_BYTES_MAX:]
