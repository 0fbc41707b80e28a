"""Requests per second of an API server: GET, LIST, creates."""

from __future__ import annotations

import json
from typing import Any

from bench.load import Figure, creating, wrk
from bench.objects import CONFIG_MAP, DIFFERENT_POD, NAMESPACE, POD, named, pods_path
from bench.target import Target

__all__ = [
    "CREATE_DIFFERENT",
    "CREATE_MAP",
    "CREATE_POD",
    "GET_MAP",
    "GET_POD",
    "LIST",
    "PODS",
    "ROWS",
    "Seeds",
    "measure",
    "prepare",
]

PODS = 1000
CONNECTIONS = 32
LIST_CONNECTIONS = 4
GET_POD, GET_MAP, LIST = "GET Pod", "GET ConfigMap", f"LIST {PODS:,} Pods"
CREATE_MAP, CREATE_POD, CREATE_DIFFERENT = "create ConfigMap", "create Pod", "create Pod, no two alike"


_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
_CREATES = {
    CREATE_MAP: (_MAPS, CONFIG_MAP),
    CREATE_POD: (pods_path(), POD),
    CREATE_DIFFERENT: (pods_path(), DIFFERENT_POD),
}
ROWS = (GET_POD, GET_MAP, LIST, *_CREATES)


class Seeds:
    """What is there before the load. The floor stores what Haven answered, so that it has as much to send."""

    def __init__(self) -> None:
        self.map: dict[str, Any] | None = None
        self.pods: list[dict[str, Any]] = []


def prepare(target: Target, seeds: Seeds, *, pods: int) -> None:
    """Store what is read later: a ConfigMap and some pods."""
    target.request("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})
    if target.name == "floor" and seeds.map is not None:
        target.request("POST", _MAPS, seeds.map)
        for pod in seeds.pods:
            target.request("POST", pods_path(), pod)
        return
    target.request("POST", _MAPS, named(CONFIG_MAP, "bench"))
    for number in range(pods):
        status, answer = target.request("POST", pods_path(), named(POD, f"p{number}"))
        assert status in (201, 409), answer
    seeds.map = json.loads(target.request("GET", f"{_MAPS}/bench")[1])
    seeds.pods = json.loads(target.request("GET", pods_path())[1])["items"]


def measure(target: Target, row: str, seconds: float) -> Figure:
    """Return a row's figure for one server."""
    if row == GET_POD:
        figure = wrk(target, pods_path("p0"), seconds, CONNECTIONS)
    elif row == GET_MAP:
        figure = wrk(target, f"{_MAPS}/bench", seconds, CONNECTIONS)
    elif row == LIST:
        figure = wrk(target, pods_path(), seconds, LIST_CONNECTIONS)
    else:
        path, body = _CREATES[row]
        figure = wrk(target, "", seconds, CONNECTIONS, creating(path, body, target.token))
    if figure.refused:
        raise RuntimeError(f"{target.name} refused {figure.refused} requests of {row}")
    return figure
