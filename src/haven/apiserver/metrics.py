"""What the API server counts of requests, under upstream's metric names.

The event loop alone counts, so plain numbers will do. What a kind of request counts in is looked up once and kept;
durations are counted once, in buckets fine enough for every metric that shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources as files
from typing import NamedTuple

from haven.apiserver.request import Request, RequestInfo, Response
from haven.metrics.exposition import expose
from haven.metrics.families import Family, Histogram, Labels, Registry, Value, read_table

__all__ = ["Metrics", "MetricsSwitches", "make_registry"]

_LONG_VERBS = frozenset({"watch", "proxy", "connect"})
_LONG = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_SECONDS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
_HTTP = {"create": "POST", "update": "PUT", "deletecollection": "DELETE"}
_KNOWN_MAX = 20_000
"""Kinds of requests; who asks for yet another subresource that there is not must not fill the memory."""
_APPLY = "application/apply-patch+yaml"
_HEALTH = ("/healthz", "/livez", "/readyz")
_COUNTED_PATHS = ("/api", "/apis", "/version", "/openapi/v2", "/openapi/v3")
_FIELD_VALIDATIONS = {"ignore": "Ignore", "warn": "Warn", "strict": "Strict"}
_DORMANT = ("scheduler_", "kube_apiserver_pod_logs_", "apiserver_clusterip_repair_")
"""They are shown once counted: a scheduler's if one runs in this process, the others as upstream has it."""
_PROCESS = """\
process_cpu_seconds_total\tcounter\t\t\t\t\tProcessor time that the process has used.
process_max_fds\tgauge\t\t\t\t\tHow many file descriptors may be open.
process_network_receive_bytes_total\tcounter\t\t\t\t\tBytes that came over the network.
process_network_transmit_bytes_total\tcounter\t\t\t\t\tBytes that went over the network.
process_open_fds\tgauge\t\t\t\t\tHow many file descriptors are open.
process_resident_memory_bytes\tgauge\t\t\t\t\tMemory in use.
process_start_time_seconds\tgauge\t\t\t\t\tWhen the process started.
process_virtual_memory_bytes\tgauge\t\t\t\t\tAddresses in use.
process_virtual_memory_max_bytes\tgauge\t\t\t\t\tAddresses that may be used; -1 for any number.
"""


class MetricsSwitches(NamedTuple):
    """What an operator wants shown: --show-hidden-metrics-for-version, --disabled-metrics, --allow-metric-labels."""

    show_hidden: str = ""
    disabled: tuple[str, ...] = ()
    allowed: Mapping[str, frozenset[str]] = {}


def make_registry(switches: MetricsSwitches | None = None) -> Registry:
    """Return all metrics of an API server and what runs in its process; raise MetricsError."""
    switches = switches or MetricsSwitches()
    table = files.files("haven.apiserver").joinpath("metrics.tsv").read_text(encoding="utf-8")
    return Registry(
        read_table(table + _PROCESS),
        show_hidden=switches.show_hidden,
        disabled=switches.disabled,
        allowed=switches.allowed,
        dormant=_DORMANT,
    )


class _Durations:
    """Times of one kind of request: most count alike for both metrics, some waited for others in between."""

    __slots__ = ("delayed", "delayed_sli", "plain")

    def __init__(self) -> None:
        self.plain = Histogram(_SECONDS)
        self.delayed = Histogram(_SECONDS)
        self.delayed_sli = Histogram(_SECONDS)


class _Counts:
    """What one kind of request counts in."""

    __slots__ = ("bodies", "durations", "long", "own", "requests", "sizes")

    def __init__(
        self,
        requests: Value,
        durations: Histogram,
        sizes: Histogram | None,
        bodies: Histogram | None,
        long: Value | None,
        own: Labels,
    ) -> None:
        self.requests = requests
        self.durations = durations
        self.sizes = sizes
        self.bodies = bodies
        self.long = long
        self.own = own


