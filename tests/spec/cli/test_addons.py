"""Haven's own objects in a cluster, also where two servers on one store make them at the same moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from haven.apimachinery import apierrors
from haven.apimachinery.fielderrors import Path as FieldPath
from haven.apimachinery.fielderrors import invalid
from haven.cli.addons import ensure_addons
from haven.cli.places import Places
from haven.cli.settings import ClusterSettings
from haven.client.interface import Client


class Cluster:
    """Objects by kind and name; what `other` holds appears when we try to make it."""

    def __init__(self, *, other: bool) -> None:
        self.names: set[str] = set()
        self._other = other

    async def get(self, resource: Any, _namespace: str, name: str) -> str:
        if f"{resource.kind}/{name}" not in self.names:
            raise apierrors.NotFound.of(resource.group_resource, name)
        return name

    async def create(self, resource: Any, obj: Any, *, namespace: str) -> None:
        if resource.kind == "Service":
            if self._other:
                self.names.add(f"Service/{obj.metadata.name}")
            taken = invalid(FieldPath("spec").child("clusterIPs"), obj.spec.cluster_ip, "is already allocated")
            raise apierrors.Invalid.of(apierrors.GroupKind("", "Service"), obj.metadata.name, [taken])
        self.names.add(f"{resource.kind}/{obj.metadata.name}")


async def test_the_service_that_another_server_made_is_ours_too(tmp_path: Path) -> None:
    cluster = Cluster(other=True)

    await ensure_addons(cast("Client", cluster), ClusterSettings(places=Places(data=tmp_path)))

    assert "Service/kube-dns" in cluster.names


async def test_an_address_that_somebody_else_has_is_told(tmp_path: Path) -> None:
    with pytest.raises(apierrors.Invalid, match="already allocated"):
        await ensure_addons(cast("Client", Cluster(other=False)), ClusterSettings(places=Places(data=tmp_path)))
