"""Objects that belong to Haven's own parts: the DNS Service, and what the proxy and the DNS of a node may read."""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core
from haven.api.rbac import v1 as rbac
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta
from haven.cli.settings import ClusterSettings
from haven.client.interface import Client

__all__ = ["ensure_addons"]

DNS_NAME = "kube-dns"  # The name by which every client of a cluster looks for its DNS.
READER = "haven-node-network"


async def ensure_addons(client: Client, settings: ClusterSettings) -> None:
    """Create what is missing; what users changed stays as it is."""
    for obj in (_role(), _binding(), _dns_service(settings)):
        if await _is_there(client, obj):
            continue
        try:
            await client.create(resource_of(type(obj)), obj, namespace=obj.metadata.namespace)
        except (apierrors.AlreadyExists, apierrors.Invalid):
            # Another server on the same store was faster; of a Service its address is found taken, before its name.
            if not await _is_there(client, obj):
                raise


async def _is_there(client: Client, obj: Any) -> bool:
    try:
        await client.get(resource_of(type(obj)), obj.metadata.namespace, obj.metadata.name)
    except apierrors.NotFound:
        return False
    return True


def _role() -> rbac.ClusterRole:
    read = ["get", "list", "watch"]
    return rbac.ClusterRole(
        metadata=meta.ObjectMeta(name=READER),
        rules=[
            rbac.PolicyRule(api_groups=[""], resources=["namespaces", "nodes", "services"], verbs=read),
            rbac.PolicyRule(api_groups=["discovery.k8s.io"], resources=["endpointslices"], verbs=read),
        ],
    )


def _binding() -> rbac.ClusterRoleBinding:
    return rbac.ClusterRoleBinding(
        metadata=meta.ObjectMeta(name=READER),
        role_ref=rbac.RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=READER),
        subjects=[rbac.Subject(api_group="rbac.authorization.k8s.io", kind="User", name="system:kube-proxy")],
    )


def _dns_service(settings: ClusterSettings) -> core.Service:
    """Return the Service; it needs no endpoints, because each node answers its address itself."""
    labels = {"k8s-app": DNS_NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "Haven-DNS"}
    return core.Service(
        metadata=meta.ObjectMeta(name=DNS_NAME, namespace="kube-system", labels=labels),
        spec=core.ServiceSpec(
            cluster_ip=settings.dns_address,
            ports=[
                core.ServicePort(name="dns", port=53, protocol="UDP", target_port=53),
                core.ServicePort(name="dns-tcp", port=53, protocol="TCP", target_port=53),
            ],
        ),
    )
