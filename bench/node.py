"""How long a pod takes from its creation to Running on the real node of this machine's cluster (`haven up`)."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

__all__ = ["complaint", "measure"]

PODS = 12
SECONDS_MAX = 30.0
IMAGE = "example.invalid/hello:latest"


def complaint() -> str:
    """Return why it cannot be measured here, "" if it can."""
    if os.geteuid() != 0:
        return "not measured: containers need root"
    from haven.cli.api import Api
    from haven.cli.failure import Failure
    from haven.cli.settings import ClusterSettings

    try:
        settings = ClusterSettings.load()
        status, node = Api(settings).get_json(f"/api/v1/nodes/{settings.node_name}")
    except Failure:
        status = 0
    if status != 200:
        return "not measured: no cluster runs on this machine; haven up --example, then again"
    if _image(node) is None:
        return "not measured: the node has no image to run; haven up --example makes one"
    return ""


def _image(node: dict[str, Any]) -> str | None:
    """Return the smallest image that the node has, the pause image aside."""
    found = [
        (image.get("sizeBytes", 0), name)
        for image in node["status"].get("images", [])
        for name in image.get("names", [])
        if "pause" not in name and "@" not in name
    ]
    return min(found)[1] if found else None


def measure() -> tuple[float, float]:
    """Return (median, greatest) seconds, one pod after the other."""
    from haven.cli.api import Api
    from haven.cli.settings import ClusterSettings

    settings = ClusterSettings.load()
    api = Api(settings)
    image = _image(api.get_json(f"/api/v1/nodes/{settings.node_name}")[1])
    seconds = []
    path = "/api/v1/namespaces/default/pods"
    for number in range(PODS):
        name = f"bench-{os.getpid()}-{number}"
        container = {
            "name": "c",
            "image": image,
            "imagePullPolicy": "Never",
            "command": ["/bin/busybox", "sleep", "60"],
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
        began = time.monotonic()
        status, answer = api.request("POST", path, {"metadata": {"name": name}, "spec": spec})
        if status != 201:
            raise RuntimeError(answer.decode(errors="replace")[:300])
        try:
            while api.get_json(f"{path}/{name}")[1]["status"].get("phase") != "Running":
                if time.monotonic() - began > SECONDS_MAX:
                    raise RuntimeError(f"{name} does not run after {SECONDS_MAX:.0f} s: haven kubectl describe pod")
                time.sleep(0.005)
            seconds.append(time.monotonic() - began)
        finally:
            api.request("DELETE", f"{path}/{name}")
    return statistics.median(seconds), max(seconds)
