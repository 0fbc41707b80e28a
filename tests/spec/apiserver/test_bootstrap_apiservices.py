"""The APIServices of what a server serves itself."""

from __future__ import annotations

import random

from haven.api.apiregistration import v1 as apiregistration
from haven.api.scheme import resource_of
from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.settings import Settings
from haven.client.interface import Client
from haven.store.memory import MemoryStore

SLICES = "v1beta2.resource.k8s.io"


async def services(store: MemoryStore, keys: SigningKeys, *runtime_config: str) -> dict[str, tuple[int, int]]:
    """Start a server and end it; return the priorities of its APIServices' groups and versions."""
    settings = Settings(serve_kubernetes_service=False, runtime_config=runtime_config)
    trust = assembly.Trust(keys)
    server = await assembly.start(settings, store, trust, chance=random.Random(7), listen=False)
    client: Client = server.local_client()
    found = (await client.list(resource_of(apiregistration.APIService))).items
    await server.stop()
    return {
        each.metadata.name: (each.spec.group_priority_minimum, each.spec.version_priority)
        for each in found
        if each.metadata.labels.get("kube-aggregator.kubernetes.io/automanaged") == "onstart"
    }


async def test_versions_that_are_switched_on_have_services_until_they_are_off_again(signing_keys: SigningKeys) -> None:
    store = MemoryStore()

    before = await services(store, signing_keys)
    between = await services(store, signing_keys, "resource.k8s.io/v1beta2=true")
    after = await services(store, signing_keys)
    await store.close()

    assert SLICES not in before
    assert between == {**before, SLICES: (16200, 15)}
    assert after == before
