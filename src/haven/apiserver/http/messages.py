"""From bytes to requests: HTTP/1.1 messages as they come over one connection, whole or in pieces.

llhttp (Node's parser, through httptools) reads them. A client sends the same headers again and again: a request without
a body whose headers are, byte for byte, those of the last one on the connection needs no second reading.
Source: RFC 9112; limits as upstream's server has them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, unquote

import httptools

from haven.apiserver.http.bodies import BodyStream

__all__ = ["HEAD_BYTES_MAX", "Headers", "Malformed", "Message", "Messages", "head_bytes", "parse_query", "split_target"]

HEAD_BYTES_MAX = 1 << 20
_QUERIES_KEPT = 2048
_QUERY_KEPT_CHARACTERS_MAX = 1024
_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.1")
_METHOD = re.compile(rb"(?:\r?\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]+) ")
_STAND_IN = b"REPORT"
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_IGNORED_UPGRADES = frozenset({"h2c", "h2", "tls/1.0"})
_WITH_MEANING = frozenset({"connection", "content-length", "transfer-encoding", "expect", "upgrade"})
"""Headers that say how the message itself is to be read."""
_NO_QUERY: Mapping[str, Sequence[str]] = {}
_NO_REPEATS: Mapping[str, Sequence[str]] = {}


class Malformed(Exception):
    """Bytes that are no request; `status` and the text are what the client is told before the connection closes."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Headers:
    """The headers of a message: by lower-case name, those that came more than once, and as they were sent.

    Values that are not UTF-8 are so in `raw` only, as surrogates, to be passed on; whoever reads them finds U+FFFD.
    """

    __slots__ = ("by_name", "raw", "repeated")

    def __init__(self, raw: list[tuple[str, str]], *, is_ascii: bool = False) -> None:
        self.raw = raw
        if not is_ascii:
            raw = [(name, _readable(value)) for name, value in raw]
        self.by_name = by_name = {name.lower(): value for name, value in raw}
        self.repeated = _NO_REPEATS
        if len(by_name) != len(raw):
            several: dict[str, list[str]] = {}
            for name, value in raw:
                several.setdefault(name.lower(), []).append(value)
            self.repeated = {name: values for name, values in several.items() if len(values) > 1}
            for name, values in self.repeated.items():
                by_name[name] = values[0]  # Who wants one value means the first.


