"""Rows of the group node.k8s.io."""

from __future__ import annotations

from typing import Any

from haven.api.node import v1 as node_v1
from haven.apiserver.printers.format import age

__all__ = ["ROWS"]


def _runtime_class(item: node_v1.RuntimeClass, now: float) -> list[Any]:
    return [item.metadata.name, item.handler, age(item.metadata.creation_timestamp, now)]


ROWS = {"RuntimeClass": _runtime_class}
