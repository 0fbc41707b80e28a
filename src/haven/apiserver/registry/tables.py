"""Tables of objects, as kubectl get shows them: rows of cells beside the objects, or their metadata, or nothing.

Cells come from the printers, which want objects of the stored version; what stands beside them is of the served one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from haven.api import scheme
from haven.api.apps.validation import TEMPLATE_GENERATION
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.codecs.negotiate import Answer
from haven.apimachinery.goformat import quote
from haven.apiserver.printers import Printer, printer_for
from haven.apiserver.printers.format import default_row
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.request import Request
from haven.apiserver.watchcache import Entry

__all__ = ["partial_metadata", "table_of_entries", "table_of_objects"]

Row = tuple[Any, bytes, bytes]
"""An object of the stored version, and its JSON in the served and in the stored version."""


class _Head(msgspec.Struct):
    """What a row needs to know of an object beside its cells."""

    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    kind: str = ""
    api_version: str = msgspec.field(default="", name="apiVersion")


class _Revision(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")


_head = msgspec.json.Decoder(_Head).decode
_revision = msgspec.json.Decoder(_Revision).decode


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
    printer = _printer(endpoint)
    rows = [
        (orjson.loads(entry.data) if endpoint.printer else entry.glimpse, _served(endpoint, entry.data), entry.data)
        for entry in entries
    ]
    return _table(request, endpoint, form, printer, rows, list_metadata, without_headers)


def table_of_objects(
    request: Request,
    endpoint: Endpoint,
    form: Answer,
    objects: Sequence[bytes],
    *,
    list_metadata: bytes | None = None,
    without_headers: bool = False,
) -> bytes:
    """Return the Table of objects given as JSON, in the served version."""
    printer = _printer(endpoint)
    rows: list[Row] = []
    for data in objects:
        head = _head(data)
        if endpoint.printer and head.kind == endpoint.resource.kind:
            rows.append((orjson.loads(data), data, data))
            continue
        if head.kind == endpoint.resource.kind:
            stored = endpoint.conversion.to_stored(serialization.decode(data, endpoint.resource.type))
            rows.append((stored, data, data if endpoint.conversion.is_identity else serialization.encode(stored)))
        else:  # A subresource's object, such as a Scale.
            group, _, version = head.api_version.rpartition("/")
            printer = printer_for(group, head.kind)
            rows.append((serialization.decode(data, scheme.kind_type(group, version, head.kind)), data, data))
    return _table(request, endpoint, form, printer, rows, list_metadata, without_headers)


def _printer(endpoint: Endpoint) -> Printer:
    return endpoint.printer or printer_for(endpoint.conversion.stored.group, endpoint.conversion.stored.kind)


def _served(endpoint: Endpoint, data: bytes) -> bytes:
    return data if endpoint.conversion.is_identity else endpoint.conversion.served_bytes(data)


def _table(
    request: Request,
    endpoint: Endpoint,
    form: Answer,
    printer: Printer,
    rows: Sequence[Row],
    list_metadata: bytes | None,
    without_headers: bool,
) -> bytes:
    include = request.get("includeObject")
    if include not in ("", "Metadata", "Object", "None"):
        text = f"includeObject: Invalid value: {quote(include)}: must be 'Metadata', 'Object', 'None', or empty"
        raise apierrors.BadRequest(f"Unable to convert to Table as requested: {text}")
    now = endpoint.clock.now_seconds()
    if printer.order is not None and list_metadata is not None:
        order = printer.order
        rows = sorted(rows, key=lambda row: order(row[0]))
    version = form.group_version.encode()
    written = [_row(printer, row, include, version, now) for row in rows]
    if list_metadata is None:
        list_metadata = serialization.encode(_single_metadata(rows))
    columns = b"null" if without_headers else serialization.encode(list(printer.columns))
    return b'{"kind":"Table","apiVersion":"%b","metadata":%b,"columnDefinitions":%b,"rows":%b}' % (
        version,
        list_metadata,
        columns,
        b"null" if not rows and printer.cells is default_row else b"[%b]" % b",".join(written),
    )


def _single_metadata(rows: Sequence[Row]) -> dict[str, str]:
    revision = _revision(_head(rows[0][1]).metadata).resource_version if len(rows) == 1 else ""
    return {"resourceVersion": revision} if revision else {}


def _row(printer: Printer, row: Row, include: str, version: bytes, now: float) -> bytes:
    item, data, stored = row
    cells = serialization.encode(printer.cells(item, now))
    conditions = printer.conditions(item) if printer.conditions else None
    marks = b',"conditions":' + serialization.encode(conditions) if conditions else b""
    if include == "Object":
        shown = data
    elif include == "None":
        shown = b"null"
    else:
        shown = b'{"kind":"PartialObjectMetadata","apiVersion":"%b","metadata":%b}' % (
            version,
            partial_metadata(stored),
        )
    return b'{"cells":%b%b,"object":%b}' % (cells, marks, shown)


def partial_metadata(data: bytes) -> bytes:
    """Return the metadata of an object of the stored version, as it is shown without the object.

    Upstream's internal DaemonSet counts its templates in a field, not in the annotation that clients see.
    """
    head = _head(data)
    metadata = bytes(head.metadata)
    if head.kind != "DaemonSet" or TEMPLATE_GENERATION.encode() not in metadata:
        return metadata
    tree = orjson.loads(metadata)
    tree["annotations"].pop(TEMPLATE_GENERATION, None)
    if not tree["annotations"]:
        del tree["annotations"]
    return serialization.encode_tree(tree)
