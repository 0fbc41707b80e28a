"""The API as a test's own calls use it: plain dicts in and out, kinds found by any of their names, manifests applied.

Runs on the cluster's event loop, without sockets, as an administrator.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import yaml

from haven.api.scheme import Resource
from haven.apimachinery import apierrors, serialization
from haven.client.interface import Transport

__all__ = ["Manifest", "Objects", "UnknownKind", "check_object", "read_manifests"]

FIELD_MANAGER = "haven-testing"
Tree = dict[str, Any]
Trees = list[Tree]
Manifest = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""A path (a file, or a folder of them), YAML or JSON text, one object, or several."""
_CUSTOM = "CustomResourceDefinition"


class UnknownKind(LookupError):
    """The cluster serves no such kind; the message names it."""


class Table(Protocol):
    """What the API server serves at this moment."""

    def resources(self) -> Sequence[Resource[Any]]:
        """Return every resource that is stored, preferred versions first."""
        ...


def read_manifests(manifest: Manifest) -> Trees:
    """Return the objects of a manifest; lists of objects are taken apart."""
    if isinstance(manifest, Path) or (isinstance(manifest, str) and _is_path(manifest)):
        path = Path(manifest)
        if path.is_dir():
            files = sorted(item for item in path.rglob("*") if item.suffix in (".yaml", ".yml", ".json"))
            return [obj for item in files for obj in read_manifests(item)]
        return _documents(path.read_text(encoding="utf-8"))
    if isinstance(manifest, str):
        return _documents(manifest)
    if isinstance(manifest, Mapping):
        return _flat([dict(manifest)])
    if not isinstance(manifest, Iterable):
        raise TypeError(f"{manifest!r} is no manifest: a path, YAML or JSON text, one object or several")
    return _flat(manifest)


def _is_path(text: str) -> bool:
    """Tell a path from a document, which has lines or a colon in it; raise FileNotFoundError for a path to nothing."""
    if "\n" in text or text.lstrip().startswith(("{", "[")) or (": " in text and not os.path.exists(text)):
        return False
    if not os.path.exists(text):
        raise FileNotFoundError(f"there is no manifest {text!r} in {Path.cwd()}, and it is no YAML text of an object")
    return True


def _documents(text: str) -> Trees:
    return _flat([item for item in yaml.safe_load_all(text) if item is not None])


def check_object(item: Any) -> None:
    """Raise ValueError for what is no object of Kubernetes."""
    if not isinstance(item, Mapping) or not item.get("kind") or not item.get("apiVersion"):
        raise ValueError(f"this is no Kubernetes object, it has no kind and apiVersion: {str(item)[:200]}")


def _flat(items: Iterable[Any]) -> Trees:
    result: list[Tree] = []
    for item in items:
        check_object(item)
        if item["kind"].endswith("List") and isinstance(item.get("items"), list):
            result += _flat(item["items"])
        else:
            result.append(dict(item))
    return result


class Objects:
    """Objects of one cluster through one transport, that is: as one user."""

    def __init__(self, transport: Transport, table: Table) -> None:
        self._transport = transport
        self._table = table

    # Kinds

    def resource(self, text: str, api_version: str = "") -> Resource[Any]:
        """Return a resource by kind, plural, singular or short name, with or without group; raise UnknownKind."""
        if "/" in text:  # apps/v1/Deployment
            api_version, _, text = text.rpartition("/")
        name, _, group = text.partition(".")
        for one in self._table.resources():
            if api_version and one.api_version != api_version:
                continue
            if group and one.group != group:
                continue
            if name == one.kind or name.lower() in (one.kind.lower(), one.plural, one.singular, *one.short_names):
                return one
        version = f" of {api_version}" if api_version else ""
        raise UnknownKind(f"the cluster serves no {text!r}{version}")

    def path(self, obj: Mapping[str, Any], subresource: str = "", *, collection: bool = False) -> str:
        """Return an object's path, or that of its collection."""
        metadata = obj.get("metadata") or {}
        one = self.resource(obj["kind"], obj["apiVersion"])
        name = "" if collection else str(metadata.get("name", ""))
        return one.path(metadata.get("namespace") or "default", quote(name), subresource)

    # Requests

    async def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: Any
    ) -> Any:
        """Send a request and return the answer's tree (its text if it is no JSON); raise ApiError."""
        wanted = {name: _text(value) for name, value in query.items() if value is not None}
        if wanted:
            path = f"{path}?{urlencode(wanted)}"
        data = body if isinstance(body, bytes) else b"" if body is None else serialization.encode_tree(body)
        headers = {"Content-Type": content_type, "Accept": "application/json", "User-Agent": FIELD_MANAGER}
        answer = await self._transport.request(method, path, body=data, headers=headers)
        if answer.status >= 400:
            raise apierrors.from_status(answer.status, answer.body)
        try:
            return json.loads(answer.body)
        except ValueError:
            return answer.body.decode(errors="replace")

    async def get(self, kind: str, name: str, namespace: str = "default", *, subresource: str = "") -> Tree:
        one = self.resource(kind)
        result: Tree = await self.request("GET", one.path(namespace, quote(name), subresource))
        return result

    async def list(
        self, kind: str, namespace: str | None = None, *, selector: str = "", field_selector: str = ""
    ) -> Trees:
        one = self.resource(kind)
        answer = await self.request(
            "GET",
            one.path(namespace or ""),
            labelSelector=selector or None,
            fieldSelector=field_selector or None,
        )
        items: Trees = answer["items"]
        return [{"apiVersion": one.api_version, "kind": one.kind, **item} for item in items]

    async def create(self, obj: Mapping[str, Any]) -> Tree:
        result: Tree = await self.request("POST", self.path(obj, collection=True), obj, fieldManager=FIELD_MANAGER)
        return result

    async def replace(self, obj: Mapping[str, Any], *, subresource: str = "") -> Tree:
        result: Tree = await self.request("PUT", self.path(obj, subresource), obj, fieldManager=FIELD_MANAGER)
        return result

    async def apply(self, obj: Mapping[str, Any]) -> Tree:
        """Server-side apply, by force."""
        result: Tree = await self.request(
            "PATCH",
            self.path(obj),
            obj,
            content_type="application/apply-patch+yaml",
            fieldManager=FIELD_MANAGER,
            force=True,
        )
        return result

    async def patch(
        self,
        kind: str,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "default",
        *,
        subresource: str = "",
        type: str = "",
    ) -> Tree:
        """A merge patch, or a JSON patch if it is a list; `type` "strategic" for that."""
        form = type or ("merge" if isinstance(patch, Mapping) else "json")
        media = "application/strategic-merge-patch+json" if form == "strategic" else f"application/{form}-patch+json"
        one = self.resource(kind)
        result: Tree = await self.request(
            "PATCH", one.path(namespace, quote(name), subresource), patch, content_type=media,
            fieldManager=FIELD_MANAGER,
        )  # fmt: skip
        return result

    async def delete(
        self, kind: str, name: str, namespace: str = "default", *, grace: int | None = None, propagation: str = ""
    ) -> None:
        one = self.resource(kind)
        options: Tree = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        await self.request("DELETE", one.path(namespace, quote(name)), options)

    async def find(self, kind: str, name: str, namespace: str = "default") -> Tree | None:
        """Return an object, None if it is not there (its kind included)."""
        try:
            return await self.get(kind, name, namespace)
        except (apierrors.NotFound, UnknownKind):
            return None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