def _readable(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Message:
    """One request. `body_stream` is set instead of `body` if that is to be passed on as it comes.

    `upgrade` is set if the client asks for another protocol on this connection.
    """

    __slots__ = (
        "body",
        "body_stream",
        "headers",
        "is_http_1_0",
        "keep_alive",
        "method",
        "target",
        "too_large",
        "upgrade",
    )

    def __init__(self, method: str, target: str, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = b""
        self.body_stream: BodyStream | None = None
        self.keep_alive = True
        self.is_http_1_0 = False
        self.too_large = False
        self.upgrade = False


class Messages:
    """Reads what comes over one connection. Whole messages are in `ready`, oldest first; feed() adds to them.

    `on_continue` is called where a client waits to be told to send its body. After a message with `upgrade`, or one
    that is too large, nothing more is read; what followed an upgrade's head is in `rest`.
    """

    def __init__(
        self,
        body_bytes_max: int,
        on_continue: Callable[[], None],
        is_streamed: Callable[[str], bool] = lambda target: False,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.ready: deque[Message] = deque()
        self.rest = b""
        self.is_over = False
        self.count = 0
        """How many messages have begun."""
        self._body_bytes_max = body_bytes_max
        self._on_continue = on_continue
        self._is_streamed = is_streamed
        self._on_room = on_room
        self.body_stream: BodyStream | None = None
        """The body that is coming in, if it is one that is passed on."""
        self._parser: Any = None
        self._other_method = ""
        """The method of the message that is read, if it is one that llhttp does not know."""
        self._in_head = self._in_message = False
        self._head_bytes = 0
        self._target = b""
        self._raw: list[tuple[str, str]] = []
        self._is_ascii = True
        self._message: Message | None = None
        self._pieces: list[bytes] = []
        self._body_bytes = 0
        self._known: tuple[bytes, Headers] | None = None

    @property
    def is_partial(self) -> bool:
        """Whether a message has begun to come and has not ended."""
        return self._in_message

    @property
    def is_in_head(self) -> bool:
        """Whether a message's head has begun to come and has not ended."""
        return self._in_head

    def feed(self, data: bytes) -> None:
        """Read more; raise Malformed."""
        if self.is_over or (not self._in_message and self._same_again(data)):
            return
        while data:
            data = self._parse(data)

    def _same_again(self, data: bytes) -> bool:
        """Read a message whose headers are known; return False if it has to be parsed."""
        line, _, block = data.partition(b"\r\n")
        if self._known is None or block != self._known[0]:
            return False
        found = _REQUEST_LINE.fullmatch(line)
        if found is None:
            return False
        self.count += 1
        self.ready.append(Message(found[1].decode(), found[2].decode(), self._known[1]))
        return True

    def _parse(self, data: bytes) -> bytes:
        """Read; return what is still to be read."""
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        started_here = not self._in_message
        count = len(self.ready)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = None
            rest = data[upgrade.args[0] :]
            if self.ready[-1].upgrade:
                self.rest, self.is_over = rest, True
                return b""
            # Not a protocol that is spoken here. llhttp took no body from the message: read it again as it is without.
            return head_bytes(self.ready.pop(), without=("upgrade", "connection")) + rest
        except httptools.HttpParserInvalidMethodError:
            found = _METHOD.match(data)
            if self._other_method or not started_here or len(self.ready) != count or found is None:
                raise Malformed(400, "Bad Request") from None
            # llhttp knows a list of methods, HTTP does not: read the message as if it had one of them.
            self._begin_again()
            self._other_method = found[1].decode()
            return _STAND_IN + data[found.end(1) :]
        except httptools.HttpParserInvalidURLError:
            line, end, rest = data.partition(b"\r\n")
            if not started_here or len(self.ready) != count or line.isascii() or not end:
                raise Malformed(400, "Bad Request") from None
            self._begin_again()
            return b"".join(b"%c" % byte if byte < 0x80 else b"%%%02X" % byte for byte in line) + end + rest
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, Malformed):
                raise cause from None
            raise Malformed(400, "Bad Request") from None
        if started_here and len(self.ready) == count + 1:
            self._remember(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                raise Malformed(431, "Request Header Fields Too Large")
        else:
            self._head_bytes = 0
        return b""

    def _begin_again(self) -> None:
        """Forget a message that has only begun."""
        if self._in_message:
            self.count -= 1
        self._parser, self._in_head, self._in_message = None, False, False

    def _remember(self, data: bytes) -> None:
        """Keep the headers of a message that was all of what came, if they say nothing of how to read it."""
        message = self.ready[-1]
        if message.method not in ("GET", "HEAD") or message.is_http_1_0 or not data.endswith(_END):
            return
        if data.find(_END) != len(data) - len(_END) or not _WITH_MEANING.isdisjoint(message.headers.by_name):
            return
        line, _, block = data.partition(b"\r\n")
        if _REQUEST_LINE.fullmatch(line):
            self._known = (block, message.headers)

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = self._in_message = True
        self.count += 1
        self._target = b""
        self._raw = []
        self._is_ascii = True
        self._pieces = []
        self._body_bytes = 0
        self._message = None

    def on_url(self, data: bytes) -> None:
        """A piece of the target."""
        self._target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._raw.append((name.decode("latin-1"), value.decode("utf-8", "surrogateescape").rstrip(" \t")))
        if not value.isascii():
            self._is_ascii = False

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        parser = self._parser
        headers = Headers(self._raw, is_ascii=self._is_ascii)
        method = self._other_method or parser.get_method().decode()
        self._other_method = ""
        message = Message(method, self._target.decode("utf-8", "surrogateescape"), headers)
        self._message = message
        named = headers.by_name
        version = parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise Malformed(505, "HTTP Version Not Supported: unsupported protocol version")
        message.is_http_1_0 = version == "1.0"
        message.keep_alive = parser.should_keep_alive()
        if "host" not in named and not message.is_http_1_0:
            raise Malformed(400, "Bad Request: missing required Host header")
        if "host" in headers.repeated:
            raise Malformed(400, "Bad Request: too many Host headers")
        message.upgrade = parser.should_upgrade() and named.get("upgrade", "").lower() not in _IGNORED_UPGRADES
        length = int(named.get("content-length", "0"))
        if (length or "transfer-encoding" in named) and not message.upgrade and self._is_streamed(message.target):
            message.body_stream = self.body_stream = BodyStream(self._on_room)
            self.ready.append(message)
        elif length > self._body_bytes_max:
            self._give_up(message)
            return
        if (expected := named.get("expect")) is not None:
            if expected.lower() != "100-continue":
                raise Malformed(417, "Expectation Failed")
            if not message.is_http_1_0 and (length or "transfer-encoding" in named):
                self._on_continue()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self.body_stream is not None:
            self.body_stream.feed(data)
            return
        self._body_bytes += len(data)
        if self._body_bytes <= self._body_bytes_max:
            self._pieces.append(data)
        elif not self.is_over:
            assert self._message is not None
            self._give_up(self._message)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_message = False
        if self.body_stream is not None:
            self.body_stream.end()
            self.body_stream = self._message = None
        if self.is_over or self._message is None:
            return
        pieces = self._pieces
        self._message.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self.ready.append(self._message)
        self._message = None

    def _give_up(self, message: Message) -> None:
        """Answer a request whose body is too large at once, and read no further."""
        self._pieces = []
        message.too_large, message.keep_alive = True, False
        self.ready.append(message)
        self.is_over = True


def head_bytes(message: Message, without: Sequence[str] = ()) -> bytes:
    """Return a message's head as it may have been sent, without some headers."""
    version = "1.0" if message.is_http_1_0 else "1.1"
    lines = [f"{message.method} {message.target} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in message.headers.raw if name.lower() not in without]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def split_target(target: str) -> tuple[str, Mapping[str, Sequence[str]]]:
    """Return the path (unescaped) and the query of a request's target; raise Malformed."""
    if not target.startswith("/"):
        target = _origin_form(target)
    path, _, query = target.partition("?")
    if "%" in path:
        if _BAD_ESCAPE.search(path):
            raise Malformed(400, "Bad Request")
        path = unquote(path)
    return path, (parse_query(query) if query else _NO_QUERY)


def _origin_form(target: str) -> str:
    """Return the path and query of an absolute target (RFC 9112, 3.2.2)."""
    scheme, found, rest = target.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        if target == "*":
            return target
        raise Malformed(400, "Bad Request")
    start = re.search(r"[/?]", rest)
    if start is None:
        return "/"
    return rest[start.start() :] if start[0] == "/" else "/" + rest[start.start() :]


def parse_query(query: str) -> Mapping[str, Sequence[str]]:
    """Return every value of each key."""
    return _kept_query(query) if len(query) <= _QUERY_KEPT_CHARACTERS_MAX else _parsed_query(query)


@lru_cache(maxsize=_QUERIES_KEPT)
def _kept_query(query: str) -> Mapping[str, Sequence[str]]:
    return _parsed_query(query)


def _parsed_query(query: str) -> Mapping[str, Sequence[str]]:
    if ";" in query:  # Once it could stand for &; whoever still means that is not understood.
        query = "&".join(pair for pair in query.split("&") if ";" not in pair)
    return parse_qs(query, keep_blank_values=True)
