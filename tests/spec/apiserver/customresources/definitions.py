"""Definitions to try things with."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["DEFINITIONS", "THINGS", "a_definition", "established"]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
THINGS = "/apis/example.com/v1/namespaces/default/things"


def a_version(name: str = "v1", **rest: Any) -> dict[str, Any]:
    schema = rest.pop("schema", {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    return {"name": name, "served": True, "storage": name == "v1", "schema": {"openAPIV3Schema": schema}, **rest}


def a_definition(*versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]},
            "versions": list(versions) or [a_version()],
            **spec,
        },
    }


def spec_schema(**properties: Any) -> dict[str, Any]:
    """Return the schema of objects whose spec has these fields."""
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


async def established(api: Any, definition: dict[str, Any]) -> dict[str, Any]:
    """Create a definition and return it once it is served."""
    status, answer = await api.send("POST", DEFINITIONS, definition)
    assert status == 201, answer
    return await until(api, f"{DEFINITIONS}/{definition['metadata']['name']}", "Established")


async def until(api: Any, path: str, condition: str) -> dict[str, Any]:
    """Return a definition once a condition of it holds."""
    for _ in range(200):
        _, answer = await api.send("GET", path)
        for one in (answer.get("status") or {}).get("conditions") or []:
            if one["type"] == condition and one["status"] == "True":
                result: dict[str, Any] = answer
                return result
        await asyncio.sleep(0)
    raise AssertionError(answer)


async def gone(api: Any, path: str) -> None:
    """Return once there is nothing at a path."""
    for _ in range(2000):
        status, _ = await api.send("GET", path)
        if status == 404:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(path)


def thing(name: str = "a", **rest: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, **rest}
