"""How tests say what a simulated node is like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haven.api.core import v1 as core
from haven.hollow.nodes import NodeSettings

__all__ = ["node_settings"]


def node_settings(name: str, settings: Mapping[str, Any]) -> NodeSettings:
    """Return a node's settings; a taint may be a text as kubectl takes it, or a dict as the API has it."""
    taints = settings.get("taints", ())
    if isinstance(taints, str | Mapping | core.Taint):
        taints = (taints,)
    return NodeSettings(name, **{**settings, "taints": tuple(_taint(item) for item in taints)})


def _taint(said: object) -> core.Taint:
    if isinstance(said, core.Taint):
        return said
    if isinstance(said, Mapping) and said.keys() <= {"key", "value", "effect"}:
        return core.Taint(**said)
    if isinstance(said, str):
        rest, _, effect = said.rpartition(":")
        key, _, value = rest.partition("=")
        if key and effect:
            return core.Taint(key=key, value=value, effect=effect)
    raise ValueError(f"{said!r} is no taint: say 'key=value:NoSchedule' or {{'key': …, 'value': …, 'effect': …}}")
