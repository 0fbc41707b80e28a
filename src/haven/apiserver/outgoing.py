"""What this server sends: to webhooks, to extension servers, and to itself, under the names of upstream's REST client.

Requests to itself do not leave the process: they have a code and a duration, but no size in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from urllib.parse import urlsplit

from haven.metrics.families import Histogram, Registry, Value

__all__ = ["LEGACY_NAME", "OutgoingMeter"]

NO_ANSWER = "<error>"
LEGACY_NAME = "x509: certificate relies on legacy Common Name field, use SANs instead"
_WEAK_DIGEST = 68
"""OpenSSL's X509_V_ERR_CA_MD_TOO_WEAK."""
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class OutgoingMeter:
    """Counts requests of this server's own clients. `own_host` is under what authority it would ask itself."""

    def __init__(self, registry: Registry, own_host: Callable[[], str]) -> None:
        self._registry = registry
        self._own_host = own_host
        self._own: dict[tuple[str, int], Value] = {}
        self._own_seconds: dict[str, Histogram] = {}
        self._kept: dict[str, int] = {}
        registry.add_collector(self._collect)

    def to_self(self, method: str, status: int, seconds: float) -> None:
        """Count a request that this server answered itself."""
        key = (method, status)
        found = self._own.get(key)
        if found is None:
            found = self._own[key] = Value()
            self._own_seconds.setdefault(method, Histogram(_SECONDS))
        found.value += 1
        self._own_seconds[method].add(seconds)

    def answered(
        self, url: str, method: str, code: int | None, *, sent: int, received: int | None, again: bool
    ) -> None:
        """Count one try: None for a code is no answer; what was received is not known of a failed one."""
        host, shown = urlsplit(url).netloc, NO_ANSWER if code is None else str(code)
        registry = self._registry
        registry["rest_client_requests_total"].child(shown, host, method).value += 1
        if again:
            registry["rest_client_request_retries_total"].child(shown, host, method).value += 1
        registry["rest_client_request_size_bytes"].histogram(host, method).add(sent)
        if received is not None:
            registry["rest_client_response_size_bytes"].histogram(host, method).add(received)

    def took(self, url: str, method: str, seconds: float) -> None:
        """Count how long a request took with all its tries."""
        host = urlsplit(url).netloc
        self._registry["rest_client_request_duration_seconds"].histogram(host, method).add(seconds)

    def connecting(self, result: str, who: str, kept: int) -> None:
        """Count that somebody wanted a way of connecting: it was there (hit) or not (miss), `kept` are there now."""
        self._registry["rest_client_transport_create_calls_total"].child(result).value += 1
        self._kept[who] = kept

    def refused_certificate(self, prefix: str, error: BaseException | None, names: str | None) -> None:
        """Count a server's certificate that is refused for its old form: only a common name, SHA-1."""
        if names == LEGACY_NAME:
            self._registry[f"{prefix}_x509_missing_san_total"].child().value += 1
        elif getattr(error, "verify_code", 0) == _WEAK_DIGEST:
            self._registry[f"{prefix}_x509_insecure_sha1_total"].child().value += 1

    def _collect(self) -> None:
        registry, host = self._registry, self._own_host()
        for (method, status), number in self._own.items():
            registry["rest_client_requests_total"].set((str(status), host, method), number.value)
        for method, spread in self._own_seconds.items():
            registry["rest_client_request_duration_seconds"].show((host, method), spread)
        registry["rest_client_transport_cache_entries"].set((), sum(self._kept.values()))
        registry["rest_client_exec_plugin_ttl_seconds"].set((), math.inf)  # No credentials come from plugins.
