"""Serves the OpenAPI documents. Each is built at the first request for it, in a thread, and kept compressed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from haven.api.scheme import Resource
from haven.apimachinery.codecs.negotiate import JSON, accepted_types
from haven.apiserver.aggregation.specs import ForeignSpec, merged
from haven.apiserver.openapi import gnostic, gnosticv3, swagger, v3
from haven.apiserver.openapi.content import serve_content
from haven.apiserver.openapi.schemas import CustomKind, Definitions
from haven.apiserver.request import Request, Response

__all__ = ["OpenAPI"]

Tree = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]

_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_V3_PROTOBUF = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
_V2_TYPES = {
    JSON: JSON,
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf": _V2_PROTOBUF,
    _V2_PROTOBUF: _V2_PROTOBUF,
}
_V3_TYPES = {
    JSON: JSON,
    _V3_PROTOBUF: _V3_PROTOBUF,
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf": _V3_PROTOBUF,
}
"""Media types that are understood, the better first, with those that are sent for them."""
_IMMUTABLE = "public, immutable"
_FAR_FUTURE = "Fri, 01 Jan 2100 00:00:00 GMT"
_COMPRESSION_LEVEL = 5


@dataclass(frozen=True, slots=True)
class _Stored:
    """A document as it is kept, and its hash."""

    compressed: bytes
    hash: str
    modified_seconds: float

    @classmethod
    def of(cls, data: bytes, hash_: str = "") -> _Stored:
        compressed = gzip.compress(data, _COMPRESSION_LEVEL, mtime=0)
        return cls(compressed, hash_ or hashlib.sha512(data).hexdigest().upper(), time.time())


class OpenAPI:
    """Answers for /openapi/v2, /openapi/v3 and everything below it."""

    def __init__(self, resources: Sequence[Resource[Any]]) -> None:
        self._resources = tuple(resources)
        self._custom: tuple[CustomKind, ...] = ()
        self._v2: dict[str, _Stored] = {}
        self._v3: dict[str, _Stored] = {}
        self._v3_protobuf: dict[str, _Stored] = {}
        self._foreign: tuple[ForeignSpec, ...] = ()
        self._foreign_v3: dict[str, tuple[str, Handler]] = {}
        self._build = asyncio.Lock()

    def replace_foreign(self, specs: Sequence[ForeignSpec], v3: Mapping[str, tuple[str, Handler]]) -> None:
        """Add what other servers say about themselves.

        `v3` has, by a document's name (apis/group/version), its URL with a hash, and who answers for it.
        """
        if self._foreign != tuple(specs):
            self._foreign = tuple(specs)
            self._v2 = {}
        self._foreign_v3 = dict(v3)

    def replace(self, custom: Sequence[CustomKind]) -> None:
        """Describe these custom kinds besides the built-in ones; what did not change stays."""
        changed = {_document_name(one) for one in {*map(_Same, custom), *map(_Same, self._custom)}}
        self._custom = tuple(custom)
        self._v2 = {}
        for name in changed:
            self._v3.pop(name, None)

    async def handle_v2(self, request: Request) -> Response:
        """Answer with the version 2 document in JSON or protobuf."""
        media_type = _choose(accepted_types(request.headers.get("accept", "") or "*/*"), _V2_TYPES)
        vary = {"Vary": "Accept-Encoding, Accept"}
        if media_type is None:
            return Response(406, vary)
        stored = self._v2.get(media_type)
        if stored is None:
            async with self._build:
                stored = self._v2.get(media_type)
                if stored is None:
                    kept = self._v2  # Another one by the time that the document is done, if something changed.
                    build = self._build_v2_json if media_type == JSON else self._build_v2_protobuf
                    stored = kept[media_type] = await _in_thread(build, self._custom, self._foreign)
        return _answer(request, stored, media_type, vary)

    async def handle_v3(self, request: Request) -> Response:
        """Answer with the list of version 3 documents, or with one of them; raise NotFound."""
        name = request.path.removeprefix("/openapi/v3").removeprefix("/")
        if request.path == "/openapi/v3":
            await self._build_v3()
            paths = {
                document: {"serverRelativeURL": f"/openapi/v3/{document}?hash={stored.hash}"}
                for document, stored in sorted(self._v3.items())
            }
            paths |= {document: {"serverRelativeURL": url} for document, (url, _) in self._foreign_v3.items()}
            shown = {document: paths[document] for document in sorted(paths)}
            # Upstream names no type, so its HTTP library guesses one.
            text = {"Content-Type": "text/plain; charset=utf-8"}
            index = orjson.dumps({"paths": shown})
            return serve_content(request, text, index, modified_seconds=time.time(), is_made_anew=True)
        if name in self._foreign_v3:
            return await self._foreign_v3[name][1](request)
        stored = self._v3.get(name)
        if stored is None:
            await self._build_v3()
            stored = self._v3.get(name)
        if stored is None:
            return Response(404, {})
        headers = {"Vary": "Accept"}
        types = accepted_types(request.headers.get("accept", "") or "*/*")
        if not types:  # Nothing that could be read is asked for, and nothing is what is sent.
            return Response(200)
        media_type = _choose(types, _V3_TYPES)
        if media_type is None:
            return Response(406, headers)
        wanted = request.get("hash")
        if wanted and wanted != stored.hash:
            headers |= {"Location": f"/openapi/v3/{name}?hash={stored.hash}", "Content-Type": media_type}
            return Response(301, {**headers, "Etag": f'"{stored.hash}"'})
        if wanted:
            headers |= {"Cache-Control": _IMMUTABLE, "Expires": _FAR_FUTURE}
        if media_type == _V3_PROTOBUF:
            stored = await self._as_protobuf(name, stored)
        return _answer(request, stored, media_type, headers)

    async def _as_protobuf(self, name: str, stored: _Stored) -> _Stored:
        """Return a version 3 document in protobuf."""
        found = self._v3_protobuf.get(name)
        if found is None or found.hash != stored.hash:
            found = self._v3_protobuf[name] = await asyncio.to_thread(_protobuf_of, stored)
        return found

    async def _build_v3(self) -> None:
        """Build the documents that are missing."""
        async with self._build:
            documents = v3.paths_by_document(self._resources, self._custom)
            missing = {name: entry for name, entry in documents.items() if name not in self._v3}
            for name in [name for name in self._v3 if name not in documents]:
                del self._v3[name]
                self._v3_protobuf.pop(name, None)
            if missing:
                self._v3 |= await asyncio.to_thread(_build_documents, missing)

    def _build_v2_json(self, custom: Sequence[CustomKind], foreign: Sequence[ForeignSpec]) -> bytes:
        members = [orjson.dumps(swagger.head())[1:-1]]
        paths, definitions, parameters = self._v2_parts(custom, foreign)
        members.append(b'"paths":' + _object((name, orjson.dumps(item)) for name, item in paths))
        members.append(b'"definitions":' + _object((name, orjson.dumps(schema)) for name, schema in definitions))
        members.append(b'"parameters":' + orjson.dumps(parameters))
        return b"{" + b",".join(members) + b"}"

    def _build_v2_protobuf(self, custom: Sequence[CustomKind], foreign: Sequence[ForeignSpec]) -> bytes:
        paths, definitions, parameters = self._v2_parts(custom, foreign)
        return gnostic.document(swagger.head(), paths, definitions, parameters)

    def _v2_parts(
        self, custom: Sequence[CustomKind], foreign: Sequence[ForeignSpec]
    ) -> tuple[Iterable[tuple[str, Tree]], Iterable[tuple[str, Tree]], Tree]:
        """Return the paths and the definitions, piece by piece, and the parameters."""
        listed = swagger.all_paths(self._resources, custom)
        paths = ((path.path, swagger.path_item(path)) for path in listed)
        definitions = swagger.definitions(listed, custom)
        parameters = swagger.parameters()
        if not foreign:
            return paths, definitions, parameters
        own = dict(definitions)
        more = merged(own, foreign, parameters)
        all_paths, all_definitions = {**more.paths, **dict(paths)}, {**own, **more.definitions}
        return all_paths.items(), all_definitions.items(), {**parameters, **more.parameters}


class _Same:
    """A custom kind that equals another by what it describes."""

    def __init__(self, custom: CustomKind) -> None:
        self.custom = custom
        told = custom.state or msgspec.json.encode(custom.schema, order="sorted")
        self._key = (custom.resource, custom.resource.kind, told)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _document_name(one: _Same) -> str:
    resource = one.custom.resource
    return f"apis/{resource.group}/{resource.version}"


def _object(members: Any) -> bytes:
    return b"{" + b",".join(orjson.dumps(name) + b":" + value for name, value in members) + b"}"


async def _in_thread(
    build: Callable[[Sequence[CustomKind], Sequence[ForeignSpec]], bytes],
    custom: Sequence[CustomKind],
    foreign: Sequence[ForeignSpec],
) -> _Stored:
    return await asyncio.to_thread(lambda: _Stored.of(build(custom, foreign)))


def _build_documents(documents: dict[str, Any]) -> dict[str, _Stored]:
    definitions = Definitions()
    return {
        name: _Stored.of(orjson.dumps(v3.document(name, paths, custom, definitions)))
        for name, (paths, custom) in documents.items()
    }


def _protobuf_of(stored: _Stored) -> _Stored:
    return _Stored.of(gnosticv3.document(orjson.loads(gzip.decompress(stored.compressed))), stored.hash)


def _choose(accepted: Iterable[tuple[str, str]], offered: Mapping[str, str]) -> str | None:
    """Return the media type to send; None if the client accepts none of those offered."""
    for main, sub in accepted:
        for media_type, sent in offered.items():
            offered_main, _, offered_sub = media_type.partition("/")
            if main in ("*", offered_main) and sub in ("*", offered_sub):
                return sent
    return None


def _answer(request: Request, stored: _Stored, media_type: str, headers: dict[str, str]) -> Response:
    headers = {"Content-Type": media_type, "Etag": f'"{stored.hash}"', **headers}
    zipped = "gzip" in request.headers.get("accept-encoding", "") and "range" not in request.headers
    if zipped:
        vary = headers["Vary"]
        headers |= {"Content-Encoding": "gzip", "Vary": vary if "Encoding" in vary else f"{vary}, Accept-Encoding"}
    data = stored.compressed if zipped else gzip.decompress(stored.compressed)
    return serve_content(request, headers, data, modified_seconds=stored.modified_seconds, is_encoded=zipped)