class Metrics:
    """Counters of the requests of one server."""

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = registry or make_registry()
        self._known: dict[tuple[object, ...], _Counts] = {}
        self._durations: dict[Labels, _Durations] = {}
        self.registry.add_collector(self._collect)

    def observe(self, request: Request, response: Response, seconds: float) -> None:
        """Count an answer."""
        info = request.info
        verb = info.verb
        key: tuple[object, ...]
        if info.is_resource:
            place = info.name != "", info.namespace != ""
            key = (verb, info.resource, info.group, info.version, info.subresource, response.status, place)
        elif _is_counted(info.path):
            key = (info.path, response.status)
        else:
            return
        if verb == "patch" and request.headers.get("content-type", "").startswith(_APPLY):
            key = (*key, "apply")
        if request.query:
            dry_run = request.query.get("dryRun")
            if dry_run:
                key = (*key, *dry_run)
            validation = request.query.get("fieldValidation")
            if validation:
                key = (*key, validation[0])
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KNOWN_MAX:
                return
            found = self._known[key] = self._labelled(request, response)
        found.requests.value += 1
        if request.local and request.headers.get("user-agent", "").startswith("kube-apiserver"):
            self.registry["apiserver_selfrequest_total"].child(*found.own).value += 1
        if found.long is not None:
            if response.stream is not None:
                found.long.value += 1
                response.when_over.append(_Less(found.long))
            return
        if request.delays:
            self._add_delayed(request, response, seconds)
        else:
            found.durations.add(seconds)
        if found.sizes is not None:
            if response.body:
                found.sizes.add(len(response.body))
        elif found.bodies is not None and request.body:
            found.bodies.add(len(request.body))

    def _add_delayed(self, request: Request, response: Response, seconds: float) -> None:
        verb, dry_run, place = _labels(request)
        durations = self._durations[_ordered(verb, place, dry_run)]
        durations.delayed.add(seconds)
        durations.delayed_sli.add(max(0.0, seconds - sum(request.waits().values())))

    def _labelled(self, request: Request, response: Response) -> _Counts:
        info = request.info
        verb, dry_run, place = _labels(request)
        group, resource, scope, subresource, version, component = place
        registry = self.registry
        code = str(response.status)
        requests = registry["apiserver_request_total"].child(
            code, component, dry_run, group, resource, scope, subresource, verb, version
        )
        durations = self._durations.setdefault(_ordered(verb, place, dry_run), _Durations())
        sizes = bodies = long = None
        if info.verb in ("get", "list"):
            sizes = registry["apiserver_response_sizes"].histogram(
                component, group, resource, scope, subresource, verb, version
            )
        elif info.verb in _WRITES:
            bodies = registry["apiserver_request_body_size_bytes"].histogram(group, resource, info.verb)
        if info.verb in _LONG_VERBS or info.subresource in _LONG:
            long = registry["apiserver_longrunning_requests"].child(
                component, group, resource, scope, subresource, verb, version
            )
        if info.is_resource:
            validation = request.get("fieldValidation")
            shown = _FIELD_VALIDATIONS.get(validation.lower(), "invalid") if validation else ""
            registry["field_validation_request_duration_seconds"].histogram(shown)
        return _Counts(requests, durations.plain, sizes, bodies, long, (group, resource, subresource, verb))

    def terminated(self, request: Request, code: int, component: str = "apiserver") -> None:
        """Count a request that was ended to protect the server."""
        verb, _, (group, resource, scope, subresource, version, _) = _labels(request)
        self.registry["apiserver_request_terminations_total"].child(
            str(code), component, group, resource, scope, subresource, verb, version
        ).value += 1

    def aborted(self, request: Request) -> None:
        """Count a request whose client did not wait for the answer."""
        verb, _, (group, resource, scope, subresource, version, _) = _labels(request)
        self.registry["apiserver_request_aborts_total"].child(
            group, resource, scope, subresource, verb, version
        ).value += 1

    def _collect(self) -> None:
        registry = self.registry
        durations = registry["apiserver_request_duration_seconds"]
        both: tuple[Family, ...] = tuple(
            registry[f"apiserver_request_{name}_duration_seconds"] for name in ("sli", "slo")
        )
        for family in (durations, *both):
            family.clear()
        sli: dict[Labels, Histogram] = {}
        for labels, found in self._durations.items():
            durations.show(labels, found.plain.merged(found.delayed))
            if labels[1]:
                continue  # Requests that only try are no part of a service level.
            short = (labels[0], *labels[2:])
            total = found.plain.merged(found.delayed_sli).coarser(both[0].bounds)
            sli[short] = sli[short].merged(total) if short in sli else total
        for short, total in sli.items():
            for family in both:
                family.show(short, total)

    def answer(self, accept: str) -> tuple[str, bytes]:
        """Return (content type, everything) as a client that accepts this wants it."""
        return expose(self.registry.families(), accept)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return self.answer("")[1]


class _Less:
    """What a long request's end counts."""

    __slots__ = ("_value",)

    def __init__(self, value: Value) -> None:
        self._value = value

    def __call__(self) -> None:
        self._value.value -= 1


def _is_counted(path: str) -> bool:
    return path.startswith(_HEALTH) or path.startswith(_COUNTED_PATHS)


def _labels(request: Request) -> tuple[str, str, tuple[str, str, str, str, str, str]]:
    """Return verb, dry run, and (group, resource, scope, subresource, version, component)."""
    info = request.info
    wanted = set(request.query.get("dryRun", ()))
    dry_run = ("All" if wanted == {"All"} else "invalid") if wanted else ""
    if not info.is_resource:
        return info.verb.upper(), dry_run, _of_path(info)
    verb = _HTTP.get(info.verb, info.verb.upper())
    if info.verb == "patch" and request.headers.get("content-type", "").startswith(_APPLY):
        verb = "APPLY"
    elif info.subresource in ("attach", "exec", "portforward", "proxy"):
        verb = "CONNECT"
    scope = "cluster"
    if info.name or info.verb == "create":
        scope = "resource"
    elif info.namespace:
        scope = "namespace"
    return verb, dry_run, (info.group, info.resource, scope, info.subresource, info.version, "apiserver")


def _of_path(info: RequestInfo) -> tuple[str, str, str, str, str, str]:
    parts = info.path.strip("/").split("/")
    if parts[0] == "apis" and len(parts) in (2, 3):
        return parts[1], "", "", "", parts[2] if len(parts) == 3 else "", "apiserver"
    if parts[0] == "api" and len(parts) == 2:
        return "", "", "", "", parts[1], "apiserver"
    if info.path.startswith(_HEALTH):
        return "", "", "", "/" + parts[0], "", ""
    if parts[0] == "openapi":
        below = "/".join(parts[:2])
        return "", "", "", below + "/" if len(parts) > 2 else below, "", ""
    return "", "", "", parts[0], "", "apiserver"


def _ordered(verb: str, place: tuple[str, str, str, str, str, str], dry_run: str) -> Labels:
    """Return the labels of durations in the order of the table."""
    group, resource, scope, subresource, version, component = place
    return (component, dry_run, group, resource, scope, subresource, verb, version)
