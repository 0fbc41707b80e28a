"""Links in a proxied page: those that mean the same server lead through the proxy again.

Only attributes that hold URLs are touched, only where a path is absolute; the rest of the page stays as it is, byte by
byte. Source: https://html.spec.whatwg.org/multipage/indices.html#attributes-3
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from html import escape, unescape
from html.parser import HTMLParser
from urllib.parse import urlsplit, urlunsplit

__all__ = ["rewrite_page", "rewrite_url"]

_URL_ATTRIBUTES: dict[str, frozenset[str]] = {
    tag: frozenset(names.split())
    for tag, names in {
        "a": "href", "applet": "codebase", "area": "href", "audio": "src", "base": "href", "blockquote": "cite",
        "body": "background", "button": "formaction", "command": "icon", "del": "cite", "embed": "src",
        "form": "action", "frame": "longdesc src", "head": "profile", "html": "manifest",
        "iframe": "longdesc src", "img": "longdesc src usemap", "input": "src usemap formaction", "ins": "cite",
        "link": "href", "object": "classid codebase data usemap", "q": "cite", "script": "src", "source": "src",
        "video": "poster src",
    }.items()
}  # fmt: skip
_ATTRIBUTE = re.compile(r"""([^\s"'<>/=]+)(\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""")


def rewrite_url(url: str, prefix: str, hosts: Collection[str], *, origin: str = "") -> str:
    """Return the URL led through the proxy at `prefix`, or as it is if it is relative or means another server.

    It becomes one at `origin` (https://host), if that is given.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if (parts.netloc and parts.netloc not in hosts) or not parts.path.startswith("/"):
        return url
    path = parts.path
    if not path.startswith(prefix):
        path = posixpath.normpath(f"{prefix}/{path}") + ("/" if path.endswith("/") else "")
    return origin + urlunsplit(("", "", path, parts.query, parts.fragment))


def rewrite_page(page: str, prefix: str, hosts: Collection[str], *, origin: str = "") -> str:
    """Return the page with its links led through the proxy at `prefix`."""
    rewriter = _Rewriter(prefix, hosts, origin)
    rewriter.feed(page)
    rewriter.close()
    out: list[str] = []
    starts = [0]
    for text in page.split("\n"):  # Not splitlines: the parser counts only these.
        starts.append(starts[-1] + len(text) + 1)
    done = 0
    for (line, column), old, new in rewriter.changes:
        at = starts[line - 1] + column
        out += [page[done:at], new]
        done = at + len(old)
    return "".join([*out, page[done:]])


class _Rewriter(HTMLParser):
    """Collects (place, start tag as it was, start tag as it shall be)."""

    def __init__(self, prefix: str, hosts: Collection[str], origin: str) -> None:
        super().__init__(convert_charrefs=False)
        self._prefix = prefix
        self._hosts = hosts
        self._origin = origin
        self.changes: list[tuple[tuple[int, int], str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = _URL_ATTRIBUTES.get(tag)
        old = self.get_starttag_text()
        if names is None or old is None:
            return

        def replace(match: re.Match[str]) -> str:
            name, equals, value = match.groups()
            if name.lower() not in names:
                return match[0]
            given = unescape(value.strip("\"'"))
            url = rewrite_url(given, self._prefix, self._hosts, origin=self._origin)
            return match[0] if url == given else f'{name}{equals}"{escape(url)}"'

        new = _ATTRIBUTE.sub(replace, old)
        if new != old:
            self.changes.append((self.getpos(), old, new))
