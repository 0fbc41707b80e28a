"""CBOR for those who speak it, behind the gate CBORServingAndStorage: translated at the door, inside it is JSON.

A server without the gate has no such door: nothing on the way of a request knows of CBOR, which is refused as any
unknown media type is. Documents and discovery have no CBOR form in upstream either; the pages of flags and status do.
Sources: KEP-4222, RFC 8742 (sequences, as which watches are sent).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson

from haven.apimachinery.codecs import cbor
from haven.apimachinery.codecs.negotiate import JSON, PROTOBUF, STREAM_SUFFIX, YAML, accepted_types
from haven.apiserver.chain import PathHandler
from haven.apiserver.request import Request, Response
from haven.apiserver.requestinfo import MalformedPath, resolve

__all__ = ["speaking_cbor"]

_CBOR, _SEQUENCE = "application/cbor", "application/cbor-seq"
_APPLY, _APPLY_CBOR = "application/apply-patch+yaml", "application/apply-patch+cbor"
_PAGES = ("/flagz", "/statusz")
_NO_JSON = b"x"
"""Stands for a body that is no CBOR: it is refused as a body that is no JSON, in the place where that is found out."""
_NO_JSON_TEXT = re.compile(
    "couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value( \\(78\\))?"
    "|(?<=error decoding YAML: )error unmarshaling JSON: .*"
)
_UNARY = re.compile(f"{re.escape(PROTOBUF)}(?!;)")


def speaking_cbor(handle: PathHandler) -> PathHandler:
    """Return the same handler, which also takes and gives CBOR."""

    async def answer(request: Request) -> Response:
        if not _is_translated(request):
            return await handle(request)
        headers = dict(request.headers)
        problem = _read_body(request, headers)
        wanted = _read_accept(headers)
        request.headers = headers
        response = await handle(request)
        if response.status in (400, 406, 415):
            _reword(response, problem, request.body)
        return _written(response) if wanted else response

    return answer


def _is_translated(request: Request) -> bool:
    try:
        info = resolve(request.method, request.path, request.query)
    except MalformedPath:
        return False
    if not info.is_resource:
        return request.path in _PAGES
    return info.subresource != "proxy" and request.body_stream is None


def _read_body(request: Request, headers: dict[str, str]) -> _Problem | None:
    """Put JSON in place of a body; return what is wrong with it."""
    said = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_apply = request.method == "PATCH" and said == _APPLY_CBOR
    if not is_apply and (said != _CBOR or request.method == "PATCH"):
        return None
    headers["content-type"] = _APPLY if is_apply else JSON
    if not request.body and request.method == "DELETE":
        return None
    sent = request.body
    try:
        request.body = orjson.dumps(cbor.decode(sent))
    except (cbor.InvalidCBOR, RecursionError) as error:
        request.body = _NO_JSON
        return _Problem(str(error), sent)
    return None


class _Problem:
    """Why a body is no CBOR."""

    def __init__(self, text: str, body: bytes) -> None:
        self._text = text
        self._body = body

    def words(self, found: re.Match[str]) -> str:
        """Return what is said in place of a complaint about JSON."""
        if not found.group().startswith("couldn't"):
            return self._text
        shown = ""
        if found.group(1):
            body = self._body
            start = body[:30].decode(errors="replace") if body.startswith(b"{") else body[:30].hex()
            shown = f" ({start or '<empty>'}{' ...' if len(body) > 30 else ''})"
        return f"unable to determine group/version/kind: {self._text}{shown}"


def _read_accept(headers: dict[str, str]) -> bool:
    """Put JSON in place of CBOR where it is what a client wants most; tell whether that is so."""
    accept = headers.get("accept", "")
    if "cbor" not in accept:
        return False
    if accepted_types(accept)[:1] != [("application", "cbor")]:
        others = [part for part in accept.split(",") if part.partition(";")[0].strip() != _CBOR]
        headers["accept"] = ",".join(others) or accept
        return False
    parts = [part if "as=Table" in part else part.replace(_CBOR, JSON) for part in accept.split(",")]
    headers["accept"] = ",".join(parts)
    return True


def _reword(response: Response, problem: _Problem | None, body: bytes) -> None:
    """Name CBOR among what is taken and given, and say of a bad body what is wrong with it as CBOR."""
    if not response.headers.get("Content-Type", "").startswith(JSON):
        return
    status = orjson.loads(response.body)
    before = text = status.get("message", "")
    if problem is not None and body == _NO_JSON:
        text = _NO_JSON_TEXT.sub(problem.words, text)
    if response.status != 400:
        text = _UNARY.sub(f"{PROTOBUF}, {_CBOR}", text)
        streams = PROTOBUF + STREAM_SUFFIX
        text = text.replace(streams, f"{streams}, {_SEQUENCE}")
        if text.endswith(f"{JSON}, {YAML}, text/plain"):
            text += f", {_CBOR}"
    if text != before:
        status["message"] = text
        is_readable = response.body.startswith(b"{\n")
        data = orjson.dumps(status, option=orjson.OPT_INDENT_2 if is_readable else 0)
        response.body = data if is_readable else data + b"\n"


def _written(response: Response) -> Response:
    """Return an answer in CBOR if it is one in JSON."""
    content_type = response.headers.get("Content-Type", "")
    media_type, semicolon, rest = content_type.partition(";")
    if media_type != JSON or response.body.startswith(b"{\n"):  # Readable JSON is for those who accept nothing else.
        return response
    if response.stream is not None:
        response.stream = _sequence(response.stream)
        response.headers = {**response.headers, "Content-Type": _SEQUENCE}
        return response
    if not response.body:
        return response
    response.headers = {**response.headers, "Content-Type": _CBOR + semicolon + rest}
    return replace(response, body=cbor.encode(orjson.loads(response.body)))


async def _sequence(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the events of a watch one behind the other."""
    rest = b""
    try:
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            items = [cbor.encode(orjson.loads(line)) for line in lines if line]
            if items:
                yield b"".join(items)
    finally:
        close: Any = getattr(stream, "aclose", None)
        if close is not None:
            await close()
