"""Requests read from bytes, however they arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from haven.apiserver.http.messages import HEAD_BYTES_MAX, Malformed, Message, Messages, head_bytes, split_target

GET = b"GET /api/v1/pods?limit=1 HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n"
POST = b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
UPGRADE = b"POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


def reader(limit: int = 100, on_continue: Callable[[], None] = lambda: None) -> Messages:
    return Messages(limit, on_continue)


def read(*pieces: bytes, limit: int = 100) -> list[Message]:
    messages = reader(limit)
    for piece in pieces:
        messages.feed(piece)
    return list(messages.ready)


@pytest.mark.parametrize("data", [GET, POST, CHUNKED])
def test_a_message_is_the_same_in_one_piece_or_in_single_bytes(data: bytes) -> None:
    [whole] = read(data)
    [pieces] = read(*(bytes([byte]) for byte in data))

    assert (pieces.method, pieces.target, pieces.body) == (whole.method, whole.target, whole.body)
    assert pieces.headers.by_name == whole.headers.by_name
    assert whole.body == (b"" if data is GET else b"hello")


def test_messages_that_come_together_are_read_in_order() -> None:
    assert [one.target for one in read(GET + POST + GET + CHUNKED)] == [
        "/api/v1/pods?limit=1",
        "/api",
        "/api/v1/pods?limit=1",
        "/api",
    ]


def test_headers_that_are_known_are_not_read_again() -> None:
    first, second = read(GET, GET.replace(b"limit=1", b"limit=2"))

    assert second.headers is first.headers
    assert second.target == "/api/v1/pods?limit=2"


@pytest.mark.parametrize(
    "again",
    [
        GET.replace(b"json", b"yaml"),
        GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        GET.replace(b"GET", b"DELETE"),
        GET + GET,
        GET[:-1],
    ],
)
def test_what_differs_is_read_as_it_is(again: bytes) -> None:
    messages = reader()
    messages.feed(GET)
    first = messages.ready.popleft()

    messages.feed(again)

    assert all(one.headers is not first.headers for one in messages.ready)
    assert len(messages.ready) == again.count(b"\r\n\r\n")


def test_headers_with_a_body_are_never_taken_for_known() -> None:
    one, two = read(POST, POST.replace(b"hello", b"world"))

    assert (one.body, two.body) == (b"hello", b"world")


def test_a_get_smuggled_behind_a_known_head_is_a_body() -> None:
    with_body = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(GET)

    found = read(with_body + GET, with_body + GET, limit=1000)

    assert [one.body for one in found] == [GET, GET]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (HEAD_BYTES_MAX + 1), 431),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(Malformed) as caught:
        read(data)

    assert caught.value.status == status


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
    ],
)
def test_a_body_that_is_too_large_is_told_before_it_has_come(data: bytes) -> None:
    messages = reader(limit=100)

    messages.feed(data)
    messages.feed(b"x" * 10_000)

    [message] = messages.ready
    assert message.too_large
    assert not message.keep_alive


def test_a_client_that_asks_is_told_to_go_on() -> None:
    told: list[bool] = []
    messages = reader(on_continue=lambda: told.append(True))

    messages.feed(POST[:-5].replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"))
    assert told
    assert not messages.ready

    messages.feed(b"hello")
    assert messages.ready[0].body == b"hello"


def test_behind_an_upgrade_nothing_is_read() -> None:
    messages = reader()

    messages.feed(UPGRADE + b"\x80\x03")
    messages.feed(GET)

    assert [one.upgrade for one in messages.ready] == [True]
    assert messages.rest == b"\x80\x03"


def test_an_upgrade_to_http_2_is_answered_in_http_1_body_and_all() -> None:
    asked = POST.replace(b"Host: x", b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c")

    found = read(asked + GET)

    assert [(one.upgrade, one.body) for one in found] == [(False, b"hello"), (False, b"")]


def test_headers_that_come_several_times_are_all_kept() -> None:
    [message] = read(b"GET / HTTP/1.1\r\nHost: x\r\nImpersonate-Group: a\r\nimpersonate-group: b\r\n\r\n")

    assert message.headers.repeated == {"impersonate-group": ["a", "b"]}
    assert message.headers.raw[1:] == [("Impersonate-Group", "a"), ("impersonate-group", "b")]


def test_a_head_is_rendered_as_it_came() -> None:
    [message] = read(UPGRADE)

    assert head_bytes(message) == UPGRADE


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a%20b?x=1&x=2&y", "/a b", {"x": ["1", "2"], "y": [""]}),
        ("http://host:1/a?b=c", "/a", {"b": ["c"]}),
        ("http://host", "/", {}),
        ("*", "*", {}),
    ],
)
def test_targets_have_a_path_and_a_query(target: str, path: str, query: dict[str, list[str]]) -> None:
    assert split_target(target) == (path, query)


@pytest.mark.parametrize("target", ["/%", "/%zz", "host:443", "ftp://host/"])
def test_targets_that_are_none_are_refused(target: str) -> None:
    with pytest.raises(Malformed):
        split_target(target)


@pytest.mark.parametrize("method", ["FOO", "foo", "get", "X-Y"])
def test_a_method_that_nobody_knows_is_read_like_any_other(method: str) -> None:
    data = POST.replace(b"POST", method.encode())

    first, second, third = read(GET, data, GET)

    assert (first.method, second.method, third.method) == ("GET", method, "GET")
    assert (second.target, second.body) == ("/api", b"hello")


@pytest.mark.parametrize("line", [b"F(O /api HTTP/1.1", b"FOO  /api", b" GET /api HTTP/1.1"])
def test_a_line_that_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        read(line + b"\r\nHost: x\r\n\r\n")


def test_a_pair_of_a_query_that_holds_a_semicolon_counts_for_nothing() -> None:
    assert split_target("/api?limit=1;x=2&watch=1")[1] == {"watch": ["1"]}


def test_a_target_that_is_not_ascii_is_read_as_if_it_were_escaped() -> None:
    [message] = read("GET /api/é HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert split_target(message.target)[0] == "/api/é"


def test_who_has_no_body_to_send_is_not_told_to_send_it() -> None:
    told: list[bool] = []
    messages = reader(on_continue=lambda: told.append(True))

    messages.feed(GET.replace(b"Accept: application/json", b"Expect: 100-continue"))
    messages.feed(POST.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"))

    assert told == [True]
