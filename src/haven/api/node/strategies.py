"""RuntimeClasses: what is wrong with them, how they are written.

Source: https://kubernetes.io/docs/concepts/containers/runtime-class/ and the behaviour of pkg/apis/node.
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core_v1
from haven.api.core.podwarnings import deprecated_node_label
from haven.api.core.validation.affinity import validate_tolerations
from haven.api.core.validation.quantities import validate_resource_requirements
from haven.api.internalform import internal_form
from haven.api.kinds import UpdateOrder, kind_strategy
from haven.api.node import v1
from haven.api.strategy import Strategy
from haven.apimachinery.fielderrors import ErrorList, Path, duplicate, invalid, required
from haven.apimachinery.validation.labels import validate_labels
from haven.apimachinery.validation.names import dns1123_label_errors
from haven.apimachinery.validation.objectmeta import validate_immutable

__all__ = ["STRATEGIES"]

_SCHEDULING = Path("scheduling")


def _check(new: v1.RuntimeClass) -> ErrorList:
    if new.handler:
        errors = [invalid(Path("handler"), new.handler, text) for text in dns1123_label_errors(new.handler)]
    else:
        errors = [required(Path("handler"), "")]
    if new.overhead is not None:
        overhead = core_v1.ResourceRequirements(limits=new.overhead.pod_fixed)
        errors += validate_resource_requirements(overhead, (), Path("overhead"))
    if new.scheduling is None:
        return errors
    errors += validate_labels(new.scheduling.node_selector, _SCHEDULING.child("nodeSelector"))
    path = _SCHEDULING.child("tolerations")
    tolerations = new.scheduling.tolerations
    errors += validate_tolerations(tolerations, path)
    for index, item in enumerate(tolerations):
        if any(_same(item, other) for other in tolerations[:index]):
            errors.append(duplicate(path.index(index), internal_form(item)))
    return errors


def _same(one: core_v1.Toleration, other: core_v1.Toleration) -> bool:
    return (one.key, one.operator, one.value, one.effect) == (other.key, other.operator, other.value, other.effect)


def _check_update(new: v1.RuntimeClass, old: v1.RuntimeClass) -> ErrorList:
    return validate_immutable(new.handler, old.handler, Path("handler"))


def _warnings(new: v1.RuntimeClass, _old: v1.RuntimeClass | None) -> list[str]:
    if new.scheduling is None:
        return []
    path = _SCHEDULING.child("nodeSelector")
    return [f"{path}: {said}" for key in sorted(new.scheduling.node_selector) if (said := deprecated_node_label(key))]


STRATEGIES: dict[str, Strategy[Any]] = {
    "runtimeclasses": kind_strategy(
        namespaced=False,
        check=_check,
        check_update=_check_update,
        order=UpdateOrder.WHOLE_THEN_META,
        warnings=_warnings,
        allow_create_on_update=True,
        allow_unconditional_update=False,
    )
}
