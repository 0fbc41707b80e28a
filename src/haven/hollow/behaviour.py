"""What simulated Pods do, and how that is chosen: rules by name, labels, image, owner and container, then annotations.

A behaviour says only what differs from the default, which is to start at once, be ready at once and run until told
otherwise. Later rules override earlier ones; a Pod's own annotations (hollow.haven.local/run-seconds: "5") override
all rules.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haven.api.core import v1 as core
from haven.apimachinery.selectors import LabelSelector

__all__ = ["ANNOTATIONS", "DEFAULT", "BadBehaviour", "Behaviour", "Exec", "ExecResult", "Rule", "Usage", "behaviour_of"]

ANNOTATIONS = "hollow.haven.local/"


class BadBehaviour(ValueError):
    """An annotation cannot be understood; the message names it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container consumes, as metrics tell it."""

    cpu_cores: float = 0.001
    memory_bytes: int = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended in a simulated container."""

    stdout: bytes | str = b""
    stderr: bytes | str = b""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Exec:
    """A command that somebody runs in a simulated container. `stdin` is what was sent before the input ended."""

    pod: core.Pod
    container: str
    command: tuple[str, ...]
    stdin: bytes = b""
    tty: bool = False


Log = Callable[[core.Pod, str], str | Iterable[str]]
Run = Callable[[Exec], Any]
"""Answers a command: an ExecResult, its standard output as text or bytes, or an awaitable of one of them."""
Port = Callable[[core.Pod, int, Any, Any], Awaitable[None]]
"""Serves one forwarded connection: (pod, port, asyncio.StreamReader, writer with write/drain/close)."""
Probe = Callable[[core.Pod, core.Container, str], bool]
"""Answers one probe: (pod, container, "startup" | "readiness" | "liveness") -> whether it succeeds."""
UsageOf = Callable[[core.Pod, str], Usage]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a container does. None leaves a thing to earlier rules and, in the end, to the default."""

    start_seconds: float | None = None
    """From being bound (or from the restart) to running: pulling, creating."""
    ready_seconds: float | None = None
    """From running to ready, if readiness is not up to a probe callback or to a test."""
    run_seconds: float | None = None
    """From running to its end; without, a container runs until told otherwise (init containers end at once)."""
    exit_code: int | None = None
    """With which it ends after `run_seconds`."""
    reason: str | None = None
    """Of that end; by default Completed, Error or OOMKilled by the exit code."""
    message: str | None = None
    """The termination message."""
    stop_seconds: float | None = None
    """How long it goes on after it is asked to stop; the grace period cuts it off with exit code 137."""
    ready: bool | None = None
    """False keeps it unready until a test says otherwise."""
    start_error: str | None = None
    """Why it cannot start, as a waiting reason: ErrImagePull, ImagePullBackOff, CreateContainerConfigError, …"""
    log: str | Log | None = None
    run: Run | None = None
    port: Port | None = None
    probe: Probe | None = None
    usage: Usage | UsageOf | None = None

    def over(self, other: Behaviour) -> Behaviour:
        """Return this behaviour with what it leaves open taken from another."""
        said = {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) is not None}
        return dataclasses.replace(other, **said)


DEFAULT = Behaviour()


@dataclass(frozen=True, slots=True)
class Rule:
    """A behaviour for the containers that match everything given. Patterns are shell patterns."""

    behaviour: Behaviour
    name: str = ""
    namespace: str = ""
    labels: LabelSelector | None = None
    image: str = ""
    owner: str = ""
    """The kind of the Pod's controller: Job, ReplicaSet, StatefulSet, …"""
    container: str = ""
    node: str = ""

    def matches(self, pod: core.Pod, container: core.Container) -> bool:
        """Tell whether the rule concerns a container."""
        metadata = pod.metadata
        if self.owner and not any(o.controller and o.kind == self.owner for o in metadata.owner_references):
            return False
        if self.labels is not None and not self.labels.matches(metadata.labels):
            return False
        wanted = (
            (self.name, metadata.name),
            (self.namespace, metadata.namespace),
            (self.image, container.image),
            (self.container, container.name),
            (self.node, pod.spec.node_name),
        )
        return all(not pattern or fnmatch.fnmatchcase(text, pattern) for pattern, text in wanted)


def behaviour_of(pod: core.Pod, container: core.Container, rules: Sequence[Rule]) -> Behaviour:
    """Return what a container does; raise BadBehaviour if an annotation makes no sense."""
    result = DEFAULT
    for rule in rules:
        if rule.matches(pod, container):
            result = rule.behaviour.over(result)
    annotated = _annotated(pod.metadata.annotations)
    return annotated.over(result) if annotated is not None else result


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


_READ: Mapping[str, Callable[[str], Any]] = {
    "start-seconds": float, "ready-seconds": float, "run-seconds": float, "stop-seconds": float,
    "exit-code": int, "reason": str, "message": str, "ready": _truth, "start-error": str, "log": str,
}  # fmt: skip


def _annotated(annotations: Mapping[str, str]) -> Behaviour | None:
    said: dict[str, Any] = {}
    for key, text in annotations.items():
        if not key.startswith(ANNOTATIONS):
            continue
        name = key.removeprefix(ANNOTATIONS)
        read = _READ.get(name)
        if read is None:
            raise BadBehaviour(f"annotation {key} is unknown: there are {', '.join(sorted(_READ))}")
        try:
            said[name.replace("-", "_")] = read(text)
        except ValueError as error:
            raise BadBehaviour(f"annotation {key}: {text!r} is not understood: {error}") from None
    return Behaviour(**said) if said else None
