"""The kernel takes the rules, changes lead to the same state as writing all anew, and packets go where they should."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.e2e.kubeproxy.netns import inside, netns, run
from tests.spec.kubeproxy.services import a_service, a_slice, an_endpoint

from haven.api.discovery import v1 as discovery
from haven.kubeproxy import rules
from haven.kubeproxy.driver import Nftables
from haven.kubeproxy.endpoints import Node
from haven.kubeproxy.plan import Plan, plan_service
from haven.kubeproxy.rules import TABLE, Layout

pytestmark = pytest.mark.e2e
LAYOUT = Layout(pod_cidrs=("10.244.0.0/24",), service_cidrs=("10.96.0.0/16",))
NODE = Node("n1")


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A node: two Pods behind a bridge, each a namespace of its own."""
    prefix = f"kp{os.getpid()}"
    with ExitStack() as stack:
        node = stack.enter_context(netns(f"{prefix}-node"))
        run("ip", "-n", node, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", node, "addr", "add", "10.244.0.1/24", "dev", "br0")
        run("ip", "-n", node, "addr", "add", "192.168.77.1/32", "dev", "lo")
        run("ip", "-n", node, "link", "set", "br0", "up")
        run("ip", "netns", "exec", node, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        run("ip", "netns", "exec", node, "sh", "-c", "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables")
        for number in (2, 3):
            pod = stack.enter_context(netns(f"{prefix}-pod{number}"))
            run("ip", "-n", node, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", pod)
            run("ip", "-n", node, "link", "set", f"v{number}", "master", "br0", "up")
            run("ip", "netns", "exec", node, "bridge", "link", "set", "dev", f"v{number}", "hairpin", "on")
            run("ip", "-n", pod, "addr", "add", f"10.244.0.{number}/24", "dev", "eth0")
            run("ip", "-n", pod, "link", "set", "eth0", "up")
            run("ip", "-n", pod, "route", "add", "default", "via", "10.244.0.1")
        # Everything else: a route into nothing, so that service addresses are routable.
        run("ip", "-n", node, "route", "add", "default", "dev", "br0")
        yield prefix


@pytest.fixture(scope="module")
def nftables(host: str) -> Iterator[Nftables]:
    driver = inside(f"{host}-node", Nftables)  # Its socket stays in the namespace where it was opened.
    yield driver
    driver.close()


@pytest.fixture
def echo(host: str) -> Iterator[None]:
    """Each Pod answers on TCP 8080 with its own address and its caller's."""
    with ExitStack() as stack:
        for number in (2, 3):
            stack.enter_context(_server(f"{host}-pod{number}", f"10.244.0.{number}"))
        yield


class _server:
    def __init__(self, namespace: str, address: str) -> None:
        self._listener: socket.socket = inside(namespace, lambda: socket.create_server((address, 8080)))
        self._address = address
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{self._address} {peer[0]}".encode())


def ask(namespace: str, address: str, port: int) -> tuple[str, str]:
    """Return (who answered, whom it saw)."""

    def talk() -> bytes:
        with socket.create_connection((address, port), timeout=60) as connection:
            return connection.recv(100)

    who, whom = inside(namespace, talk).decode().split()
    return who, whom


def apply(host: str, nftables: Nftables, text: str) -> None:
    inside(f"{host}-node", lambda: nftables.run(text) if text else "")


def listing(host: str, nftables: Nftables) -> str:
    """The table as the kernel has it, without what may differ: handles and the order of chains and elements."""
    text = inside(f"{host}-node", lambda: nftables.run(f"list table ip {TABLE}\n"))
    blocks = re.split(r"\n\t(?=chain|map|set)", text)
    return "\n".join(sorted("".join(sorted(re.findall(r"[\w.:/-]+", block))) for block in blocks))


def a_plan(*endpoints: discovery.Endpoint, **spec: object) -> Plan:
    return plan_service(a_service(**spec), [a_slice(*endpoints)], NODE)


TWO = (an_endpoint("10.244.0.2"), an_endpoint("10.244.0.3"))


def test_a_cluster_ip_reaches_every_endpoint(host: str, nftables: Nftables, echo: None) -> None:
    apply(host, nftables, rules.full(LAYOUT, a_plan(*TWO)))

    answers = {ask(f"{host}-node", "10.96.0.50", 80)[0] for _ in range(40)}

    assert answers == {"10.244.0.2", "10.244.0.3"}


def test_a_pod_reaches_a_service_with_its_own_address_kept(host: str, nftables: Nftables, echo: None) -> None:
    apply(host, nftables, rules.full(LAYOUT, a_plan(TWO[1])))

    assert ask(f"{host}-pod2", "10.96.0.50", 80) == ("10.244.0.3", "10.244.0.2")


def test_a_pod_reaches_itself_through_its_service(host: str, nftables: Nftables, echo: None) -> None:
    apply(host, nftables, rules.full(LAYOUT, a_plan(TWO[0])))

    assert ask(f"{host}-pod2", "10.96.0.50", 80) == ("10.244.0.2", "10.244.0.1")


def test_a_node_port_answers_on_the_nodes_addresses(host: str, nftables: Nftables, echo: None) -> None:
    apply(host, nftables, rules.full(LAYOUT, a_plan(*TWO, node_port=30080)))

    assert ask(f"{host}-pod2", "10.244.0.1", 30080)[0].startswith("10.244.0.")
    assert ask(f"{host}-node", "192.168.77.1", 30080)[0].startswith("10.244.0.")


def test_session_affinity_stays_with_one_endpoint(host: str, nftables: Nftables, echo: None) -> None:
    apply(host, nftables, rules.full(LAYOUT, a_plan(*TWO, session_affinity="ClientIP")))

    answers = {ask(f"{host}-node", "10.96.0.50", 80)[0] for _ in range(20)}

    assert len(answers) == 1


@pytest.mark.parametrize("source", ["node", "pod2"])
def test_a_service_without_endpoints_refuses_at_once(host: str, nftables: Nftables, source: str) -> None:
    apply(host, nftables, rules.full(LAYOUT, a_plan()))

    with pytest.raises(ConnectionRefusedError):
        ask(f"{host}-{source}", "10.96.0.50", 80)


def test_a_port_that_no_service_has_is_refused(host: str, nftables: Nftables) -> None:
    apply(host, nftables, rules.full(LAYOUT, a_plan(*TWO)))

    with pytest.raises(ConnectionRefusedError):
        ask(f"{host}-pod2", "10.96.0.50", 81)


def test_a_local_policy_without_an_endpoint_here_drops_what_comes_from_outside(
    host: str, nftables: Nftables, echo: None
) -> None:
    plan = a_plan(an_endpoint("10.244.0.3", node="n2"), node_port=30080, external_traffic_policy="Local")
    apply(host, nftables, rules.full(LAYOUT, plan))

    assert ask(f"{host}-node", "192.168.77.1", 30080)[0] == "10.244.0.3"  # This host may use every endpoint.
    assert "drop" in inside(f"{host}-node", lambda: nftables.run(f"list table ip {TABLE}\n"))


endpoints = st.lists(
    st.builds(
        an_endpoint,
        st.sampled_from(["10.244.0.2", "10.244.0.3", "10.244.0.4"]),
        node=st.sampled_from(["n1", "n2"]),
        ready=st.booleans(),
        terminating=st.booleans(),
        serving=st.booleans(),
    ),
    max_size=3,
)
specs = st.fixed_dictionaries(
    {
        "node_port": st.sampled_from([0, 30080]),
        "session_affinity": st.sampled_from(["None", "ClientIP"]),
        "internal_traffic_policy": st.sampled_from(["Cluster", "Local"]),
        "external_traffic_policy": st.sampled_from(["Cluster", "Local"]),
        "external_ips": st.sampled_from([[], ["192.168.9.9"]]),
    }
)
services: Callable[[str, str], st.SearchStrategy[Plan]] = lambda name, ip: st.builds(  # noqa: E731
    lambda ends, spec: plan_service(a_service(name, cluster_ip=ip, **spec), [a_slice(*ends)], NODE), endpoints, specs
)
# Both may have the same external IP and NodePort at once: the API allows the former, and the latter passes by.
plans = st.builds(lambda a, b: {**a, **b}, services("a", "10.96.0.1"), st.just({}) | services("b", "10.96.0.2"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(plans, min_size=1, max_size=4))
def test_changes_lead_to_what_writing_all_anew_would(host: str, nftables: Nftables, steps: list[Plan]) -> None:
    apply(host, nftables, rules.full(LAYOUT, {}))
    known: Plan = {}
    for plan in steps:
        apply(host, nftables, rules.change(LAYOUT, known, plan))
        known = plan
    changed = listing(host, nftables)
    apply(host, nftables, rules.full(LAYOUT, known))

    assert changed == listing(host, nftables)
