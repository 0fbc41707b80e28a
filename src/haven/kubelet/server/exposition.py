"""Metrics as text, as Prometheus reads them.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["CONTENT_TYPE", "Family", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Family:
    """A metric with its samples. `kind` is counter, gauge or histogram; a sample may add a suffix to the name."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Mapping[str, str], float, int | None]] = field(default_factory=list)

    def add(self, value: float, labels: Mapping[str, str] | None = None, *, suffix: str = "", at: float = 0.0) -> None:
        """Add a sample; `at` is when it was taken, in seconds, 0 for now."""
        self.samples.append((suffix, labels or {}, value, int(at * 1000) if at else None))

    def add_histogram(
        self, bounds: Iterable[float], counts: Iterable[int], total: float, labels: Mapping[str, str]
    ) -> None:
        """Add a histogram; `counts` has one more than `bounds`, none of them cumulative."""
        below = 0
        for bound, count in zip([*bounds, float("inf")], counts, strict=True):
            below += count
            self.add(below, {**labels, "le": _number(bound)}, suffix="_bucket")
        self.add(total, labels, suffix="_sum")
        self.add(below, labels, suffix="_count")


def render(families: Iterable[Family]) -> str:
    """Write families that have samples, by name."""
    lines: list[str] = []
    for family in sorted(families, key=lambda each: each.name):
        if not family.samples:
            continue
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for suffix, labels, value, at in family.samples:
            inner = ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items())
            place = f"{family.name}{suffix}" + (f"{{{inner}}}" if inner else "")
            lines.append(f"{place} {_number(value)}" + (f" {at}" if at is not None else ""))
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
