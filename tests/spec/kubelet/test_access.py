"""What a request to the kubelet needs: a subresource of nodes, finer ones first."""

from __future__ import annotations

import pytest

from haven.kubelet.server.access import Caller, refusal, resource_attributes


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/runningpods/", "get", ("pods", "proxy")),
        ("GET", "/healthz/ping", "get", ("healthz", "proxy")),
        ("GET", "/configz", "get", ("configz", "proxy")),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("GET", "/metrics/cadvisor", "get", ("metrics",)),
        ("GET", "/logs/", "get", ("log",)),
        ("POST", "/checkpoint/ns/pod/c", "create", ("checkpoint",)),
        ("GET", "/statusz", "get", ("statusz",)),
        ("GET", "/flagz", "get", ("configz",)),
        ("POST", "/exec/ns/pod/c", "create", ("proxy",)),
        ("GET", "/containerLogs/ns/pod/c", "get", ("proxy",)),
        ("GET", "/podsx", "get", ("proxy",)),
        ("GET", "//stats/summary", "get", ("proxy",)),
        ("HEAD", "/pods", "", ("pods", "proxy")),
    ],
)
def test_each_path_has_its_subresource(method: str, path: str, verb: str, subresources: tuple[str, ...]) -> None:
    assert resource_attributes(method, path) == (verb, subresources)


def test_who_is_refused_is_told_what_it_takes() -> None:
    caller = Caller("jane", ("devs",))

    text = "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
    assert refusal(caller, "GET", "/pods") == text
