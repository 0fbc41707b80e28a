"""What the API server counts, under upstream's metric names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from haven.apiserver.request import Request, Response

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)


class Metrics:
    """Counters of one server. Labels of a request are looked up once and kept."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ("verb", "group", "version", "resource", "subresource", "scope", "code")
        self._requests = Counter(
            "apiserver_request", "Requests by verb, resource and code.", names, registry=self.registry
        )
        self._durations = Histogram(
            "apiserver_request_duration_seconds",
            "Time to the answer's beginning, watches excepted.",
            names[:-1],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.watchers = Gauge(
            "apiserver_longrunning_requests", "Watches and other long requests under way.", registry=self.registry
        )
        self.objects = Gauge("apiserver_storage_objects", "Objects by resource.", ("resource",), registry=self.registry)
        self._known: dict[tuple[str, ...], tuple[Counter, Histogram | None]] = {}

    def observe(self, request: Request, response: Response, seconds: float) -> None:
        """Count an answer."""
        info = request.info
        key = (info.verb, info.group, info.version, info.resource, info.subresource, str(response.status))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._labelled(request, response)
        found[0].inc()
        if found[1] is not None:
            found[1].observe(seconds)

    def _labelled(self, request: Request, response: Response) -> tuple[Counter, Histogram | None]:
        info = request.info
        verb = {"create": "POST", "update": "PUT"}.get(info.verb, info.verb.upper())
        scope = (
            "" if not info.is_resource else "resource" if info.name else "namespace" if info.namespace else "cluster"
        )
        labels = (verb, info.group, info.version, info.resource, info.subresource, scope)
        histogram = None if info.verb in ("watch", "proxy") else self._durations.labels(*labels)
        return self._requests.labels(*labels, str(response.status)), histogram

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
