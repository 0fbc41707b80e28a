"""Who owns what of the objects that a cluster starts with."""

from __future__ import annotations

from typing import Any

import pytest

from haven.api.networking import v1 as networking
from haven.api.rbac import v1 as rbac
from haven.apimachinery import apply, serialization
from haven.apimachinery.schema import schema_for
from haven.apiserver.bootstrap.objects import BootstrapSettings, bootstrap_objects, resource_of
from haven.apiserver.bootstrap.ownership import manager_of, owners

NOW = "2026-01-01T00:00:00Z"
OBJECTS = list(bootstrap_objects(BootstrapSettings(client_ca_pem="one", front_proxy_ca_pem="two")))


def as_created(obj: Any) -> dict[str, Any]:
    """Return an object as the request that makes it has it."""
    resource = resource_of(obj)
    tree = serialization.to_tree(obj) | {"kind": resource.kind, "apiVersion": resource.api_version}
    tree.pop("status", None)
    if resource.kind == "Namespace":
        del tree["spec"]
    if "aggregationRule" in tree:
        tree.pop("rules", None)
    return tree


@pytest.mark.parametrize("kind", sorted({type(obj) for obj in OBJECTS}, key=lambda kind: kind.__name__))
def test_what_is_written_down_is_what_a_create_of_each_object_would_own(kind: type[Any]) -> None:
    for obj in OBJECTS:
        if type(obj) is not kind:
            continue
        resource = resource_of(obj)
        schema = schema_for(resource.group, resource.version, resource.kind)
        assert schema is not None

        entry = serialization.to_tree(owners(obj, resource.api_version, NOW)[-1])

        expected = apply.update(None, as_created(obj), schema, manager_of(obj), now=NOW)
        assert [entry] == expected, obj.metadata.name
        assert str(entry["fieldsV1"]) == str(expected[0]["fieldsV1"]), obj.metadata.name  # The order too.


def test_rules_that_a_role_aggregates_belong_to_who_aggregates_them() -> None:
    admin = next(obj for obj in OBJECTS if type(obj) is rbac.ClusterRole and obj.metadata.name == "admin")

    applied, created = owners(admin, "rbac.authorization.k8s.io/v1", NOW)

    assert (applied.manager, applied.operation) == ("clusterrole-aggregation-controller", "Apply")
    assert applied.fields_v1 == {"f:rules": {}}
    assert "f:rules" not in (created.fields_v1 or {})


def test_the_default_network_says_that_it_is_ready_in_the_name_of_its_controller() -> None:
    network = next(obj for obj in OBJECTS if type(obj) is networking.ServiceCIDR)

    applied, created = owners(network, "networking.k8s.io/v1", NOW)

    assert (applied.manager, applied.subresource) == ("kubernetes-service-cidr-controller", "status")
    assert created.fields_v1 == {"f:spec": {"f:cidrs": {}}}
