"""Which served kinds are on their way out: since when, until when, and what takes their place.

An alpha or beta kind without dates of its own is deprecated three releases after it came and goes three later.
Source: https://kubernetes.io/docs/reference/using-api/deprecation-policy/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["DEPRECATED", "Deprecation"]


@dataclass(frozen=True, slots=True)
class Deprecation:
    """Releases are written as 1.33; `removed` and `replacement` (API version and kind) are empty where none is set."""

    since: str
    removed: str = ""
    replacement: str = ""

    def warning(self, api_version: str, kind: str) -> str:
        """Return what clients of the kind are told."""
        text = f"{api_version} {kind} is deprecated in v{self.since}+"
        if self.removed:
            text += f", unavailable in v{self.removed}+"
        if self.replacement:
            text += f"; use {self.replacement}"
        return text


def _all(kinds: Iterable[str], deprecation: Deprecation) -> dict[str, Deprecation]:
    return dict.fromkeys(kinds, deprecation)


_DEVICES = ("DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice")

DEPRECATED: Mapping[str, Mapping[str, Deprecation]] = {
    "v1": {
        "ComponentStatus": Deprecation("1.19"),
        "Endpoints": Deprecation("1.33", replacement="discovery.k8s.io/v1 EndpointSlice"),
    },
    "admissionregistration.k8s.io/v1alpha1": _all(
        ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"), Deprecation("1.35", "1.38")
    ),
    "certificates.k8s.io/v1alpha1": {"ClusterTrustBundle": Deprecation("1.34", "1.37")},
    "coordination.k8s.io/v1alpha2": {"LeaseCandidate": Deprecation("1.35", "1.38")},
    "coordination.k8s.io/v1beta1": {"LeaseCandidate": Deprecation("1.36", "1.39")},
    "networking.k8s.io/v1beta1": _all(("IPAddress", "ServiceCIDR"), Deprecation("1.34", "1.37")),
    "resource.k8s.io/v1alpha3": {"DeviceTaintRule": Deprecation("1.36", "1.39")},
    "resource.k8s.io/v1beta1": _all(_DEVICES, Deprecation("1.35", "1.38")),
    "resource.k8s.io/v1beta2": _all(_DEVICES, Deprecation("1.36", "1.39")),
    "storage.k8s.io/v1beta1": {
        "VolumeAttributesClass": Deprecation("1.34", "1.37", "storage.k8s.io/v1 VolumeAttributesClass")
    },
}
"""By API version and kind, those that v1.36 serves, some only where they are switched on."""
