"""The answer of a server behind a proxy, on its way to the client: unpacked, its links and type made right.

Source: https://pkg.go.dev/k8s.io/apimachinery/pkg/util/proxy#Transport
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING, Any, cast

from haven.apimachinery import apierrors
from haven.apiserver.htmllinks import rewrite_page, rewrite_url
from haven.apiserver.passing import passed_answer
from haven.apiserver.request import Response
from haven.apiserver.sniffing import content_type
from haven.deferred import deferred

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = deferred("aiohttp")

__all__ = ["response_of"]

_BODILESS = frozenset({204, 205, 304})


async def response_of(
    answer: aiohttp.ClientResponse, *, unpacks: bool, hosts: Collection[str], prefix: str = "", origin: str = ""
) -> Response:
    """Return what the client is answered. Links that mean one of the hosts lead to `origin`, below `prefix`.

    `unpacks` says that the body was asked for packed, which the client did not do. Raise ServiceUnavailable.
    """
    encoding = answer.headers.get("Content-Encoding", "")
    is_unpacked = unpacks and encoding == "gzip"
    if is_unpacked:
        encoding = ""
    has_body = answer.method != "HEAD" and answer.status not in _BODILESS
    location = answer.headers.get("Location", "")
    is_page = not location and _is_page(answer.headers.get("Content-Type", ""), encoding)
    lines = [
        (name, value) for name, value in answer.headers.items() if not is_unpacked or name.lower() != "content-encoding"
    ]
    passed = passed_answer(lines, is_rewritten=is_unpacked or (is_page and has_body))
    headers = passed.headers
    if location:
        headers["Location"] = rewrite_url(location, prefix, hosts, origin=origin)
    response = Response(answer.status, headers, further=passed.further, warnings=answer.headers.getall("Warning", ()))
    stream = _body(answer)
    if is_unpacked:
        stream = _unpacked(stream)
    if is_page and has_body:
        response.body = await _page(stream, encoding, prefix, hosts, origin)
    elif has_body and not encoding and "Content-Type" not in headers:
        first = await anext(stream, b"")
        if first:
            headers["Content-Type"] = content_type(first)
        response.stream = _behind(first, stream)
    else:
        response.stream = stream
    return response


async def _body(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, asyncio.IncompleteReadError) as error:
        raise ConnectionResetError("the backend broke off") from error
    finally:
        answer.release()


async def _unpacked(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    unpacker = zlib.decompressobj(31)
    try:
        async for chunk in stream:
            if data := unpacker.decompress(chunk):
                yield data
        if data := unpacker.flush():
            yield data
    except zlib.error as error:
        raise ConnectionResetError("the answer is not packed as it says") from error
    finally:
        await _close(stream)


async def _behind(first: bytes, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for chunk in stream:
            yield chunk
    finally:
        await _close(stream)


async def _close(stream: AsyncIterator[bytes]) -> None:
    await cast("Any", stream).aclose()


def _is_page(kind: str, encoding: str) -> bool:
    return kind.partition(";")[0].strip() == "text/html" and encoding in ("", "gzip")


async def _page(stream: AsyncIterator[bytes], encoding: str, prefix: str, hosts: Collection[str], origin: str) -> bytes:
    try:
        data = b"".join([chunk async for chunk in stream])
        if encoding == "gzip":
            data = await asyncio.to_thread(gzip.decompress, data)
    except (OSError, EOFError, zlib.error) as error:
        raise apierrors.ServiceUnavailable(f"error trying to reach service: {error}") from error
    # Bytes that are no UTF-8 come out as they went in.
    page = rewrite_page(data.decode("utf-8", "surrogateescape"), prefix, hosts, origin=origin)
    data = page.encode("utf-8", "surrogateescape")
    return await asyncio.to_thread(gzip.compress, data) if encoding == "gzip" else data
