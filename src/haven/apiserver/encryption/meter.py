"""How often values are encrypted and decrypted, with which keys, and what KMS plugins are asked, counted.

Names of keys and of the server are shown by their hashes.
Source: https://kubernetes.io/docs/reference/instrumentation/metrics/ (apiserver_envelope_encryption_…)
"""

from __future__ import annotations

import hashlib
import time

from haven.metrics.families import Registry

__all__ = ["FROM_STORAGE", "TO_STORAGE", "EncryptionMeter"]

FROM_STORAGE, TO_STORAGE = "from_storage", "to_storage"
_STORAGE, _ENVELOPE = "apiserver_storage_", "apiserver_envelope_encryption_"


class EncryptionMeter:
    """Counts under upstream's metric names."""

    def __init__(self, registry: Registry, identity: str) -> None:
        self._registry = registry
        self._own = _hash(identity)

    def transformed(self, resource: str, kind: str, prefix: str, seconds: float, status: str) -> None:
        """Count a value that was encrypted or decrypted; a status other than OK is a failure."""
        self._registry[_STORAGE + "transformation_operations_total"].child(resource, status, kind, prefix).value += 1
        if status == "OK":
            self._registry[_STORAGE + "transformation_duration_seconds"].histogram(kind, prefix).add(seconds)

    def generated(self, seconds: float) -> None:
        """Count a new seed."""
        self._registry[_STORAGE + "data_key_generation_duration_seconds"].histogram().add(seconds)

    def missed(self) -> None:
        """Count a value whose seed a plugin has to be asked about."""
        self._registry[_STORAGE + "envelope_transformation_cache_misses_total"].child().value += 1

    def remembered(self, provider: str, number: int) -> None:
        """Say how many seeds of a plugin are remembered."""
        self._registry[_ENVELOPE + "dek_source_cache_size"].set((provider,), number)

    def key_used(self, provider: str, kind: str, key_id: str) -> None:
        """Count the use of a plugin's key."""
        labels = (self._own, _hash(key_id), provider, kind)
        self._registry[_ENVELOPE + "key_id_hash_total"].child(*labels).value += 1
        self._registry[_ENVELOPE + "key_id_hash_last_timestamp_seconds"].set(labels, time.time())

    def key_told(self, provider: str, key_id: str) -> None:
        """Note that a plugin said which key is its own."""
        labels = (self._own, _hash(key_id), provider)
        self._registry[_ENVELOPE + "key_id_hash_status_last_timestamp_seconds"].set(labels, time.time())

    def key_invalid(self, provider: str, error: str) -> None:
        """Count a key's name that makes no sense: it is "empty" or "too_long"."""
        self._registry[_ENVELOPE + "invalid_key_id_from_status_total"].child(error, provider).value += 1

    def called(self, provider: str, method: str, seconds: float, status: str) -> None:
        """Count a call of a plugin."""
        found = self._registry[_ENVELOPE + "kms_operations_latency_seconds"]
        found.histogram(status, method, provider).add(seconds)


def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else ""
