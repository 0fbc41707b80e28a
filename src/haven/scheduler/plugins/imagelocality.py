"""ImageLocality: nodes that already hold the Pod's images are liked better, large images more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from haven.scheduler.plugins.interface import Floats
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Snapshot

__all__ = ["ImageLocality"]

_MEBIBYTE = 2**20
SUM_MIN_BYTES = 23 * _MEBIBYTE  # Smaller images pull faster than they matter.
SUM_MAX_BYTES_PER_CONTAINER = 1000 * _MEBIBYTE


class ImageLocality:
    name = "ImageLocality"
    weight = 1

    def scores(self, info: PodInfo, snapshot: Snapshot, feasible: NDArray[np.intp]) -> Floats | None:
        containers = [*info.pod.spec.init_containers, *info.pod.spec.containers]
        if all(not snapshot.images.get(_normalized(container.image)) for container in containers):
            return None
        held = np.zeros(snapshot.width, np.float64)
        nodes = max(snapshot.node_count, 1)
        for container in containers:
            rows = snapshot.images.get(_normalized(container.image), set())
            for index in rows:
                row = snapshot.rows[index]
                if row is not None:
                    # Scaled by how many nodes hold it, lest one node with a popular image gets every Pod.
                    held[index] += row.images[_normalized(container.image)] * len(rows) // nodes
        if not held.any():
            return None
        most = SUM_MAX_BYTES_PER_CONTAINER * len(containers)
        sums = np.clip(held[feasible], SUM_MIN_BYTES, most)
        return np.floor(100 * (sums - SUM_MIN_BYTES) / (most - SUM_MIN_BYTES))


def _normalized(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
