"""Which container a request means, judged by the Pod's status. Texts are upstream's: kubectl shows them."""

from __future__ import annotations

from haven.api.core import v1 as core

__all__ = ["NotThere", "log_container_id", "running_container_id"]


class NotThere(Exception):
    """The container has no log, or does not run; the message says why."""


def log_container_id(pod: core.Pod, name: str, *, previous: bool) -> str:
    """Return the id of the container whose log is meant; raise NotThere."""
    status = _status(pod, name)
    where = f'container "{name}" in pod "{pod.metadata.name}"'
    if status is None:
        raise NotThere(f"{where} is not available")
    last = status.last_state.terminated
    state = status.state
    found = ""
    if previous:
        if last is None or not last.container_id:
            raise NotThere(f'previous terminated container "{name}" in pod "{pod.metadata.name}" not found')
        found = last.container_id
    elif state.running is not None:
        found = status.container_id
    elif state.terminated is not None:
        found = state.terminated.container_id or (last.container_id if last else "")
        if not found:
            raise NotThere(f"{where} is terminated")
    elif last is not None:
        if not last.container_id:
            raise NotThere(f"{where} is terminated")
        found = last.container_id
    elif state.waiting is not None:
        reasons = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
        }
        raise NotThere(f"{where} is waiting to start: {reasons.get(state.waiting.reason, state.waiting.reason)}")
    else:
        raise NotThere(f"{where} is waiting to start - no logs yet")
    return _bare(found)


def running_container_id(pod: core.Pod, name: str) -> str:
    """Return the id of a running container; raise NotThere."""
    status = _status(pod, name)
    if status is None or status.state.running is None or not status.container_id:
        raise NotThere(f'container not found ("{name}")')
    return _bare(status.container_id)


def _status(pod: core.Pod, name: str) -> core.ContainerStatus | None:
    status = pod.status
    for group in (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses):
        for item in group:
            if item.name == name:
                return item
    return None


def _bare(container_id: str) -> str:
    return container_id.partition("://")[2] or container_id
