"""Feature gates of v1.36: their stages and defaults, and what an operator set.

A gate that Haven has no switch for cannot be moved from its default: that is refused, not accepted and forgotten.
Source: https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["Gate", "GateError", "gates", "set_gates"]

SWITCHES = frozenset({"ComponentFlagz", "ComponentStatusz"})
"""The gates that change something in Haven's API server."""
_ALL = {"AllAlpha": "Alpha", "AllBeta": "Beta"}


class GateError(ValueError):
    """A gate is unknown or cannot be set so."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: Alpha, Beta, GA or Deprecated, and whether it is on unless set otherwise."""

    name: str
    stage: str
    default: bool


@cache
def gates() -> Mapping[str, Gate]:
    """Return every gate by name."""
    text = resources.files(__package__).joinpath("featuregates.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line)
    return {name: Gate(name, stage, default == "true") for name, stage, default, _ in rows}


def set_gates(values: Iterable[str]) -> dict[str, bool]:
    """Return the state of every gate, given settings such as ComponentFlagz=false; raise GateError."""
    known = gates()
    states = {gate.name: gate.default for gate in known.values()}
    for text in values:
        name, _, value = text.partition("=")
        if value.lower() not in ("true", "false"):
            raise GateError(f"invalid value of {name}={value}, err: want true or false")
        wanted = value.lower() == "true"
        if name in _ALL:
            chosen = [gate.name for gate in known.values() if gate.stage == _ALL[name]]
        elif name in known:
            chosen = [name]
        else:
            raise GateError(f"unrecognized feature gate: {name}")
        for one in chosen:
            if one in SWITCHES:
                states[one] = wanted
            elif one == name and wanted != known[one].default:
                raise GateError(f"cannot set feature gate {name} to {value.lower()}: Haven has no switch for it")
    return states
