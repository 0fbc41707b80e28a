"""What the API server warns of in PersistentVolumes and PersistentVolumeClaims that it accepts.

Source: the behaviour of pkg/api/persistentvolume and pkg/api/persistentvolumeclaim.
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.podwarnings import claim_spec_warnings, node_selector_term_warnings
from haven.apimachinery.fielderrors import Path

__all__ = ["claim_warnings", "volume_warnings"]

_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_OLD_ANNOTATIONS = (
    (_CLASS_ANNOTATION, 'deprecated since v1.8; use "storageClassName" attribute instead'),
    (
        "volume.beta.kubernetes.io/mount-options",
        'deprecated since v1.31; use "mountOptions" attribute instead',
    ),
)
_OLD_SOURCES = (
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photon_persistent_disk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scale_io", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
)


def volume_warnings(volume: v1.PersistentVolume, _old: v1.PersistentVolume | None) -> list[str]:
    """Warn of what is old in a PersistentVolume."""
    spec = volume.spec
    annotations = Path("metadata", "annotations")
    warnings = [
        f"{annotations.key(key)}: {said}" for key, said in _OLD_ANNOTATIONS if key in volume.metadata.annotations
    ]
    if spec.persistent_volume_reclaim_policy == "Recycle":
        advice = "Instead, the recommended approach is to use dynamic provisioning."
        said = f"The Recycle reclaim policy is deprecated. {advice}"
        warnings.append(f"spec.persistentVolumeReclaimPolicy: {said}")
    if spec.node_affinity is not None and spec.node_affinity.required is not None:
        path = Path("spec", "nodeAffinity", "required", "nodeSelectorTerms")
        for index, term in enumerate(spec.node_affinity.required.node_selector_terms or ()):
            warnings += node_selector_term_warnings(term, path.index(index), check_values=False)
    for attribute, name, said in _OLD_SOURCES:
        if getattr(spec, attribute) is not None:
            warnings.append(f"spec.{name}: {said}")
    return warnings


def claim_warnings(claim: v1.PersistentVolumeClaim, _old: v1.PersistentVolumeClaim | None) -> list[str]:
    """Warn of what is old, or impossible, in a PersistentVolumeClaim."""
    warnings = []
    if _CLASS_ANNOTATION in claim.metadata.annotations:
        place = Path("metadata", "annotations").key(_CLASS_ANNOTATION)
        warnings.append(f'{place}: deprecated since v1.8; use "storageClassName" attribute instead')
    return warnings + claim_spec_warnings(claim.spec, Path("spec"))
