"""How often the admission plugins' files were read again, and what is in force, under upstream's metric names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from haven.metrics.families import Registry

if TYPE_CHECKING:
    from haven.apiserver.admission.manifests import Manifests

__all__ = ["ManifestMetrics"]

_PREFIX = "apiserver_manifest_admission_config_controller"


class ManifestMetrics:
    """Shows the state of all folders when metrics are asked for. `identity` is the server's; its hash is shown."""

    def __init__(self, registry: Registry, manifests: Sequence[Manifests], identity: str) -> None:
        self._registry = registry
        self._manifests = manifests
        self._identity_hash = f"sha256:{hashlib.sha256(identity.encode()).hexdigest()}"
        registry.add_collector(self._collect)

    def _collect(self) -> None:
        own = self._identity_hash
        info = self._registry[f"{_PREFIX}_last_config_info"]
        info.clear()
        for one in self._manifests:
            info.set((own, one.digest, one.plugin), 1)
            for status, number, moment in (
                ("success", one.reloads, one.reloaded_at),
                ("failure", one.failures, one.failed_at),
            ):
                if number:
                    self._registry[f"{_PREFIX}_automatic_reloads_total"].set((own, one.plugin, status), number)
                    last = self._registry[f"{_PREFIX}_automatic_reload_last_timestamp_seconds"]
                    last.set((own, one.plugin, status), moment)
