"""A kopf operator against a real API: its Deployment becomes ready, and goes when the Shop goes."""

from pathlib import Path

import pytest
from kopf.testing import KopfRunner

from haven.testing import Cluster, Invalid

HERE = Path(__file__).parent


def a_shop(**spec: object) -> dict[str, object]:
    return {"apiVersion": "example.org/v1", "kind": "Shop", "metadata": {"name": "corner"}, "spec": spec}


def test_a_shop_opens_and_closes(haven_cluster: Cluster) -> None:
    haven_cluster.apply(HERE / "shops.yaml")

    with KopfRunner(["run", "--all-namespaces", str(HERE / "operator_kopf.py")], timeout=120):
        haven_cluster.create(a_shop(counters=2))
        haven_cluster.wait_for("shop/corner", {"status": {"open": 2}}, timeout=120)

        haven_cluster.delete("shop", "corner")
        haven_cluster.wait_until(lambda: not haven_cluster.list("pods"), timeout=120)

    haven_cluster.audit.assert_requested(
        verb="create", resource="deployments", user_agent="*OpenAPI-Generator*", times=1
    )


def test_the_definition_is_held_to(haven_cluster: Cluster) -> None:
    haven_cluster.apply(HERE / "shops.yaml")

    with pytest.raises(Invalid, match=r"spec\.counters"):
        haven_cluster.create(a_shop(counters=0))
