"""Answers: stored bytes in the representation that the client asked for.

JSON answers are spliced from stored bytes. Other representations of an object are made at most once and kept with its
entry. Objects that are not stored (a dry run, a Status) are encoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.codecs import protobuf, yaml
from haven.apimachinery.codecs.negotiate import (
    DOCUMENTS,
    JSON,
    PROTOBUF,
    YAML,
    Answer,
    check_route,
    is_pretty,
    negotiate,
)
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.tables import partial_metadata, table_of_entries, table_of_objects
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import Entry

__all__ = [
    "answer_form",
    "encode_json_as",
    "entry_bytes",
    "entry_response",
    "list_response",
    "object_response",
    "refusal_response",
]

_PLAIN = Answer(JSON)
_HUMAN_AGENTS = ("curl", "Wget", "Mozi")
_HEADERS: dict[str, dict[str, str]] = {
    JSON: {"Content-Type": JSON},
    YAML: {"Content-Type": YAML},
    PROTOBUF: {"Content-Type": PROTOBUF},
}


class _NoList(apierrors.ApiError):
    """The metadata of a list is asked for where there is one custom resource; upstream fails without a reason."""

    code, reason = 500, ""


def answer_form(request: Request, endpoint: Endpoint, *, streams: bool = False, tables: bool = True) -> Answer:
    """Return the representation that the client wants; raise NotAcceptable.

    What is only posted and never kept (reviews, bindings, evictions) has no Table.
    """
    accept = request.headers.get("accept", "")
    if accept == JSON or (not accept and request.local):
        form = _PLAIN
    else:
        if endpoint.view is None:
            check_route(accept, endpoint.offer, streams=streams)
        form = negotiate(accept, endpoint.offer if tables else replace(endpoint.offer, tables=False))
    if form is _PLAIN or form.is_plain_json:
        agent = request.headers.get("user-agent", "")
        if (agent[:4] in _HUMAN_AGENTS or "pretty" in request.query) and is_pretty(request.get("pretty"), agent):
            return replace(form, pretty=True)
    return form


def partial_bytes(data: bytes, group_version: str) -> bytes:
    """Return the PartialObjectMetadata of an object's JSON."""
    return b'{"kind":"PartialObjectMetadata","apiVersion":"%b","metadata":%b}' % (
        group_version.encode(),
        partial_metadata(data),
    )


def encode_json_as(data: bytes, form: Answer) -> bytes:
    """Return JSON as another media type."""
    if form.media_type == YAML:
        return yaml.write(data)
    if form.media_type == PROTOBUF:
        return protobuf.from_json(data)
    if form.pretty:
        return orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2)
    return data


def refusal_response(request: Request, status: Any, code: int) -> Response:
    """Answer with a Status in the form that the client wants; in readable JSON if it wants none that there is."""
    data = serialization.encode(status)
    try:
        form = negotiate(request.headers.get("accept", ""), DOCUMENTS)
    except apierrors.NotAcceptable:
        return Response(code, {"Content-Type": JSON}, orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2))
    if form.is_plain_json and is_pretty(request.get("pretty"), request.headers.get("user-agent", "")):
        form = replace(form, pretty=True)
    return _response(code, encode_json_as(data, form), form)


def served_bytes(entry: Entry, endpoint: Endpoint) -> bytes:
    """Return an object's JSON in the endpoint's version."""
    conversion = endpoint.conversion
    if conversion.is_identity:
        return entry.data
    return entry.encoded((conversion.served.gvk, JSON), lambda one: conversion.served_bytes(one.data))


def entry_bytes(entry: Entry, endpoint: Endpoint, form: Answer) -> bytes:
    """Return an object in a representation other than a Table."""
    data = served_bytes(entry, endpoint)
    if not form.kind:
        if form.media_type == JSON and not form.pretty:
            return data
        return entry.encoded((endpoint.gvk, form), lambda _: encode_json_as(data, form))
    return entry.encoded(
        form,
        lambda _: encode_json_as(partial_bytes(data, form.group_version), form),
    )


def entry_response(request: Request, endpoint: Endpoint, form: Answer, entry: Entry, status: int = 200) -> Response:
    """Answer with a stored object."""
    if request.local and not form.kind:
        return Response(status, object=endpoint.conversion.to_served(entry.object))
    if form.kind == "Table":
        return _response(status, encode_json_as(table_bytes(request, endpoint, form, [entry], None), form), form)
    if form.kind == "PartialObjectMetadataList":
        raise _no_list(endpoint, endpoint.resource.kind)
    return _response(status, entry_bytes(entry, endpoint, form), form)


