"""Plugins of Services and Ingresses.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.networking import v1 as networking
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects, forbidden
from haven.apiserver.admission.storage import newest_default

__all__ = ["DefaultIngressClass", "DenyServiceExternalIPs"]

IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
CLASS = "kubernetes.io/ingress.class"


class DefaultIngressClass:
    """Names the default class in Ingresses that name none."""

    name = "DefaultIngressClass"
    resources = frozenset({GroupResource("networking.k8s.io", "ingresses")})

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._classes = scheme.resource_of(networking.IngressClass)

    def handles(self, operation: str) -> bool:
        return operation == CREATE

    async def admit(self, request: AdmissionRequest) -> None:
        ingress: networking.Ingress = request.object
        if request.subresource or ingress.spec.ingress_class_name is not None:
            return
        if CLASS in ingress.metadata.annotations:
            return
        default = newest_default(self._objects.list(self._classes), (IS_DEFAULT,))
        if default is not None:
            ingress.spec.ingress_class_name = default.metadata.name


class DenyServiceExternalIPs:
    """Refuses external addresses, by which one could catch others' traffic; those that are there may stay."""

    name = "DenyServiceExternalIPs"
    resources = frozenset({GroupResource("", "services")})

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        service: core.Service = request.object
        present = request.old.spec.external_ips if request.old is not None else []
        if not set(service.spec.external_ips) <= set(present):
            raise forbidden(request, "Use of external IPs is denied by admission control")
