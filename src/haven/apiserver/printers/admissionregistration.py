"""Rows of the group admissionregistration.k8s.io."""

from __future__ import annotations

from typing import Any, Protocol

from haven.api.admissionregistration import v1 as admissionregistration_v1
from haven.apimachinery import meta
from haven.apiserver.printers.format import UNSET, age

__all__ = ["ROWS"]


class _WebhookConfiguration(Protocol):
    @property
    def metadata(self) -> meta.ObjectMeta: ...
    @property
    def webhooks(self) -> list[Any]: ...


class _BindingSpec(Protocol):
    @property
    def policy_name(self) -> str: ...
    @property
    def param_ref(self) -> admissionregistration_v1.ParamRef | None: ...


class _Binding(Protocol):
    @property
    def metadata(self) -> meta.ObjectMeta: ...
    @property
    def spec(self) -> _BindingSpec: ...


def _webhook_configuration(item: _WebhookConfiguration, now: float) -> list[Any]:
    return [item.metadata.name, len(item.webhooks), age(item.metadata.creation_timestamp, now)]


def _validating_policy(item: admissionregistration_v1.ValidatingAdmissionPolicy, now: float) -> list[Any]:
    return [
        item.metadata.name,
        len(item.spec.validations),
        _param_kind(item.spec.param_kind),
        age(item.metadata.creation_timestamp, now),
    ]


def _mutating_policy(item: admissionregistration_v1.MutatingAdmissionPolicy, now: float) -> list[Any]:
    return [
        item.metadata.name,
        len(item.spec.mutations),
        _param_kind(item.spec.param_kind),
        age(item.metadata.creation_timestamp, now),
    ]


def _param_kind(kind: admissionregistration_v1.ParamKind | None) -> str:
    return UNSET if kind is None else f"{kind.api_version}/{kind.kind}"


def _binding(item: _Binding, now: float) -> list[Any]:
    param, text = item.spec.param_ref, UNSET
    if param is not None:
        if param.name:
            text = f"{param.namespace or '*'}/{param.name}"
        elif param.selector is not None:
            text = _go_selector(param.selector)
    return [item.metadata.name, item.spec.policy_name, text, age(item.metadata.creation_timestamp, now)]


def _go_selector(selector: meta.LabelSelector) -> str:
    """Return a selector as Go prints the struct."""
    wanted = "".join(f"{key}: {selector.match_labels[key]}," for key in sorted(selector.match_labels))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{item.key},Operator:{item.operator},Values:[{' '.join(item.values)}],}},"
        for item in selector.match_expressions
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{wanted}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


ROWS = {
    "MutatingAdmissionPolicy": _mutating_policy,
    "MutatingAdmissionPolicyBinding": _binding,
    "MutatingWebhookConfiguration": _webhook_configuration,
    "ValidatingAdmissionPolicy": _validating_policy,
    "ValidatingAdmissionPolicyBinding": _binding,
    "ValidatingWebhookConfiguration": _webhook_configuration,
}
