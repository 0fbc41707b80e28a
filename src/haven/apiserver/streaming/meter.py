"""How often what goes on to nodes was asked for, and how that went, under upstream's metric names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from haven.apimachinery import apierrors
from haven.metrics.families import Registry

__all__ = ["StreamMeter"]

_LOGS = "kube_apiserver_pod_logs_"


class StreamMeter:
    """Counts; not at all without a registry."""

    def __init__(self, registry: Registry | None) -> None:
        self._registry = registry

    def _add(self, name: str, *labels: str) -> None:
        if self._registry is not None:
            self._registry[name].child(*labels).value += 1

    def websocket(self, subresource: str) -> None:
        """Count a client that streams over a WebSocket; it is always translated here, never by the node."""
        self._add("apiserver_websocket_streaming_requests_total", "translated_at_apiserver", subresource)

    def translated(self, code: int) -> None:
        """Count a command that was carried between a WebSocket and a node."""
        self._add("apiserver_stream_translator_requests_total", str(code))

    @contextmanager
    def tunnelling(self) -> Iterator[None]:
        """Count forwarded ports by whether the node, who is asked inside, agrees."""
        try:
            yield
        except apierrors.ApiError as error:
            self._add("apiserver_stream_tunnel_requests_total", str(error.code))
            raise
        self._add("apiserver_stream_tunnel_requests_total", "101")

    def log(self, *, insecure: bool) -> None:
        """Count a log that is asked for."""
        if self._registry is None:
            return
        self._registry[_LOGS + "backend_tls_failure_total"].child()
        self._add(_LOGS + "insecure_backend_total", "skip_tls_allowed" if insecure else "enforce_tls")

    def log_not_trusted(self) -> None:
        """Count a log that was not read, as the node's certificate is not trusted."""
        self._add(_LOGS + "backend_tls_failure_total")
