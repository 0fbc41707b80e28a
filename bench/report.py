"""The table: medians of the rounds, ratios of what was measured in the same run, and the budget beside them."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Report", "Row"]

_GREEN, _RED, _BOLD, _DIM, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class Row:
    """One line: what is measured, in which unit, and what is wanted.

    `at_most` and `at_least` are wanted of Haven's own figure; `of_floor` and `of_other` of its ratio to the others.
    """

    name: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    of_floor: float | None = None
    of_other: float | None = None
    other_at_most: float | None = None

    @property
    def wanted(self) -> str:
        """The budget in words."""
        words = [
            f"≤ {self.at_most:g}" if self.at_most is not None else "",
            f"≥ {self.at_least:g}" if self.at_least is not None else "",
            f"≥ {self.of_floor:g} of floor" if self.of_floor is not None else "",
            f"≥ {self.of_other:g} × other" if self.of_other is not None else "",
            f"≤ {self.other_at_most:g} × other" if self.other_at_most is not None else "",
        ]
        return ", ".join(word for word in words if word)


@dataclass
class Report:
    """Figures by row and server, one for each round. The first server is the one that the budgets are for."""

    servers: Sequence[str]
    rows: Sequence[Row]
    notes: dict[str, str] = field(default_factory=dict)
    _figures: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _p99: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _cpu: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(
        self, row: str, server: str, value: float, *, p99_ms: float | None = None, cpu_us: float | None = None
    ) -> None:
        """Note a figure, the time of the slowest hundredth, and the processor time of each."""
        self._figures.setdefault((row, server), []).append(value)
        if p99_ms is not None:
            self._p99.setdefault((row, server), []).append(p99_ms)
        if cpu_us:
            self._cpu.setdefault((row, server), []).append(cpu_us)

    def value(self, row: str, server: str) -> float | None:
        """Return the median of a row for a server."""
        found = self._figures.get((row, server))
        return statistics.median(found) if found else None

    def p99_ms(self, row: str, server: str) -> float | None:
        """Return the median of the slowest hundredth's time."""
        found = self._p99.get((row, server))
        return statistics.median(found) if found else None

    def cpu_us(self, row: str, server: str) -> float | None:
        """Return the median of the processor time of each."""
        found = self._cpu.get((row, server))
        return statistics.median(found) if found else None

    def ratio(self, row: str, server: str) -> float | None:
        """Return Haven's figure over another server's: the median over rounds, each of which is a fair comparison."""
        own, others = self._figures.get((row, self.servers[0])), self._figures.get((row, server))
        if not own or not others or server == self.servers[0]:
            return None
        pairs = [one / other for one, other in zip(own, others, strict=False) if other]
        return statistics.median(pairs) if pairs else None

    def met(self, row: Row) -> bool | None:
        """Tell whether the budget of a row is met; None if it has none, or was not measured."""
        own = self.value(row.name, self.servers[0])
        if own is None:
            return None
        other = next((name for name in self.servers[1:] if name != "floor"), "")
        to_floor, to_other = self.ratio(row.name, "floor"), self.ratio(row.name, other)
        checks = [
            own <= row.at_most if row.at_most is not None else None,
            own >= row.at_least if row.at_least is not None else None,
            to_floor >= row.of_floor if row.of_floor is not None and to_floor is not None else None,
            to_other >= row.of_other if row.of_other is not None and to_other is not None else None,
            to_other <= row.other_at_most if row.other_at_most is not None and to_other is not None else None,
        ]
        known = [check for check in checks if check is not None]
        return all(known) if known else None

    def write_json(self) -> None:
        """Print everything, the single figures included."""
        rows = []
        for row in self.rows:
            figures: dict[str, Any] = {}
            for server in self.servers:
                found = self._figures.get((row.name, server))
                if found:
                    figures[server] = {
                        "median": self.value(row.name, server),
                        "rounds": found,
                        "p99_ms": self.p99_ms(row.name, server),
                        "cpu_us": self.cpu_us(row.name, server),
                        "ratio": self.ratio(row.name, server),
                    }
            if figures:
                rows.append(
                    {"name": row.name, "unit": row.unit, "wanted": row.wanted, "met": self.met(row), "figures": figures}
                )
        print(json.dumps({"rows": rows, "notes": self.notes}, indent=1))

    def write_markdown(self) -> None:
        """Print a table for documents."""
        lines = self._lines()
        print("| " + " | ".join(lines[0][:-1]) + " |")
        print("|---" * (len(lines[0]) - 1) + "|")
        for line in lines[1:]:
            print("| " + " | ".join(line[:-1]) + " |")
        for name, note in self.notes.items():
            print(f"\n{name}: {note}")

    def _lines(self) -> list[list[str]]:
        """Return the table's cells; the last of each line tells whether the budget is met."""
        first, others = self.servers[0], self.servers[1:]
        head = ["", "unit", first]
        for server in others:
            head += [server, f"{first}/{server}"]
        lines = [[*head, "wanted", ""]]
        for row in self.rows:
            if all(self.value(row.name, server) is None for server in self.servers):
                continue
            cells = [row.name, row.unit, self._cell(row, first)]
            for server in others:
                cells += [self._cell(row, server), _number(self.ratio(row.name, server))]
            met = self.met(row)
            lines.append([*cells, row.wanted, "" if met is None else "yes" if met else "no"])
        return lines

    def write_table(self) -> None:
        """Print a table; coloured on a terminal."""
        lines = self._lines()
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        colour = sys.stdout.isatty()
        for number, line in enumerate(lines):
            text = "  ".join(
                cell.ljust(width) if column in (0, 1, len(line) - 2) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            if colour:
                paint = _BOLD if not number else _GREEN if line[-1] == "yes" else _RED if line[-1] == "no" else ""
                text = f"{paint}{text}{_PLAIN}"
            print(text)
        for name, note in self.notes.items():
            print(f"{_DIM if colour else ''}{name}: {note}{_PLAIN if colour else ''}")

    def _cell(self, row: Row, server: str) -> str:
        text = _number(self.value(row.name, server))
        p99, cpu = self.p99_ms(row.name, server), self.cpu_us(row.name, server)
        more = [f"p99 {_number(p99)} ms"] if p99 is not None else []
        more += [f"{_number(cpu)} µs CPU"] if cpu is not None else []
        return f"{text} ({', '.join(more)})" if more else text


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