def _no_list(endpoint: Endpoint, kind: str) -> apierrors.ApiError:
    """Return the refusal of an object of some kind, which belongs to an endpoint, as a list."""
    if endpoint.view is not None and kind == endpoint.resource.kind:
        return _NoList("content is not a list")
    group = "autoscaling" if kind == "Scale" else endpoint.resource.group.split(".")[0] or "core"
    text = f"you requested PartialObjectMetadataList, but the requested object is not a list (*{group}.{kind})"
    return apierrors.NotAcceptable(text)


def object_response(
    request: Request, endpoint: Endpoint, form: Answer, obj: Any, status: int = 200, *, served: bool = False
) -> Response:
    """Answer with an object that is not stored; it is of the stored version unless `served` says otherwise."""
    if not served:
        obj = endpoint.conversion.to_served(obj)
    if request.local and not form.kind:
        return Response(status, object=obj)
    if form.kind and isinstance(obj, meta.Status):
        form = replace(form, kind="", group_version="")  # It is always shown as it is.
    if form.kind == "PartialObjectMetadataList":
        raise _no_list(endpoint, obj.kind)
    data = serialization.encode(obj)
    if form.kind == "PartialObjectMetadata":
        data = partial_bytes(data, form.group_version)
    elif form.kind == "Table":
        data = table_of_objects(request, endpoint, form, [data])
    return _response(status, encode_json_as(data, form), form)


def table_bytes(
    request: Request, endpoint: Endpoint, form: Answer, entries: Sequence[Entry], list_metadata: bytes | None
) -> bytes:
    """Return a Table of stored objects."""
    return table_of_entries(request, endpoint, form, entries, list_metadata)


def list_response(
    request: Request,
    endpoint: Endpoint,
    form: Answer,
    entries: Sequence[Entry],
    *,
    revision: int,
    continue_: str = "",
    remaining: int | None = None,
) -> Response:
    """Answer with a list; items are joined from stored bytes."""
    metadata = b'{"resourceVersion":"%d"' % revision
    if continue_ or (endpoint.view is not None and not form.kind):
        metadata += b',"continue":"%b"' % continue_.encode()
    if remaining is not None:
        metadata += b',"remainingItemCount":%d' % remaining
    metadata += b"}"
    if form.kind == "Table":
        data = table_bytes(request, endpoint, form, entries, metadata)
        return _response(200, encode_json_as(data, form), form)
    if form.kind == "PartialObjectMetadata":
        group = endpoint.resource.group.split(".")[0] or "core"
        go_type = f"{group}.{endpoint.list_kind}" if endpoint.view is None else "unstructured.UnstructuredList"
        raise apierrors.NotAcceptable(
            f"you requested PartialObjectMetadata, but the requested object is a list (*{go_type})"
        )
    if form.kind:
        version = form.group_version.encode()
        items = [partial_bytes(entry.data, form.group_version) for entry in entries]
        data = b'{"kind":"PartialObjectMetadataList","apiVersion":"%b","metadata":%b,"items":%b}' % (
            version,
            metadata,
            b"[%b]" % b",".join(items) if items else b"null",
        )
        return _response(200, encode_json_as(data, form), form)
    resource = endpoint.resource
    head = b'{"kind":"%b","apiVersion":"%b","metadata":%b,"items":[' % (
        endpoint.list_kind.encode(),
        resource.api_version.encode(),
        metadata,
    )
    if endpoint.view is not None:  # Items of custom resources' lists say what they are.
        body = head + b",".join([entry.data for entry in entries]) + b"]}\n"
        return _response(200, encode_json_as(body, form), form)
    cut = len(b'{"kind":"%b","apiVersion":"%b",' % (resource.kind.encode(), resource.api_version.encode()))
    # One copy of each object, straight into the body: views instead of slices, one join instead of two.
    parts: list[bytes | memoryview] = [head]
    separator = b"{"
    is_identity = endpoint.conversion.is_identity
    for entry in entries:
        parts.append(separator)
        parts.append(memoryview(entry.data if is_identity else served_bytes(entry, endpoint))[cut:])
        separator = b",{"
    parts.append(b"]}\n")
    body = b"".join(parts)
    return _response(200, encode_json_as(body, form), form)


def _response(status: int, body: bytes, form: Answer) -> Response:
    if form.media_type == JSON and not form.pretty and not body.endswith(b"\n"):
        body += b"\n"  # As Go's encoder does; readable JSON has none.
    return Response(status, _HEADERS[form.media_type], body)
