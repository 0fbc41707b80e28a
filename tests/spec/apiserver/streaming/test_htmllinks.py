"""Links of a proxied page lead through the proxy again, as far as they mean the same server."""

from __future__ import annotations

import pytest

from haven.apiserver.htmllinks import rewrite_page, rewrite_url

PREFIX = "/api/v1/namespaces/n/pods/p:80/proxy"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/a", f"{PREFIX}/a"),
        ("/a/?q=1#x", f"{PREFIX}/a/?q=1#x"),
        ("http://10.0.0.1:80/a", f"{PREFIX}/a"),
        ("a/b", "a/b"),
        ("http://elsewhere/a", "http://elsewhere/a"),
        (f"{PREFIX}/a", f"{PREFIX}/a"),
        ("http://[broken", "http://[broken"),
    ],
)
def test_only_absolute_paths_of_the_same_server_are_led_through_the_proxy(url: str, expected: str) -> None:
    assert rewrite_url(url, PREFIX, {"10.0.0.1:80"}) == expected


def test_a_page_keeps_everything_but_its_links() -> None:
    page = '<!doctype html>\n<p title="/t">é &amp; <a class=x href="/rewriteme">test</a>\n<img src=/i.png/><b>/b</b>'

    assert rewrite_page(page, "/p", ()) == (
        '<!doctype html>\n<p title="/t">é &amp; <a class=x href="/p/rewriteme">test</a>\n<img src="/p/i.png/"><b>/b</b>'
    )
