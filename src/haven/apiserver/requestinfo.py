"""What a request is about, from its method, path and query.

Source: the rules of k8s.io/apiserver's RequestInfo resolver, with its forms:
/api/{version}/…, /apis/{group}/{version}/…, namespaces/{namespace}/{resource}/{name}/{subresource},
and the old prefixes /watch/ and /proxy/ before the resource.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from haven.apimachinery.selectors import SelectorError, parse_fields
from haven.apiserver.request import RequestInfo

__all__ = ["MalformedPath", "path_segment_errors", "resolve"]

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_WITH_SELECTORS = frozenset({"list", "watch", "deletecollection"})


class MalformedPath(ValueError):
    """A path with a special verb and nothing behind it."""


def path_segment_errors(name: str) -> list[str]:
    """Return why a name cannot be one segment of a path; [] if it can."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{sign}'" for sign in ("/", "%") if sign in name]


def resolve(method: str, path: str, query: Mapping[str, Sequence[str]]) -> RequestInfo:
    """Return what the request is about; raise MalformedPath."""
    if not query:
        return _resolve_plain(method, path)
    return _resolve(method, path, query)


@lru_cache(maxsize=8192)
def _resolve_plain(method: str, path: str) -> RequestInfo:
    return _resolve(method, path, {})


def _resolve(method: str, path: str, query: Mapping[str, Sequence[str]]) -> RequestInfo:
    parts = path.strip("/").split("/")
    other = RequestInfo(verb=method.lower(), path=path, is_resource=False)
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return other
    prefix, parts = parts[0], parts[1:]
    group = ""
    if prefix == "apis":
        if len(parts) < 3:
            return RequestInfo(verb=method.lower(), path=path, is_resource=False, api_prefix=prefix)
        group, parts = parts[0], parts[1:]
    version, parts = parts[0], parts[1:]

    by_prefix = parts[0] in ("watch", "proxy")
    if by_prefix:
        if len(parts) < 2:
            raise MalformedPath("unable to determine kind and namespace from url")
        verb, parts = parts[0], parts[1:]
    else:
        verb = _VERBS.get(method, "")

    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]

    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 and verb != "proxy" else ""

    if not name and verb == "get":
        verb, name = _collection_verb(query)
    if not name and verb == "delete":
        verb = "deletecollection"

    label_selector = field_selector = ""
    if not by_prefix and verb in _WITH_SELECTORS:
        label_selector = _first(query, "labelSelector")
        field_selector = _first(query, "fieldSelector")
    return RequestInfo(
        verb=verb,
        path=path,
        is_resource=True,
        api_prefix=prefix,
        group=group,
        version=version,
        namespace=namespace,
        resource=resource,
        subresource=subresource,
        name=name,
        parts=tuple(parts),
        label_selector=label_selector,
        field_selector=field_selector,
    )


def _collection_verb(query: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Return (list or watch, the name that a field selector asks for or "")."""
    watch = _first(query, "watch").lower() not in ("", "false", "0") or (
        "watch" in query and not _first(query, "watch")
    )
    name = ""
    if text := _first(query, "fieldSelector"):
        try:
            name = parse_fields(text).exact("metadata.name") or ""
        except SelectorError:
            name = ""
        if name and path_segment_errors(name):
            name = ""
    return ("watch" if watch else "list"), name


def _first(query: Mapping[str, Sequence[str]], name: str) -> str:
    values = query.get(name)
    return values[0] if values else ""
