"""A document that rarely changes, as HTTP serves such: only if the client has not got it, or a part of it.

Source: RFC 9110 (conditional and range requests), as Go's http.ServeContent does it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime

from haven.apiserver.request import Request, Response

__all__ = ["serve_content"]

_RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def serve_content(
    request: Request,
    headers: Mapping[str, str],
    data: bytes,
    *,
    modified_seconds: float,
    is_encoded: bool = False,
    is_made_anew: bool = False,
) -> Response:
    """Answer with a document, of which `headers` may have the Etag; one that is encoded has no parts.

    One that is made anew for each request may differ from what a client got in the same second, which is as exactly as
    clients can tell the time. (Upstream lets them go on with the old one.)
    """
    tag = headers.get("Etag", "")
    answer = dict(headers)
    if _is_known(request, tag, modified_seconds + is_made_anew):
        for name in ("Content-Type", "Content-Encoding"):
            answer.pop(name, None)
        if not tag:
            answer["Last-Modified"] = formatdate(modified_seconds, usegmt=True)
        return Response(304, answer)
    answer["Last-Modified"] = formatdate(modified_seconds, usegmt=True)
    answer["Accept-Ranges"] = "bytes"
    wanted = None if is_encoded else _RANGE.fullmatch(request.headers.get("range", ""))
    if wanted is None or wanted[0].endswith("=-"):
        return Response(200, answer, data)
    size = len(data)
    first = int(wanted[1]) if wanted[1] else max(size - int(wanted[2]), 0)
    last = min(int(wanted[2]), size - 1) if wanted[1] and wanted[2] else size - 1
    if first > last:
        text = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        refusal = {**text, "Content-Range": f"bytes */{size}"}
        return Response(416, refusal, b"invalid range: failed to overlap\n")
    answer["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(206, answer, data[first : last + 1])


def _is_known(request: Request, tag: str, modified_seconds: float) -> bool:
    known = request.headers.get("if-none-match", "")
    if known:
        return known.strip() == "*" or (bool(tag) and tag in _TAG.findall(known))
    since = request.headers.get("if-modified-since", "")
    if not since or request.method not in ("GET", "HEAD"):
        return False
    try:
        return int(modified_seconds) <= parsedate_to_datetime(since).timestamp()
    except ValueError:
        return False
