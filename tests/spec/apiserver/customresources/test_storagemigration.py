"""Objects are rewritten as the server stores new ones."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tests.spec.apiserver.customresources.definitions import DEFINITIONS, THINGS, a_definition, a_version

from haven.apimachinery import serialization
from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.settings import Settings as ServerSettings
from haven.client.sharedinformers import SharedInformers
from haven.controllers.catalog import catalog
from haven.controllers.manager import ControllerManager
from haven.controllers.settings import Settings
from haven.store.memory import MemoryStore

SECONDS_MAX = 60.0


async def test_a_migration_rewrites_what_is_stored_in_an_older_version(signing_keys: SigningKeys) -> None:
    store = MemoryStore()
    settings = ServerSettings(
        serve_kubernetes_service=False,
        runtime_config=("storagemigration.k8s.io/v1beta1=true",),
        feature_gates=("StorageVersionMigrator=true",),
    )
    trust = assembly.Trust(signing_keys)
    server = await assembly.start(settings, store, trust, chance=random.Random(7), listen=False)
    transport = server.local_transport()

    async def send(method: str, path: str, body: Any = None) -> Any:
        data = serialization.encode(body) if body is not None else b""
        headers = {"accept": "application/json", "content-type": "application/json"}
        answer = await transport.request(method, path, body=data, headers=headers)
        return serialization.decode_tree(answer.body)

    async def until_stored_as(versions: list[str]) -> None:
        found: list[str] = []
        while found != versions:
            await asyncio.sleep(0)
            found = (await send("GET", f"{DEFINITIONS}/things.example.com"))["status"]["storedVersions"]

    async def stored() -> bytes:
        found = await store.range(b"/registry/example.com/things/")
        return b"".join(record.value for record in found.records)

    chosen = Settings(features=frozenset({"StorageVersionMigrator"}))
    others = frozenset(entry.name for entry in catalog(chosen)) - {"storage-version-migrator"}
    informers = SharedInformers(server.local_client())
    controllers = ControllerManager(
        Settings(features=chosen.features, disabled=others), lambda _account: server.local_client(), informers
    )
    tasks = [asyncio.ensure_future(informers.run()), asyncio.ensure_future(controllers.run())]
    try:
        async with asyncio.timeout(SECONDS_MAX):
            await send("POST", DEFINITIONS, a_definition(a_version("v1"), a_version("v2", storage=False)))
            made: dict[str, Any] = {}
            while made.get("kind") != "Thing":  # Until it is served.
                await asyncio.sleep(0)
                made = await send("POST", THINGS, _thing())
            definition = await send("GET", f"{DEFINITIONS}/things.example.com")
            for version in definition["spec"]["versions"]:
                version["storage"] = version["name"] == "v2"
            await send("PUT", f"{DEFINITIONS}/things.example.com", definition)
            await until_stored_as(["v1", "v2"])
            assert b'"example.com/v1"' in await stored()

            path = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations"
            resource = {"group": "example.com", "resource": "things"}
            await send("POST", path, {"metadata": {"name": "m"}, "spec": {"resource": resource}})
            await until_stored_as(["v2"])

        assert b'"example.com/v2"' in await stored()
        conditions = (await send("GET", f"{path}/m"))["status"]["conditions"]
        assert {(one["type"], one["status"]) for one in conditions} >= {("Succeeded", "True")}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()
        await store.close()


def _thing() -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"x": 1}}
