"""What the API server counts, under upstream's metric names."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from haven.apiserver.discovery import version_info
from haven.apiserver.featuregates import gates
from haven.apiserver.registry.storage import Storages
from haven.apiserver.request import Request, Response

__all__ = ["Metrics", "ServerFacts"]

_LONG_VERBS = frozenset({"watch", "proxy", "connect"})
_LONG = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
_SECONDS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)


class _Counts(NamedTuple):
    """What one kind of request counts in."""

    requests: Counter
    durations: Histogram
    sizes: Histogram | None
    long: Gauge | None


class Metrics:
    """Counters of one server. Labels of a request are looked up once and kept."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        names = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code")
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
        self._sizes = Histogram(
            "apiserver_response_sizes",
            "Bytes of answers to reads.",
            ("verb", "group", "version", "resource", "subresource", "scope", "component"),
            buckets=_BYTES,
            registry=self.registry,
        )
        self._long = Gauge(
            "apiserver_longrunning_requests",
            "Watches and other long requests under way.",
            ("verb", "group", "version", "resource", "subresource", "scope", "component"),
            registry=self.registry,
        )
        self._known: dict[tuple[str, ...], _Counts] = {}

    def observe(self, request: Request, response: Response, seconds: float) -> None:
        """Count an answer."""
        info = request.info
        key: tuple[str, ...] = (
            info.verb,
            info.group,
            info.version,
            info.resource,
            info.subresource,
            str(response.status),
        )
        dry_run = request.query.get("dryRun")
        if dry_run:
            key = (*key, *dry_run)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._labelled(request, response)
        found.requests.inc()
        if found.long is not None:
            if response.stream is not None:
                found.long.inc()
                response.when_over.append(found.long.dec)
            return
        found.durations.observe(seconds)
        if found.sizes is not None and response.body:
            found.sizes.observe(len(response.body))

    def _labelled(self, request: Request, response: Response) -> _Counts:
        info = request.info
        verb = {"create": "POST", "update": "PUT"}.get(info.verb, info.verb.upper())
        scope = (
            "" if not info.is_resource else "resource" if info.name else "namespace" if info.namespace else "cluster"
        )
        component = "apiserver" if info.is_resource else ""
        place = (info.group, info.version, info.resource, info.subresource, scope, component)
        dry_run = ",".join(sorted(set(request.query.get("dryRun", ()))))
        return _Counts(
            self._requests.labels(verb, dry_run, *place, str(response.status)),
            self._durations.labels(verb, dry_run, *place),
            self._sizes.labels(verb, *place) if info.is_resource and info.verb in ("get", "list") else None,
            self._long.labels(verb, *place) if info.verb in _LONG_VERBS or info.subresource in _LONG else None,
        )

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class ServerFacts(Collector):
    """What is known of a server without counting: its build, its feature gates, how many objects it keeps."""

    def __init__(self, states: Mapping[str, bool], storages: Storages) -> None:
        self._states = states
        self._storages = storages

    def collect(self) -> Iterator[GaugeMetricFamily]:
        info = version_info()
        build = GaugeMetricFamily(
            "kubernetes_build_info",
            "Always 1, with the version in its labels.",
            labels=("major", "minor", "git_version", "git_commit", "platform", "python_version"),
        )
        version = platform.python_version()
        build.add_metric((info.major, info.minor, info.git_version, info.git_commit, info.platform, version), 1)
        yield build
        features = GaugeMetricFamily(
            "kubernetes_feature_enabled", "Whether a feature gate is on.", labels=("name", "stage")
        )
        for name, state in self._states.items():
            stage = gates()[name].stage.upper()
            features.add_metric((name, "" if stage == "GA" else stage), int(state))
        yield features
        objects = GaugeMetricFamily("apiserver_storage_objects", "Objects by resource.", labels=("resource",))
        own = GaugeMetricFamily("apiserver_resource_objects", "Objects by resource.", labels=("group", "resource"))
        for storage in self._storages.all():
            objects.add_metric((str(storage.resource.group_resource),), len(storage.cache))
            own.add_metric((storage.resource.group, storage.resource.plural), len(storage.cache))
        yield objects
        yield own
