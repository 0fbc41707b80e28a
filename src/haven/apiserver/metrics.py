"""What the API server counts, under upstream's metric names."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from haven.apiserver.discovery import version_info
from haven.apiserver.featuregates import gates
from haven.apiserver.registry.storage import Storages
from haven.apiserver.request import Request, Response

__all__ = ["Metrics", "ServerFacts"]

Labels = tuple[str, ...]
_LONG_VERBS = frozenset({"watch", "proxy", "connect"})
_LONG = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
_SECONDS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)


class _Spread:
    """How values are spread over buckets: `counts` has one number per bound and one for what is above them all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many values are at most each bound, as Prometheus writes it."""
        names = [floatToGoString(bound) for bound in (*self.bounds, float("inf"))]  # type: ignore[no-untyped-call]
        return list(zip(names, accumulate(self.counts), strict=True))


class _Counts:
    """What one kind of request counts in."""

    __slots__ = ("durations", "labels", "long", "requests", "sizes")

    def __init__(self, labels: Labels, durations: _Spread, sizes: _Spread | None, long: Gauge | None) -> None:
        self.labels = labels
        self.requests = 0
        self.durations = durations
        self.sizes = sizes
        self.long = long


class Metrics(Collector):
    """Counters of one server. Labels of a request are looked up once and kept.

    The event loop alone counts, so plain numbers will do: the client library's would cost a tenth of a GET.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._long = Gauge(
            "apiserver_longrunning_requests",
            "Watches and other long requests under way.",
            ("verb", "group", "version", "resource", "subresource", "scope", "component"),
            registry=self.registry,
        )
        self._known: dict[tuple[str | int, ...], _Counts] = {}
        self._durations: dict[Labels, _Spread] = {}
        self._sizes: dict[Labels, _Spread] = {}
        self.registry.register(self)

    def observe(self, request: Request, response: Response, seconds: float) -> None:
        """Count an answer."""
        info = request.info
        key: tuple[str | int, ...] = (
            info.verb,
            info.group,
            info.version,
            info.resource,
            info.subresource,
            response.status,
        )
        dry_run = request.query.get("dryRun")
        if dry_run:
            key = (*key, *dry_run)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._labelled(request, response)
        found.requests += 1
        if found.long is not None:
            if response.stream is not None:
                found.long.inc()
                response.when_over.append(found.long.dec)
            return
        found.durations.add(seconds)
        if found.sizes is not None and response.body:
            found.sizes.add(len(response.body))

    def _labelled(self, request: Request, response: Response) -> _Counts:
        info = request.info
        verb = {"create": "POST", "update": "PUT"}.get(info.verb, info.verb.upper())
        scope = (
            "" if not info.is_resource else "resource" if info.name else "namespace" if info.namespace else "cluster"
        )
        component = "apiserver" if info.is_resource else ""
        place = (info.group, info.version, info.resource, info.subresource, scope, component)
        dry_run = ",".join(sorted(set(request.query.get("dryRun", ()))))
        sizes = None
        if info.is_resource and info.verb in ("get", "list"):
            sizes = self._sizes.setdefault((verb, *place), _Spread(_BYTES))
        long = info.verb in _LONG_VERBS or info.subresource in _LONG
        return _Counts(
            (verb, dry_run, *place, str(response.status)),
            self._durations.setdefault((verb, dry_run, *place), _Spread(_SECONDS)),
            sizes,
            self._long.labels(verb, *place) if long else None,
        )

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted."""
        names = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code")
        requests = CounterMetricFamily("apiserver_request", "Requests by verb, resource and code.", labels=names)
        totals: Counter[Labels] = Counter()
        for counts in self._known.values():
            totals[counts.labels] += counts.requests
        for labels, total in totals.items():
            requests.add_metric(labels, total)
        yield requests
        durations = HistogramMetricFamily(
            "apiserver_request_duration_seconds",
            "Time to the answer's beginning, watches excepted.",
            labels=names[:-1],
        )
        for labels, spread in self._durations.items():
            durations.add_metric(labels, spread.buckets(), spread.total)
        yield durations
        sizes = HistogramMetricFamily(
            "apiserver_response_sizes",
            "Bytes of answers to reads.",
            labels=("verb", "group", "version", "resource", "subresource", "scope", "component"),
        )
        for labels, spread in self._sizes.items():
            sizes.add_metric(labels, spread.buckets(), spread.total)
        yield sizes

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
