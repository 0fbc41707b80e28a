"""One request on its way through the chain, and its answer; independent of the HTTP library.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ and the RequestInfo resolver's rules.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Hijack", "LiveStream", "Request", "RequestInfo", "Response", "UserInfo", "chunked"]


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who asks. `extra` holds what authenticators add, such as the token's node and pod."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a request is about, read off its method and path.

    `verb` is the API verb (get, list, watch, create, update, patch, delete, deletecollection, proxy; the lower-case
    HTTP method for paths that are no resources). `name` of a list with a metadata.name field selector is that name.
    """

    verb: str
    path: str
    is_resource: bool
    api_prefix: str = ""
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    parts: tuple[str, ...] = ()
    label_selector: str = ""
    field_selector: str = ""


@dataclass(slots=True)
class Request:
    """A request as handlers see it. Header names are lower case; `query` keeps every value of a repeated key.

    `local` is set when the request comes from a component in this process (it needs no authentication); `object` may
    then hold the typed object instead of `body`. `connection` is the HTTP shell's handle for upgrades (exec, attach,
    port-forward, proxies); None in process.
    """

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes = b""
    repeated_headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Every value of the headers that came more than once (Impersonate-Group, Impersonate-Extra-…)."""
    remote: str = ""
    client_certificate: bytes | None = None
    local: bool = False
    object: Any = None
    connection: Any = None
    user: UserInfo = UserInfo("system:anonymous", groups=("system:unauthenticated",))
    info: RequestInfo = RequestInfo(verb="", path="", is_resource=False)
    flow: tuple[str, str] = ("", "")
    """The UIDs of the flow schema and the priority level that the request falls under."""
    warnings: list[str] = field(default_factory=list)
    audit_annotations: dict[str, str] = field(default_factory=dict)
    audit_details: dict[str, str] = field(default_factory=dict)
    """Annotations that the audit log shows from the level Request on only: they contain what was asked."""
    body_stream: AsyncIterable[bytes] | None = None
    """The body, piece by piece, if it is to be passed on as it comes; `body` is empty then."""
    uri: str = ""
    """The path and query as they were sent."""
    audit_id: str = ""
    audit: Any = None
    """What the auditor writes down about this request; None if it does not."""

    served: bool = False
    """Whether the request got as far as somebody who answers it: those are counted."""
    delays: dict[str, float] | None = None
    """For how many seconds it waited for its turn and for webhooks, which is not this server's work."""

    def waits(self) -> dict[str, float]:
        """Return where to write down how long others were waited for."""
        if self.delays is None:
            self.delays = {}
        return self.delays

    def get(self, name: str, default: str = "") -> str:
        """Return a query parameter's first value."""
        values = self.query.get(name)
        return values[0] if values else default


Hijack = Callable[[], Awaitable[None]]


def chunked(data: bytes) -> bytes:
    """Return a piece of a body as it is sent where the whole length is unknown (RFC 9112, 7.1); data is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class LiveStream(AsyncIterator[bytes]):
    """A stream whose owner may send what comes without waking who sends it, while that waits for the next piece.

    `push` takes a piece that is `chunked` already, as many streams may share it. It returns False if it cannot be sent
    now; then it has to come by iteration. It is set by who sends the stream, if that can take chunks at any time.
    """

    def __init__(self) -> None:
        self.push: Callable[[bytes], bool] | None = None


@dataclass(slots=True)
class Response:
    """An answer: a body, or a stream of chunks (watch, log, proxy), or a hijack that owns the connection from now on.

    `object` may hold the typed object of an answer to a request in process, which then needs no body.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    hijack: Hijack | None = None
    object: Any = None
    warnings: Sequence[str] = ()
    """Values of the Warning header, which then stands once for each of them."""
    further: Sequence[tuple[str, str]] = ()
    """Headers that stand beside others of the same name, in answers of other servers."""
    when_over: list[Callable[[], None]] = field(default_factory=list)
    """What to call when a stream or a hijack has ended; nobody calls it for other answers."""

    def over(self) -> None:
        """Tell those who wanted to know that a stream or a hijack has ended."""
        for call in self.when_over:
            call()
