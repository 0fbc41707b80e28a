"""The admission plugins of a server: upstream's default set, and NodeRestriction as every installer adds it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from haven.apiserver.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from haven.apiserver.admission.interface import Objects, Plugin
from haven.apiserver.admission.limitranger import LimitRanger
from haven.apiserver.admission.namespacelifecycle import NamespaceLifecycle
from haven.apiserver.admission.network import DefaultIngressClass
from haven.apiserver.admission.noderestriction import NodeRestriction
from haven.apiserver.admission.pods import PodResizeValidator, PodTopologyLabels
from haven.apiserver.admission.podsecurity.plugin import PodSecurity
from haven.apiserver.admission.priority import Priority
from haven.apiserver.admission.runtimeclass import RuntimeClass
from haven.apiserver.admission.serviceaccount import ServiceAccount
from haven.apiserver.admission.storage import (
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from haven.apiserver.admission.tolerations import DefaultTolerationSeconds, TaintNodesByCondition
from haven.apiserver.authorization.interface import Authorizer
from haven.clock import Clock

__all__ = ["default_plugins"]


def default_plugins(objects: Objects, authorizer: Authorizer, clock: Clock, chance: random.Random) -> Sequence[Plugin]:
    """Return the plugins that run; their order is the chain's business."""
    return [
        NamespaceLifecycle(objects),
        LimitRanger(objects),
        ServiceAccount(objects, clock, chance),
        NodeRestriction(objects, authorizer),
        TaintNodesByCondition(),
        PodSecurity(objects),
        Priority(objects),
        DefaultTolerationSeconds(),
        DefaultStorageClass(objects),
        StorageObjectInUseProtection(),
        PersistentVolumeClaimResize(objects),
        RuntimeClass(objects),
        CertificateApproval(authorizer),
        CertificateSigning(authorizer),
        CertificateSubjectRestriction(),
        DefaultIngressClass(objects),
        PodTopologyLabels(objects),
        PodResizeValidator(objects),
    ]
