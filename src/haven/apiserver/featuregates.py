"""Feature gates of v1.36: their stages and defaults, and what an operator set.

A gate that Haven has no switch for cannot be moved from its default: that is refused, not accepted and forgotten.
Source: https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from haven.api.gatedfields import FIELD_GATES
from haven.apimachinery.goformat import aggregate

__all__ = ["RESOURCE_GATES", "TRUTHS", "Gate", "GateError", "gates", "set_gates"]

RESOURCE_GATES = {
    ("certificates.k8s.io", "clustertrustbundles"): "ClusterTrustBundle",
    ("certificates.k8s.io", "podcertificaterequests"): "PodCertificateRequest",
    ("scheduling.k8s.io", "podgroups"): "GenericWorkload",
    ("scheduling.k8s.io", "workloads"): "GenericWorkload",
    ("storagemigration.k8s.io", "storageversionmigrations"): "StorageVersionMigrator",
}
"""The resources that are not served, whatever --runtime-config says, without a gate."""
SWITCHES = frozenset(
    {
        "AllowUnsafeMalformedObjectDeletion",
        "CBORServingAndStorage",
        "ComponentFlagz",
        "ComponentStatusz",
        "NodeDeclaredFeatures",
        "DRADeviceTaintRules",
        "DRAResourcePoolStatus",
        "ManifestBasedAdmissionControlConfig",
        "PodTopologyLabelsAdmission",
        "StorageVersionAPI",
        "WorkloadWithJob",
    }
    | set(RESOURCE_GATES.values())
    | FIELD_GATES
)
"""The gates that change something in Haven's API server."""
_ALL = {"AllAlpha": "Alpha", "AllBeta": "Beta"}
TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
"""What Go's ParseBool takes for true and false."""


class GateError(ValueError):
    """A gate is unknown or cannot be set so."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate: Alpha, Beta, GA or Deprecated, whether it is on unless set otherwise, and which others it needs."""

    name: str
    stage: str
    default: bool
    is_locked: bool
    needs: tuple[str, ...]


@cache
def gates() -> Mapping[str, Gate]:
    """Return every gate by name."""
    text = resources.files(__package__).joinpath("featuregates.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line)
    return {
        name: Gate(name, stage, default == "true", locked == "locked", tuple(needs.split(",")) if needs else ())
        for name, stage, default, _, locked, needs in rows
    }


def set_gates(values: Iterable[str]) -> dict[str, bool]:
    """Return the state of every gate, given settings such as ComponentFlagz=false; raise GateError.

    What is said of one gate wins over what is said of all gates of a stage, as upstream has it.
    """
    known = gates()
    states = {gate.name: gate.default for gate in known.values()}
    wanted = dict(map(_setting, values))
    errors: list[str] = []
    for name in (*(one for one in wanted if one in _ALL), *(one for one in wanted if one not in _ALL)):
        value = wanted[name]
        if name in _ALL:
            for gate in known.values():
                if gate.stage == _ALL[name] and gate.name not in wanted and gate.name in SWITCHES:
                    states[gate.name] = value
        elif name not in known:
            errors.append(f"unrecognized feature gate: {name}")
        elif known[name].is_locked and value != known[name].default:
            locked = str(known[name].default).lower()
            errors.append(f"cannot set feature gate {name} to {str(value).lower()}, feature is locked to {locked}")
        elif name in SWITCHES:
            states[name] = value
        elif value != known[name].default:
            errors.append(f"cannot set feature gate {name} to {str(value).lower()}: Haven has no switch for it")
    if not errors:
        errors = _missing(known, states, wanted)
    if errors:
        raise GateError(aggregate(errors))
    return states


def _setting(text: str) -> tuple[str, bool]:
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals:
        raise GateError(f"missing bool value for {name}")
    if value not in TRUTHS:
        raise GateError(f'invalid value of {name}={value}, err: strconv.ParseBool: parsing "{value}": invalid syntax')
    return name, TRUTHS[value]


def _missing(known: Mapping[str, Gate], states: Mapping[str, bool], wanted: Mapping[str, bool]) -> list[str]:
    """Complain about gates that are on although others that they need are off."""
    errors = []
    for gate in known.values():
        off = [
            other
            for other in gate.needs
            if not states[other]
            # What Haven has no switch for is not held against gates that were moved with all of their stage.
            and (gate.name in wanted or other in wanted or SWITCHES.issuperset({gate.name, other}))
        ]
        if states[gate.name] and off:
            errors.append(f"{gate.name} is enabled, but depends on features that are disabled: [{' '.join(off)}]")
    return errors
