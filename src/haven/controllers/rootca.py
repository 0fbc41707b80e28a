"""Publish the authority that API servers' certificates are checked against to every namespace.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ and KEP-1205
"""

from __future__ import annotations

from time import perf_counter

from haven.api.core import v1 as core
from haven.apimachinery import apierrors, meta, serialization
from haven.controllers.actions import Create, Steps, Update, Wiring
from haven.controllers.counts import Counts
from haven.controllers.replicaset import namespace_is_terminating

__all__ = ["NAME", "RootCAPublisher"]

NAME = "kube-root-ca.crt"
_METRIC = "root_ca_cert_publisher_"
DESCRIPTION = "kubernetes.io/description"
# Clients see this annotation; the text is upstream's.
DESCRIPTION_TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class RootCAPublisher:
    """Keys are names of namespaces."""

    workers = 1

    def __init__(self, wiring: Wiring, *, root_ca_pem: str) -> None:
        self._wiring = wiring
        self.counts = Counts()
        self._data = {"ca.crt": root_ca_pem}
        self._namespaces = wiring.reader(core.Namespace)
        self._maps = wiring.reader(core.ConfigMap, field_selector=f"metadata.name={NAME}")
        self._namespaces.add_handler(self._namespace_changed)
        self._maps.add_handler(self._map_changed)

    def _namespace_changed(self, old: core.Namespace | None, new: core.Namespace | None) -> None:
        if new is not None and (old is None or new.status.phase == "Active"):
            self._wiring.enqueue(new.metadata.name)

    def _map_changed(self, old: core.ConfigMap | None, new: core.ConfigMap | None) -> None:
        # A map of our own making comes back as new: nothing to do then.
        if old is not None and old.metadata.name == NAME:
            self._wiring.enqueue(old.metadata.namespace)

    def sync(self, key: str) -> Steps[None]:
        began = perf_counter()
        try:
            yield from self._publish(key)
        except apierrors.ApiError as error:
            self._count(error.code, perf_counter() - began)
            raise
        self._count(200, perf_counter() - began)

    def _count(self, code: int, seconds: float) -> None:
        self.counts.add(_METRIC + "sync_total", str(code))
        self.counts.observe(_METRIC + "sync_duration_seconds", str(code), value=seconds)

    def _publish(self, key: str) -> Steps[None]:
        current = self._maps.get(key, NAME)
        if current is None:
            namespace = self._namespaces.get("", key)
            if namespace is None or namespace.metadata.deletion_timestamp is not None:
                return
            metadata = meta.ObjectMeta(name=NAME, namespace=key, annotations={DESCRIPTION: DESCRIPTION_TEXT})
            try:
                yield Create(core.ConfigMap(metadata=metadata, data=dict(self._data)))
            except apierrors.NotFound:
                return
            except apierrors.Forbidden as error:
                if not namespace_is_terminating(error):
                    raise
            return
        if current.data == self._data and current.metadata.annotations.get(DESCRIPTION):
            return
        changed = serialization.copy(current)
        changed.data = dict(self._data)
        changed.metadata.annotations[DESCRIPTION] = DESCRIPTION_TEXT
        yield Update(changed)
