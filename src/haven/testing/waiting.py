"""Waiting for objects, and saying what was there instead when it does not come true. Pure.

A condition is "exists", "deleted", the type of a status condition ("Available", "Ready=False"), a part of the object
({"status": {"readyReplicas": 3}}), or a function of the object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from haven.testing.audit import contains

__all__ = ["Condition", "Target", "WaitTimeout", "Wanted", "describe_pod", "explain"]

Tree = dict[str, Any]
Wanted = str | Mapping[str, Any] | Callable[..., Any]
STATUS_LINES_MAX = 60
EVENTS_MAX = 15
PODS_MAX = 40


class WaitTimeout(AssertionError):
    """Something did not come true in time; the message shows what was seen last."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object."""

    kind: str
    name: str
    namespace: str

    @classmethod
    def of(cls, target: str | Mapping[str, Any], namespace: str) -> Target:
        """Read "kind/name", or take the place of an object."""
        if isinstance(target, Mapping):
            metadata = target["metadata"]
            place = str(metadata.get("namespace") or namespace)
            return cls(f"{target['apiVersion']}/{target['kind']}", str(metadata["name"]), place)
        kind, slash, name = target.rpartition("/")
        if not slash or not kind or not name:
            raise ValueError(f"{target!r} names no object: say kind/name, as deployment/web")
        return cls(kind, name, namespace)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name} in {self.namespace}"


@dataclass(frozen=True, slots=True)
class Condition:
    """What is waited for."""

    text: str
    holds: Callable[[Tree | None], Any]

    def holds_now(self, obj: Tree | None) -> bool:
        """Tell whether it holds; what is not there yet (a LookupError) makes it false."""
        try:
            return bool(self.holds(obj))
        except LookupError:
            return False

    @classmethod
    def of(cls, wanted: Wanted) -> Condition:
        """Return the condition that a test's word, mapping or function means."""
        if not isinstance(wanted, str | Mapping) and not callable(wanted):
            raise TypeError(f"{wanted!r} is no condition: say a word, a part of the object, or a function of it")
        if callable(wanted):
            return cls(f"{_name(wanted)} is true", lambda obj: obj is not None and wanted(obj))
        if isinstance(wanted, Mapping):
            return cls(f"it contains {dict(wanted)}", lambda obj: obj is not None and contains(obj, wanted))
        if wanted == "exists":
            return cls("it exists", lambda obj: obj is not None)
        if wanted == "deleted":
            return cls("it is gone", lambda obj: obj is None)
        type_, _, value = wanted.partition("=")
        value = value or "True"
        return cls(f"condition {type_} is {value}", lambda obj: obj is not None and _has(obj, type_, value))


def _name(function: Callable[..., Any]) -> str:
    try:
        text = " ".join(inspect.getsource(function).split())
    except (OSError, TypeError):
        return getattr(function, "__name__", repr(function))
    return text if "lambda" in text else getattr(function, "__name__", text)


def _has(obj: Tree, type_: str, value: str) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(item.get("type") == type_ and item.get("status") == value for item in conditions)


def explain(
    what: str,
    seconds: float,
    obj: Tree | None,
    events: Sequence[Tree],
    neighbours: Sequence[Tree] = (),
    *,
    error: BaseException | None = None,
    is_of_object: bool = True,
) -> str:
    """Return the message of a WaitTimeout: the object's state, its Events, the Pods that belong to it.

    `error` is why the condition could not be asked the last time, or the object not be got.
    """
    lines = [f"after {seconds:g} s it is still not so that {what}."]
    if error is not None:
        lines.append(f"{type(error).__name__}: {error}")
    if not is_of_object:
        pass
    elif obj is None:
        lines.append("The object does not exist.")
    else:
        metadata = obj.get("metadata", {})
        shown: Tree = {"generation": metadata.get("generation"), "deletionTimestamp": metadata.get("deletionTimestamp")}
        shown = {key: value for key, value in shown.items() if value is not None}
        if metadata.get("finalizers"):
            shown["finalizers"] = metadata["finalizers"]
        shown["status"] = obj.get("status", "(none)")
        text = yaml.safe_dump(shown, sort_keys=False).rstrip().splitlines()
        if len(text) > STATUS_LINES_MAX:
            text = [*text[:STATUS_LINES_MAX], "…"]
        lines += ["It is:", *(f"  {line}" for line in text)]
    if events:
        lines.append("Events:")
        warnings = [item for item in events if item.get("type") == "Warning"]
        lines += [f"  {_event(item)}" for item in (warnings or events)[-EVENTS_MAX:]]
    if neighbours:
        lines.append("Pods:")
        lines += [f"  {describe_pod(item)}" for item in neighbours[:PODS_MAX]]
        if len(neighbours) > PODS_MAX:
            lines.append(f"  … and {len(neighbours) - PODS_MAX} more")
    elif not is_of_object:
        lines.append("There are no Pods.")
    return "\n".join(lines)


def _event(item: Tree) -> str:
    regarding = item.get("involvedObject", {})
    place = f"{regarding.get('kind', '')}/{regarding.get('name', '')}"
    return f"{item.get('type')} {item.get('reason')} {place}: {item.get('message') or item.get('note', '')}"


def describe_pod(pod: Tree) -> str:
    """Return one line about a Pod."""
    metadata, status = pod["metadata"], pod.get("status", {})
    parts = [metadata["name"], status.get("phase", "?"), f"on {pod['spec'].get('nodeName') or 'no node'}"]
    for item in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = item.get("state") or {}
        kind = next(iter(state), "")
        reason = (state.get(kind) or {}).get("reason", "")
        ready = "ready" if item.get("ready") else "not ready"
        parts.append(f"[{item['name']}: {reason or kind}, {ready}, {item.get('restartCount', 0)} restarts]")
    if metadata.get("deletionTimestamp"):
        parts.append("being deleted")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            parts.append(condition.get("message", ""))
    return " ".join(parts)
