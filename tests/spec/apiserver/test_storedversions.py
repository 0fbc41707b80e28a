"""How built-in resources are stored, as upstream's server was asked."""

from __future__ import annotations

from typing import Any

import pytest

from haven.apiserver.storedversions import stored_versions


@pytest.mark.parametrize(
    ("name", "encoding", "decodable", "served"),
    [
        ("apps.deployments", "apps/v1", "apps/v1 apps/v1beta2 apps/v1beta1", "apps/v1"),
        (
            "autoscaling.horizontalpodautoscalers",
            "autoscaling/v2",
            "autoscaling/v2 autoscaling/v1",
            "autoscaling/v1 autoscaling/v2",
        ),
        ("core.events", "v1", "v1 events.k8s.io/v1", "v1"),
        ("core.pods", "v1", "v1", "v1"),
        (
            "apiextensions.k8s.io.customresourcedefinitions",
            "apiextensions.k8s.io/v1beta1",
            "apiextensions.k8s.io/v1 apiextensions.k8s.io/v1beta1",
            "apiextensions.k8s.io/v1",
        ),
        (
            "networking.k8s.io.ingresses",
            "networking.k8s.io/v1",
            "networking.k8s.io/v1 networking.k8s.io/v1beta1",
            "networking.k8s.io/v1",
        ),
    ],
)
async def test_a_resource_is_stored_as_upstream_stores_it(
    api: Any, name: str, encoding: str, decodable: str, served: str
) -> None:
    found = {one.name: one for one in stored_versions(api.server.resources.endpoints.values())}

    one = found[name]

    assert (one.encoding, " ".join(one.decodable), " ".join(one.served)) == (encoding, decodable, served)
    assert "events.k8s.io.events" not in found
