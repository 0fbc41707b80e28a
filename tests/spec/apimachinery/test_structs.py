"""API structs read and write JSON as Go's encoding/json does upstream's types."""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.api.rbac import v1 as rbac
from haven.apimachinery import serialization
from haven.apimachinery.quantity import Quantity


def test_zero_values_are_left_out_and_structs_held_by_value_are_written() -> None:
    pod = core.Pod(spec=core.PodSpec(containers=[core.Container(name="c")], host_network=False))

    assert serialization.encode(pod) == (
        b'{"kind":"Pod","apiVersion":"v1","metadata":{},"spec":{"containers":[{"name":"c","resources":{}}]},"status":{}}'
    )


def test_a_required_list_that_is_not_set_is_null_and_an_empty_one_is_empty() -> None:
    assert b'"rules":null' in serialization.encode(rbac.Role())
    assert b'"rules":[]' in serialization.encode(rbac.Role(rules=[]))


def test_wire_names_with_capitals_survive() -> None:
    text = b'{"kind":"Service","apiVersion":"v1","metadata":{},"spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"]},"status":{"loadBalancer":{}}}'  # noqa: E501

    service = serialization.decode(text, core.Service)

    assert service.spec.cluster_ip == "10.0.0.1"
    assert serialization.encode(service) == text


def test_quantities_become_canonical_whether_text_or_number() -> None:
    container = serialization.decode(b'{"name":"c","resources":{"limits":{"cpu":1,"memory":"1024Mi"}}}', core.Container)

    assert container.resources.limits == {"cpu": Quantity.of(1), "memory": Quantity.parse("1Gi")}
    assert serialization.encode(container) == b'{"name":"c","resources":{"limits":{"cpu":"1","memory":"1Gi"}}}'


def test_a_copy_shares_nothing_with_the_original() -> None:
    pod = core.Pod(spec=core.PodSpec(containers=[core.Container(name="c")]))

    copied = serialization.copy(pod)
    copied.spec.containers[0].name = "other"

    assert pod.spec.containers[0].name == "c"
