"""A streaming request is checked, and finds its container, port and endpoint, as upstream does."""

from __future__ import annotations

import pytest

from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta
from haven.apiserver.streaming import location


def a_pod(*names: str, **annotations: str) -> core.Pod:
    return core.Pod(
        metadata=meta.ObjectMeta(name="p", annotations=annotations),
        spec=core.PodSpec(containers=[core.Container(name=name) for name in names]),
    )


def test_the_only_container_need_not_be_named() -> None:
    assert location.choose_container(a_pod("a"), "") == "a"


def test_several_containers_must_be_told_apart() -> None:
    with pytest.raises(apierrors.BadRequest, match=r"must be specified for pod p, choose one of: \[a b\]"):
        location.choose_container(a_pod("a", "b"), "")


def test_the_annotated_container_is_the_default_for_exec() -> None:
    pod = core.Pod(
        metadata=meta.ObjectMeta(name="p", annotations={"kubectl.kubernetes.io/default-container": "b"}),
        spec=core.PodSpec(containers=[core.Container(name="a"), core.Container(name="b")]),
    )

    assert location.default_container(pod, "") == "b"
    assert location.default_container(pod, "a") == "a"


def test_an_unknown_container_is_a_bad_request() -> None:
    with pytest.raises(apierrors.BadRequest, match="container x is not valid for pod p"):
        location.choose_container(a_pod("a"), "x")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"tailLines": ["-1"]}, "tailLines"),
        ({"limitBytes": ["0"]}, "limitBytes"),
        ({"sinceSeconds": ["0"]}, "sinceSeconds"),
        ({"stream": ["Std"]}, "stream"),
    ],
)
def test_log_options_out_of_range_are_invalid(query: dict[str, list[str]], field: str) -> None:
    with pytest.raises(apierrors.Invalid) as caught:
        location.log_options("p", query)

    assert caught.value.details is not None
    assert [cause.field for cause in caught.value.details.causes] == [field]


def test_exec_needs_a_command_and_a_stream() -> None:
    with pytest.raises(apierrors.BadRequest, match="at least one command"):
        location.exec_query({"stdout": ["true"]}, command=True)
    with pytest.raises(apierrors.BadRequest, match="at least 1 of stdin, stdout, stderr"):
        location.exec_query({"stdout": ["false"], "stderr": ["0"], "command": ["ls"]}, command=True)


def test_a_terminal_has_no_stderr_of_its_own() -> None:
    query = {"stdin": ["1"], "stdout": ["1"], "stderr": ["1"], "tty": ["true"], "command": ["sh", "-c", "a b"]}

    assert location.exec_query(query, command=True) == "input=1&output=1&tty=1&command=sh&command=-c&command=a+b"


@pytest.mark.parametrize(
    ("path", "is_namespaced", "prefix", "rest"),
    [
        ("/api/v1/namespaces/n/pods/p/proxy", True, "/api/v1/namespaces/n/pods/p/proxy", "/"),
        ("/api/v1/namespaces/proxy-1/services/proxy/proxy/a/proxy/", True,
         "/api/v1/namespaces/proxy-1/services/proxy/proxy", "/a/proxy/"),
        ("/api/v1/nodes/n:10250/proxy/pods", False, "/api/v1/nodes/n:10250/proxy", "/pods"),
    ],
)  # fmt: skip
def test_what_follows_the_proxy_is_passed_on_whatever_the_names(
    path: str, is_namespaced: bool, prefix: str, rest: str
) -> None:
    assert location.split_proxy_path(path, is_namespaced=is_namespaced) == (prefix, rest)


def some_endpoints() -> core.Endpoints:
    def address(ip: str, pod: str, namespace: str = "n") -> core.EndpointAddress:
        return core.EndpointAddress(ip=ip, target_ref=core.ObjectReference(kind="Pod", namespace=namespace, name=pod))

    subset = core.EndpointSubset(
        addresses=[
            address("10.0.0.1", "a"),
            address("10.0.0.2", "moved"),
            address("10.0.0.3", "a", "elsewhere"),
            core.EndpointAddress(ip="10.0.0.4"),
        ],
        ports=[core.EndpointPort(name="web", port=80), core.EndpointPort(name="more", port=81)],
    )
    return core.Endpoints(metadata=meta.ObjectMeta(name="s", namespace="n"), subsets=[subset])


def test_a_service_is_proxied_to_pods_of_its_namespace_only() -> None:
    addresses = {"a": ["10.0.0.1", "10.0.0.3"], "moved": ["10.0.0.9"]}

    found = location.pod_addresses(some_endpoints(), "web", addresses.__getitem__)

    assert found == [("10.0.0.1", 80)]
    assert not location.pod_addresses(some_endpoints(), "", addresses.__getitem__)


def test_a_service_port_is_found_by_its_number() -> None:
    service = core.Service(
        metadata=meta.ObjectMeta(name="s"), spec=core.ServiceSpec(ports=[core.ServicePort(name="web", port=80)])
    )

    assert location.named_port(service, 80) == "web"
    with pytest.raises(apierrors.ServiceUnavailable, match='no service port 81 found for service "s"'):
        location.named_port(service, 81)


@pytest.mark.parametrize("name", ["a:b:c:d", "ftp:a:80", ":80", ""])
def test_a_proxied_name_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(apierrors.BadRequest, match=f'invalid pod request "{name}"'):
        location.split_target(name, "pod")


def test_a_port_must_be_one() -> None:
    assert location.port_number("443") == 443
    with pytest.raises(apierrors.ServiceUnavailable, match="address 99999: invalid port"):
        location.port_number("99999")
    with pytest.raises(apierrors.ServiceUnavailable, match="lookup tcp/x: unknown port"):
        location.port_number("x")
