"""What a controller counts of its own work, under upstream's metric names; shown when somebody asks.

Which metrics there are stands in metrics.tsv; values of labels come in the order in which it lists them.
Source: https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources as files
from time import perf_counter

from haven.metrics.families import Family, Histogram, Labels, Registry, read_table

__all__ = ["Counts", "counted_metrics"]


@cache
def counted_metrics() -> dict[str, Family]:
    """Return every metric of the controllers, without values."""
    table = files.files("haven.controllers").joinpath("metrics.tsv").read_text(encoding="utf-8")
    return {family.name: family for family in read_table(table)}


class Counts:
    """Numbers of one controller. `gauges` are worked out when somebody asks."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, Labels], float] = {}
        self.spreads: dict[tuple[str, Labels], Histogram] = {}
        self.gauges: dict[str, Callable[[], dict[Labels, float]]] = {}

    def add(self, name: str, *labels: str, number: float = 1) -> None:
        """Count something."""
        key = (name, labels)
        self.totals[key] = self.totals.get(key, 0) + number

    def observe(self, name: str, *labels: str, value: float) -> None:
        """Count a value among its like."""
        key = (name, labels)
        found = self.spreads.get(key)
        if found is None:
            found = self.spreads[key] = Histogram(counted_metrics()[name].bounds)
        found.add(value)

    @contextmanager
    def timing(self, name: str, *labels: str) -> Iterator[None]:
        """Count how long what is done inside takes."""
        began = perf_counter()
        try:
            yield
        finally:
            self.observe(name, *labels, value=perf_counter() - began)

    def show(self, registry: Registry) -> None:
        """Fill everything in."""
        for (name, labels), number in self.totals.items():
            registry[name].set(labels, number)
        for (name, labels), spread in self.spreads.items():
            registry[name].show(labels, spread)
        for name, work_out in self.gauges.items():
            registry[name].clear()
            for labels, number in work_out().items():
                registry[name].set(labels, number)
