"""What clients of deprecated built-in APIs are told with every answer.

Source: https://kubernetes.io/docs/reference/using-api/deprecation-guide/ ; upstream's prerelease-lifecycle tags
(introduced +3 minors deprecated, +6 removed, unless a type says otherwise).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["deprecation_warning"]


class _Lifecycle(NamedTuple):
    deprecated: str
    removed: str = ""
    replacement: str = ""


_LIFECYCLES: dict[tuple[str, str], _Lifecycle] = {
    ("v1", "ComponentStatus"): _Lifecycle("v1.19"),
    ("v1", "Endpoints"): _Lifecycle("v1.33", replacement="discovery.k8s.io/v1 EndpointSlice"),
    **{
        ("admissionregistration.k8s.io/v1alpha1", kind): _Lifecycle("v1.35", "v1.38")
        for kind in ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
    },
    ("certificates.k8s.io/v1alpha1", "ClusterTrustBundle"): _Lifecycle("v1.34", "v1.37"),
    ("coordination.k8s.io/v1alpha2", "LeaseCandidate"): _Lifecycle("v1.35", "v1.38"),
    ("coordination.k8s.io/v1beta1", "LeaseCandidate"): _Lifecycle("v1.36", "v1.39"),
    **{("networking.k8s.io/v1beta1", kind): _Lifecycle("v1.34", "v1.37") for kind in ("IPAddress", "ServiceCIDR")},
    ("resource.k8s.io/v1alpha3", "DeviceTaintRule"): _Lifecycle("v1.36", "v1.39"),
    **{
        (f"resource.k8s.io/{version}", kind): lifecycle
        for version, lifecycle in (("v1beta1", _Lifecycle("v1.35", "v1.38")), ("v1beta2", _Lifecycle("v1.36", "v1.39")))
        for kind in ("DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice")
    },
    ("storage.k8s.io/v1beta1", "VolumeAttributesClass"): _Lifecycle(
        "v1.34", "v1.37", "storage.k8s.io/v1 VolumeAttributesClass"
    ),
}


def _text(api_version: str, kind: str, lifecycle: _Lifecycle) -> str:
    text = f"{api_version} {kind} is deprecated in {lifecycle.deprecated}+"
    if lifecycle.removed:
        text += f", unavailable in {lifecycle.removed}+"
    return f"{text}; use {lifecycle.replacement}" if lifecycle.replacement else text


_WARNINGS = {key: _text(*key, lifecycle) for key, lifecycle in _LIFECYCLES.items()}


def deprecation_warning(api_version: str, kind: str) -> str | None:
    """Return the warning that every answer of a kind carries; None if the kind is here to stay."""
    return _WARNINGS.get((api_version, kind))
