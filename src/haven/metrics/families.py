"""Metrics by name: what they are is read from a table, what they count is plain numbers of the event loop.

A child (one combination of label values) is looked up once and kept by whoever counts: adding to it costs no more than
adding to an attribute. What is known without counting is filled in by collectors when somebody asks.

The table has one line for each metric: name, type, stability, version since which it is deprecated, labels, bounds of
its buckets, and what it is. Stability decides how long a deprecated metric is still shown.
Source: https://kubernetes.io/docs/concepts/cluster-administration/system-metrics/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

__all__ = ["Family", "Histogram", "Labels", "MetricsError", "Registry", "Value", "read_table"]

Labels = tuple[str, ...]
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
_PERIODS = {"ALPHA": 0, "BETA": 1, "STABLE": 3}
"""For how many minor versions a deprecated metric is still shown."""
UNEXPECTED = "unexpected"
_UNEXPECTED_COUNT = "cardinality_enforcement_unexpected_categorizations_total"


class MetricsError(ValueError):
    """A setting names a metric or a value that there cannot be."""


class Value:
    """A number that goes up, or up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """How values are spread over buckets."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_some(self, value: float, number: int) -> None:
        """Count a value that occurred so many times."""
        self.counts[bisect_left(self.bounds, value)] += number
        self.total += value * number

    def coarser(self, bounds: Sequence[float]) -> Histogram:
        """Return the same values over fewer buckets; each bound must be one of these."""
        result = Histogram(bounds)
        for bound, number in zip((*self.bounds, float("inf")), self.counts, strict=True):
            result.counts[bisect_left(bounds, bound)] += number
        result.total = self.total
        return result

    def merged(self, other: Histogram) -> Histogram:
        """Return the values of both, which have the same buckets."""
        result = Histogram(self.bounds)
        result.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        result.total = self.total + other.total
        return result


@dataclass(slots=True, eq=False)
class Family:
    """One metric with all its children, by the values of their labels in the order of `labels`."""

    name: str
    kind: str
    help: str
    stability: str
    deprecated: str = ""
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    values: dict[Labels, Value] = field(default_factory=dict)
    histograms: dict[Labels, Histogram] = field(default_factory=dict)

    def child(self, *labels: str) -> Value:
        """Return what counts for these labels."""
        found = self.values.get(labels)
        if found is None:
            assert len(labels) == len(self.labels), (self.name, labels)
            found = self.values[labels] = Value()
        return found

    def set(self, labels: Labels, value: float) -> None:
        """Write down a number that is known."""
        self.child(*labels).value = value

    def histogram(self, *labels: str) -> Histogram:
        """Return the histogram of these labels."""
        found = self.histograms.get(labels)
        if found is None:
            assert len(labels) == len(self.labels), (self.name, labels)
            found = self.histograms[labels] = Histogram(self.bounds)
        return found

    def show(self, labels: Labels, buckets: Histogram) -> None:
        """Have buckets that are kept elsewhere shown as the histogram of these labels."""
        assert len(buckets.counts) == len(self.bounds) + 1, self.name
        self.histograms[labels] = buckets

    def clear(self) -> None:
        """Forget all children, as nobody holds any: a collector writes them anew."""
        self.values.clear()
        self.histograms.clear()

    @property
    def is_empty(self) -> bool:
        return not self.values and not self.histograms


def read_table(text: str) -> Iterator[Family]:
    """Yield the metrics of a table."""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, kind, stability, deprecated, labels, bounds, what = line.split("\t")
        shown = f"[{stability}] " if stability else ""
        if deprecated:
            shown += f"(Deprecated since {deprecated}) "
        yield Family(
            name,
            kind,
            shown + what,
            stability,
            deprecated,
            tuple(labels.split(",")) if labels else (),
            tuple(map(float, bounds.split(","))) if bounds else (),
        )


class Registry:
    """All metrics of a process.

    `version` is the minor version that is run, `show_hidden` (1.35) also shows what that version still showed;
    `disabled` are never shown; what begins with `dormant` is shown only once somebody
    counts it; `allowed` has the values of labels that are shown, by "metric,label".
    """

    def __init__(
        self,
        families: Iterable[Family],
        *,
        version: str = "1.36",
        show_hidden: str = "",
        disabled: Iterable[str] = (),
        allowed: Mapping[str, frozenset[str]] | None = None,
        dormant: tuple[str, ...] = (),
    ) -> None:
        self._dormant = dormant
        minor = int(version.partition(".")[2])
        if show_hidden and show_hidden != f"1.{minor - 1}":
            raise MetricsError(
                f"--show-hidden-metrics-for-version must be omitted or have the value '1.{minor - 1}'. "
                "Only the previous minor version is allowed"
            )
        if show_hidden:
            minor -= 1
        self._families: dict[str, Family] = {}
        self._hidden: set[str] = set()
        for family in families:
            assert family.name not in self._families, family.name
            self._families[family.name] = family
            if family.deprecated:
                since = int(family.deprecated.split(".")[1])
                if since + _PERIODS[family.stability] <= minor:
                    self._hidden.add(family.name)
        self._disabled = frozenset(disabled)
        self._allowed = _by_metric(allowed or {})
        self._collectors: list[Callable[[], None]] = []

    def extend(self, families: Iterable[Family]) -> None:
        """Add metrics of what runs in the same process; what is there already stays."""
        for family in families:
            if family.name not in self._families:
                self._families[family.name] = replace(family, values={}, histograms={})

    def __getitem__(self, name: str) -> Family:
        return self._families[name]

    def __contains__(self, name: str) -> bool:
        return name in self._families

    def add_collector(self, collect: Callable[[], None]) -> None:
        """Have something called that fills in what is known, whenever somebody asks."""
        self._collectors.append(collect)

    def all(self) -> list[Family]:
        """Return every metric of the table, shown or not."""
        return list(self._families.values())

    @property
    def hidden(self) -> frozenset[str]:
        """The names of those that are deprecated for too long."""
        return frozenset(self._hidden)

    @property
    def disabled(self) -> frozenset[str]:
        """The names of those that an operator turned off."""
        return self._disabled & self._families.keys()

    def reset(self) -> None:
        """Begin to count anew. Whoever holds a child counts on in it."""
        for family in self._families.values():
            for value in family.values.values():
                value.value = 0
            for found in family.histograms.values():
                found.counts = [0] * len(found.counts)
                found.total = 0.0

    def families(self) -> list[Family]:
        """Return what is to be shown, by name."""
        for collect in self._collectors:
            collect()
        shown = []
        for name in sorted(self._families):
            family = self._families[name]
            if family.is_empty and not family.labels and not name.startswith(self._dormant):
                if family.kind == HISTOGRAM:
                    family.histogram()
                else:
                    family.child()
            if not family.is_empty and name not in self._hidden and name not in self._disabled:
                shown.append(self._expected(family))
        return shown

    def _expected(self, family: Family) -> Family:
        """Return a metric in which values of labels that are not allowed are one."""
        rules = self._allowed.get(family.name)
        if not rules or (family.kind == HISTOGRAM and not family.histograms):
            return family
        result = Family(family.name, family.kind, family.help, family.stability, "", family.labels, family.bounds)

        def expected(labels: Labels) -> Labels:
            return tuple(
                value if name not in rules or value in rules[name] else UNEXPECTED
                for name, value in zip(family.labels, labels, strict=True)
            )

        for labels, value in family.values.items():
            kept = expected(labels)
            result.child(*kept).value += value.value
            if kept != labels and _UNEXPECTED_COUNT in self._families:
                self._families[_UNEXPECTED_COUNT].child().value += 1
        for labels, buckets in family.histograms.items():
            merged = result.histogram(*expected(labels))
            merged.counts = [one + two for one, two in zip(merged.counts, buckets.counts, strict=True)]
            merged.total += buckets.total
        return result


def _by_metric(allowed: Mapping[str, frozenset[str]]) -> dict[str, dict[str, frozenset[str]]]:
    result: dict[str, dict[str, frozenset[str]]] = {}
    for name, values in allowed.items():
        metric, comma, label = name.partition(",")
        if not comma:
            raise MetricsError(f"--allow-metric-labels: {name}: want metric,label=value,…")
        result.setdefault(metric, {})[label] = values
    return result
