"""What proxies pass on of a request and of its answer."""

from __future__ import annotations

import pytest

from haven.apiserver.passing import (
    asks_to_unpack,
    canonical,
    cleaned,
    escaped,
    forwarded_for,
    is_identity_header,
    kept,
    passed_answer,
)
from haven.apiserver.request import Request
from haven.apiserver.sniffing import content_type


def test_headers_of_one_connection_stay_behind() -> None:
    headers = [
        ("connection", "X-Hop, keep-alive"), ("X-Hop", "1"), ("Proxy-Connection", "keep-alive"), ("Host", "a"),
        ("Content-Length", "3"), ("TE", "trailers, deflate"), ("x-kept", "1"), ("X-Kept", "2"), ("User-Agent", ""),
    ]  # fmt: skip

    assert kept(headers) == [("X-Kept", "1"), ("X-Kept", "2"), ("Te", "trailers")]


@pytest.mark.parametrize(
    ("name", "spelled"),
    [("x-remote-extra-A%2Fb", "X-Remote-Extra-A%2fb"), ("audit-ID", "Audit-Id"), ("odd name", "odd name")],
)
def test_headers_are_spelled_as_go_does(name: str, spelled: str) -> None:
    assert canonical(name) == spelled


def test_what_clients_say_of_who_asks_is_not_passed_on() -> None:
    said = ["authorization", "x-remote-uid", "x-remote-extra-a", "impersonate-group", "impersonate-extra-a"]

    assert all(is_identity_header(name) for name in said)
    assert not is_identity_header("impersonate-nobody")


def test_who_asked_before_comes_first() -> None:
    headers = [("X-Forwarded-For", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")]

    assert forwarded_for(headers, "10.0.0.3") == "10.0.0.1, 10.0.0.2, 10.0.0.3"
    assert forwarded_for([], "10.0.0.3") == "10.0.0.3"


@pytest.mark.parametrize(
    ("method", "headers", "asks"),
    [
        ("GET", {}, True),
        ("GET", {"accept-encoding": "identity"}, False),
        ("GET", {"range": "bytes=0-1"}, False),
        ("HEAD", {}, False),
    ],
)
def test_an_answer_is_unpacked_for_clients_that_do_not_speak_of_it(
    method: str, headers: dict[str, str], asks: bool
) -> None:
    assert asks_to_unpack(Request(method, "/", {}, headers)) is asks


def test_answers_keep_their_cookies_but_not_their_opinion_on_origins() -> None:
    lines = [
        ("set-cookie", "a=1"), ("Set-Cookie", "b=2"), ("Cache-Control", "max-age=5"), ("Content-Length", "7"),
        ("Access-Control-Allow-Origin", "*"), ("Keep-Alive", "timeout=5"),
    ]  # fmt: skip

    passed = passed_answer(lines, is_rewritten=False)

    assert passed.headers == {"Set-Cookie": "a=1", "Content-Length": "7"}
    assert passed.further == [("Set-Cookie", "b=2"), ("Cache-Control", "max-age=5")]
    assert "Content-Length" not in passed_answer(lines, is_rewritten=True).headers


def test_paths_are_escaped_and_cleaned_as_go_does() -> None:
    assert escaped(b"/a b/!$&'()*+,;=:@~\xe9/") == "/a%20b/%21$&%27%28%29%2A+,;=:@~%E9/"
    assert cleaned("//a/./b//../c/") == "/a/c/"
    assert cleaned("/") == "/"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"plain", "text/plain; charset=utf-8"),
        (b"  <!doctype html>", "text/html; charset=utf-8"),
        (b"<body>", "text/html; charset=utf-8"),
        (b"<bodyguard>", "text/plain; charset=utf-8"),
        (b"<?xml version", "text/xml; charset=utf-8"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x1f\x8b\x08\x00", "application/x-gzip"),
        (b"RIFF0000WEBPVP8 ", "image/webp"),
        (b"RIFF0000XXXX\x00", "application/octet-stream"),
        (b"\x00\x00\x00\x18ftypmp42", "video/mp4"),
        (b"a\x01b", "application/octet-stream"),
        (b"x" * 512 + b"\x00", "text/plain; charset=utf-8"),
    ],
)
def test_a_body_without_a_type_is_looked_at(data: bytes, kind: str) -> None:
    assert content_type(data) == kind
