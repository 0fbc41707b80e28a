from __future__ import annotations

from tests.spec.controllers.world import World

from haven.api.rbac import v1 as rbac
from haven.apimachinery import meta
from haven.controllers.clusterroleaggregation import ClusterRoleAggregationController


def a_role(name: str, *verbs: str, label: str = "", gathers: str = "") -> rbac.ClusterRole:
    selector = meta.LabelSelector(match_labels={"to": gathers})
    return rbac.ClusterRole(
        metadata=meta.ObjectMeta(name=name, labels={"to": label} if label else {}),
        rules=[rbac.PolicyRule(verbs=[verb], api_groups=[""], resources=["pods"]) for verb in verbs],
        aggregation_rule=rbac.AggregationRule(cluster_role_selectors=[selector]) if gathers else None,
    )


def verbs(world: World, name: str = "all") -> list[str]:
    role: rbac.ClusterRole = world.get(rbac.ClusterRole, "", name)
    return [verb for rule in role.rules or () for verb in rule.verbs or ()]


def test_a_role_gathers_the_rules_of_others_by_name_and_each_once() -> None:
    world = World()
    world.put(a_role("all", gathers="all"), a_role("b", "list", "get", label="all"), a_role("a", "get", label="all"))

    world.start(ClusterRoleAggregationController)

    assert verbs(world) == ["get", "list"]


def test_rules_that_somebody_wrote_stay_until_there_are_some_to_gather() -> None:
    world = World()
    world.put(a_role("all", "stale", gathers="all"))
    world.start(ClusterRoleAggregationController)
    assert verbs(world) == ["stale"]

    world.put(a_role("a", "get", label="all"))
    world.settle()
    assert verbs(world) == ["get"]
    world.remove(rbac.ClusterRole, "", "a")
    world.settle()

    assert verbs(world) == []


def test_it_follows_roles_that_come_change_and_go() -> None:
    world = World()
    world.put(a_role("all", gathers="all"), a_role("other", "delete", label="else"))
    world.start(ClusterRoleAggregationController)
    assert verbs(world) == []

    world.put(a_role("a", "get", label="all"))
    world.settle()
    assert verbs(world) == ["get"]
    world.change(rbac.ClusterRole, "", "other", lambda role: role.metadata.labels.update(to="all"))
    world.settle()
    assert verbs(world) == ["get", "delete"]
    world.remove(rbac.ClusterRole, "", "a")
    world.settle()

    assert verbs(world) == ["delete"]
