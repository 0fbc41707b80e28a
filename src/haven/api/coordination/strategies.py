"""Leases and candidates for them: what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/architecture/leases/ and the behaviour of pkg/apis/coordination.
"""

from __future__ import annotations

import re
from typing import Any

from haven.api.coordination import v1
from haven.api.kinds import kind_strategy
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, forbidden, invalid, not_supported, required
from haven.apimachinery.validation.names import config_map_key_errors, qualified_name_errors
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["STRATEGIES"]

_SPEC = Path("spec")
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)


def _strategy(strategy: str, path: Path) -> ErrorList:
    place = path.child("strategy")
    if "/" not in strategy:
        known = ("OldestEmulationVersion",)
        return [] if strategy in known else [not_supported(place, strategy, known)]
    return [invalid(place, strategy, text) for text in qualified_name_errors(strategy)]


def _check_lease(lease: v1.Lease) -> ErrorList:
    spec = lease.spec
    errors: ErrorList = []
    if spec.lease_duration_seconds is not None and spec.lease_duration_seconds <= 0:
        place = _SPEC.child("leaseDurationSeconds")
        errors.append(invalid(place, spec.lease_duration_seconds, "must be greater than 0"))
    if spec.lease_transitions is not None and spec.lease_transitions < 0:
        words = "must be greater than or equal to 0"
        errors.append(invalid(_SPEC.child("leaseTransitions"), spec.lease_transitions, words))
    if spec.strategy is not None:
        errors += _strategy(spec.strategy, _SPEC.child("strategy"))
    if spec.preferred_holder and not spec.strategy:
        words = "may only be specified if `strategy` is defined"
        errors.append(forbidden(_SPEC.child("preferredHolder"), words))
    return errors


def _version(text: str) -> tuple[int, int, int] | None:
    match = _SEMVER.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _check_candidate(candidate: Any) -> ErrorList:
    spec = candidate.spec
    errors: ErrorList = []
    if not spec.lease_name:
        errors.append(required(_SPEC.child("leaseName"), ""))
    emulated = _version(spec.emulation_version) if spec.emulation_version else (0, 0, 0)
    if emulated is None:
        words = "must be a valid semantic version"
        errors.append(invalid(_SPEC.child("emulationVersion"), spec.emulation_version, words))
    binary = _version(spec.binary_version)
    place = _SPEC.child("binaryVersion")
    if not spec.binary_version:
        errors.append(required(place, ""))
    elif binary is None:
        errors.append(invalid(place, spec.binary_version, "must be a valid semantic version"))
    if spec.binary_version and spec.emulation_version and (binary or (0, 0, 0)) < (emulated or (0, 0, 0)):
        words = "must be greater than or equal to `emulationVersion`"
        errors.append(invalid(place, spec.binary_version, words))
    if not spec.strategy:
        errors.append(required(_SPEC.child("strategy"), ""))
        return errors
    if spec.strategy == "OldestEmulationVersion" and emulated in (None, (0, 0, 0)):
        words = "must be specified when `strategy` is 'OldestEmulationVersion'"
        errors.append(required(_SPEC.child("emulationVersion"), words))
    return errors + _strategy(spec.strategy, _SPEC.child("strategy"))


def _same_lease(new: Any, old: Any) -> ErrorList:
    return validate_immutable(new.spec.lease_name, old.spec.lease_name, _SPEC.child("leaseName"))


STRATEGIES: dict[str, Strategy[Any]] = {
    "leases": kind_strategy(
        namespaced=True,
        check=_check_lease,
        allow_create_on_update=True,
        allow_unconditional_update=False,
    ),
    "leasecandidates": kind_strategy(
        namespaced=True,
        name_rule=lambda name, prefix: config_map_key_errors(name),
        check=_check_candidate,
        check_update=_same_lease,
        allow_create_on_update=True,
        allow_unconditional_update=False,
    ),
}
