"""See that every namespace has the service account that Pods get by default.

Source: https://kubernetes.io/docs/concepts/security/service-accounts/#default-service-accounts
"""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta
from haven.controllers.actions import Create, Steps, Wiring
from haven.controllers.replicaset import namespace_is_terminating

__all__ = ["ServiceAccountController"]

NAME = "default"


class ServiceAccountController:
    """Keys are names of namespaces."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._namespaces = wiring.reader(core.Namespace)
        self._accounts = wiring.reader(core.ServiceAccount)
        self._namespaces.add_handler(self._namespace_changed)
        self._accounts.add_handler(self._account_changed)

    def _namespace_changed(self, old: core.Namespace | None, new: core.Namespace | None) -> None:
        if new is not None:
            self._wiring.enqueue(new.metadata.name)

    def _account_changed(self, old: core.ServiceAccount | None, new: core.ServiceAccount | None) -> None:
        if new is None and old is not None:
            self._wiring.enqueue(old.metadata.namespace)

    def sync(self, key: str) -> Steps[None]:
        namespace = self._namespaces.get("", key)
        if namespace is None or namespace.status.phase != "Active":
            return
        if self._accounts.get(key, NAME) is not None:
            return
        try:
            yield Create(core.ServiceAccount(metadata=meta.ObjectMeta(name=NAME, namespace=key)))
        except (apierrors.AlreadyExists, apierrors.NotFound):
            return
        except apierrors.Forbidden as error:
            if not namespace_is_terminating(error):
                raise
