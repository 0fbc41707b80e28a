"""Keep as many active Pods as a ReplicationController asks for; the deciding is ReplicaSet's.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/
"""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery import selectors
from haven.controllers.actions import Wiring
from haven.controllers.replicaset import ReplicasController

__all__ = ["ReplicationControllerController"]


class ReplicationControllerController(ReplicasController):
    """The controller of v1 ReplicationControllers."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__(
            wiring,
            resource_of(core.ReplicationController),
            lambda owner: selectors.from_labels(owner.spec.selector) if owner.spec.selector else selectors.NOTHING,
            counts_terminating=False,
        )
