"""Tables of objects, as kubectl get shows them: rows of cells beside the objects, or their metadata, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from haven.apimachinery import apierrors
from haven.apimachinery.codecs.negotiate import Answer
from haven.apimachinery.goformat import quote
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.request import Request
from haven.apiserver.watchcache import Entry

__all__ = ["table_of_entries", "table_of_objects"]

_COLUMNS = [
    {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
    {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
]


def table_of_entries(
    request: Request,
    endpoint: Endpoint,
    form: Answer,
    entries: Sequence[Entry],
    list_metadata: bytes | None,
    *,
    without_headers: bool = False,
) -> bytes:
    """Return the Table of stored objects; `list_metadata` is that of the list, None for a single object."""
    objects = [endpoint.conversion.served_bytes(entry.data) for entry in entries]
    return table_of_objects(
        request, endpoint, form, objects, list_metadata=list_metadata, without_headers=without_headers
    )


def table_of_objects(
    request: Request,
    endpoint: Endpoint,
    form: Answer,
    objects: Sequence[bytes],
    *,
    list_metadata: bytes | None = None,
    without_headers: bool = False,
) -> bytes:
    """Return the Table of objects given as JSON."""
    include = request.get("includeObject")
    if include not in ("", "Metadata", "Object", "None"):
        text = f"includeObject: Invalid value: {quote(include)}: must be 'Metadata', 'Object', 'None', or empty"
        raise apierrors.BadRequest(f"Unable to convert to Table as requested: {text}")
    rows: list[dict[str, Any]] = []
    trees = [orjson.loads(data) for data in objects]
    for tree in trees:
        metadata = tree["metadata"]
        row: dict[str, Any] = {"cells": [metadata.get("name", ""), metadata.get("creationTimestamp", "")]}
        if include == "Object":
            row["object"] = tree
        elif include == "None":
            row["object"] = None
        else:
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": form.group_version,
                "metadata": metadata,
            }
        rows.append(row)
    metadata = orjson.loads(list_metadata) if list_metadata else {}
    if not list_metadata and len(trees) == 1 and "resourceVersion" in trees[0]["metadata"]:
        metadata = {"resourceVersion": trees[0]["metadata"]["resourceVersion"]}
    table = {
        "kind": "Table",
        "apiVersion": form.group_version,
        "metadata": metadata,
        "columnDefinitions": None if without_headers else _COLUMNS,
        "rows": rows,
    }
    return orjson.dumps(table)
