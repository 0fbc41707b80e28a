"""What is served beside resources: discovery, health, metrics, the OpenID documents."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haven.api.scheme import Resource
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.codecs.negotiate import JSON_ONLY, Offer, check_route
from haven.apiserver.authentication.tokenkeys import JWKS_PATH, OPENID_CONFIGURATION_PATH, SigningKeys
from haven.apiserver.chain import PathHandler
from haven.apiserver.damage import FIX
from haven.apiserver.discovery import Discovery, built_in
from haven.apiserver.health import Check, CheckMeter, health_paths
from haven.apiserver.metrics import Metrics
from haven.apiserver.openapi.server import OpenAPI
from haven.apiserver.processfacts import process_start_seconds
from haven.apiserver.registry.storage import Storages
from haven.apiserver.request import Request, Response
from haven.store.interface import Store, StoreError

__all__ = ["Documents", "Shutdown", "document_paths", "store_check"]

_HOOKS = (
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/storage-readiness",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/aggregator-reload-proxy-client-cert",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
)
"""Upstream's start-up steps, which its health endpoints list. Ours are all done before the first request is taken."""


_FOLLOWED = frozenset(
    GroupResource(group, plural)
    for group, plurals in {
        "": (
            "configmaps", "endpoints", "limitranges", "namespaces", "nodes", "persistentvolumeclaims",
            "persistentvolumes", "pods", "resourcequotas", "secrets", "serviceaccounts", "services",
        ),
        "admissionregistration.k8s.io": (
            "mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ),
        "apiextensions.k8s.io": ("customresourcedefinitions",),
        "apiregistration.k8s.io": ("apiservices",),
        "discovery.k8s.io": ("endpointslices",),
        "flowcontrol.apiserver.k8s.io": ("flowschemas", "prioritylevelconfigurations"),
        "networking.k8s.io": ("ingressclasses", "ipaddresses", "servicecidrs"),
        "node.k8s.io": ("runtimeclasses",),
        "rbac.authorization.k8s.io": ("clusterrolebindings", "clusterroles", "rolebindings", "roles"),
        "resource.k8s.io": ("resourceclaims", "resourceslices"),
        "scheduling.k8s.io": ("priorityclasses",),
        "storage.k8s.io": ("storageclasses", "volumeattachments"),
    }.items()
    for plural in plurals
)  # fmt: skip
"""What upstream's API server has informers for: it is ready when they have all been read."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Handlers by path, and the documents among them that change with what is served."""

    paths: dict[str, PathHandler]
    discovery: Discovery
    openapi: OpenAPI


_PROBE = b"/registry/health"
_STORE_SECONDS_MAX = 2.0


async def _done() -> str:
    return ""


class Shutdown:
    """Whether the server has been told to end: then it is not ready any more."""

    def __init__(self) -> None:
        self.begun = False

    async def check(self) -> str:
        """Return what the health endpoint says."""
        return "process is shutting down" if self.begun else ""


def document_paths(
    *,
    shutdown: Shutdown,
    resources: Sequence[Resource[Any]],
    metrics: Metrics,
    storages: Storages,
    keys: SigningKeys,
    issuer: str,
    server_address: str,
    more_checks: Mapping[str, Check] | None = None,
) -> Documents:
    """Return the handlers by path, and the documents that change with what is served."""

    async def show_metrics(request: Request) -> Response:
        if request.method == "DELETE":
            metrics.registry.reset()
            return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, b"metrics reset\n")
        content_type, body = metrics.answer(request.headers.get("accept", ""))
        started = f"{process_start_seconds():.0f}"
        return Response(200, {"Content-Type": content_type, "Process-Start-Time-Unix": started}, body)

    check_meter = CheckMeter()

    async def openid_configuration(request: Request) -> Response:
        check_route(request.headers.get("accept", ""), JSON_ONLY)
        body = keys.openid_configuration(issuer, f"https://{server_address}{JWKS_PATH}")
        return Response(200, {"Content-Type": "application/json", "Cache-Control": "public, max-age=3600"}, body)

    async def jwks(request: Request) -> Response:
        check_route(request.headers.get("accept", ""), Offer(("application/jwk-set+json",)))
        headers = {"Content-Type": "application/jwk-set+json", "Cache-Control": "public, max-age=3600"}
        return Response(200, headers, keys.jwks())

    paths: dict[str, PathHandler] = {
        **health_paths(
            _checks(store_check(storages.store), more_checks or {}, shutdown.check, _readable(storages)), check_meter
        ),
        "/metrics": show_metrics,
        "/metrics/slis": check_meter.show,
        OPENID_CONFIGURATION_PATH: openid_configuration,
        JWKS_PATH: jwks,
    }
    openapi = OpenAPI(resources)
    paths |= {"/openapi/v2": openapi.handle_v2, "/openapi/v3": openapi.handle_v3, "/openapi/v3/": openapi.handle_v3}
    discovery = Discovery(
        built_in(resources),
        server_address=server_address,
        paths=sorted({*paths, "/version"}),
    )
    for path in ("/", "/api", "/apis", "/version"):
        paths[path] = discovery.handle
    for group, version in discovery.group_versions:
        if group:
            paths[f"/apis/{group}"] = discovery.handle
        paths[f"/apis/{group}/{version}" if group else f"/api/{version}"] = discovery.handle
    return Documents(paths, discovery, openapi)


def store_check(store: Store) -> Check:
    """Return the check whether the store answers in time."""

    async def reach_store() -> str:
        try:
            async with asyncio.timeout(_STORE_SECONDS_MAX):
                await store.get(_PROBE)
        except (StoreError, TimeoutError) as error:
            return str(error) or f"the store does not answer within {_STORE_SECONDS_MAX:.0f} s"
        return ""

    return reach_store


def _readable(storages: Storages) -> Check:
    """Return the check whether all can be read that this server itself goes by."""

    async def check() -> str:
        found = [damage for resource, damage in storages.unreadable() if resource.group_resource in _FOLLOWED]
        if not found:
            return ""
        first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"{first.key} cannot be read: {first.because}{more}; {FIX}"

    return check


def _checks(
    reach_store: Check, more: Mapping[str, Check], shutdown: Check, readable: Check
) -> Mapping[str, Mapping[str, Check]]:
    first: dict[str, Check] = {"log": _done, "etcd": reach_store, **more}
    hooks: dict[str, Check] = dict.fromkeys(_HOOKS, _done)
    alive = {"log": _done, "loopback-serving-certificate": _done, **first, **hooks}
    living = {name: check for name, check in alive.items() if name not in more}
    ready = {**first, "etcd-readiness": reach_store, "informer-sync": readable, **hooks, "shutdown": shutdown}
    return {"livez": living, "readyz": ready, "healthz": alive}
