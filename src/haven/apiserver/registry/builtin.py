"""The built-in resources: an endpoint for each, and the handlers of those that are more than stored objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from haven.api import scheme, strategies
from haven.api.admissionregistration.strategies import reserving_static_names
from haven.api.authentication import v1 as authentication
from haven.api.authorization import v1 as authorization
from haven.api.certificates import v1 as certificates
from haven.api.gatedfields import FIELD_GATES
from haven.api.scheme import GroupVersionKind, Resource
from haven.api.strategy import Strategy
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.schema import schema_for
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.components import Parts
from haven.apiserver.registry.bindings import Bindings
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.eviction import Evictions
from haven.apiserver.registry.resources import Resources
from haven.apiserver.registry.scale import SCALED, Scales
from haven.apiserver.registry.storage import Storages
from haven.apiserver.registry.versions import Conversion, conversion
from haven.apiserver.registry.virtual import component_statuses, posted
from haven.apiserver.request import Request, UserInfo
from haven.apiserver.reviews.accessreviews import AccessReviews
from haven.apiserver.reviews.identityreviews import SelfSubjectReviews, TokenReviews
from haven.apiserver.reviews.tokenrequests import TokenRequests, default_token_request
from haven.apiserver.runtimeconfig import served_versions
from haven.apiserver.watchcache import decoder
from haven.clock import Clock

__all__ = ["add_handlers", "endpoints", "served_resources"]

_TOKEN_REQUEST = GroupVersionKind("authentication.k8s.io", "v1", "TokenRequest")


def _stricter(stored: Strategy[Any], served: Strategy[Any], change: Conversion) -> Strategy[Any]:
    """Return a stored kind's rules with the checks of another group that serves it, which read its own version."""
    return replace(
        stored,
        validate=lambda new: served.validate(change.to_served(new)),
        validate_update=lambda new, old: served.validate_update(change.to_served(new), change.to_served(old)),
        allow_create_on_update=served.allow_create_on_update,
        complaint_group=served.complaint_group,
    )


def served_resources(runtime_config: Iterable[str], states: Mapping[str, bool]) -> list[Resource[Any]]:
    """Return the built-in resources that are served, with feature gates as `states` says; raise RuntimeConfigError."""
    return served_versions(scheme.table().values(), runtime_config, states)


def endpoints(storages: Storages, resources: Sequence[Resource[Any]], states: Mapping[str, bool]) -> list[Endpoint]:
    """Return an endpoint for each resource, and begin to keep every kind, served or not."""
    off = frozenset(name for name in FIELD_GATES if not states[name])
    result: list[Endpoint] = []
    wanted = set(resources)
    for resource in scheme.table().values():
        change = conversion(resource)
        stored = change.stored
        strategy = strategies.strategy_for(stored, off)
        if states["ManifestBasedAdmissionControlConfig"] and stored.group == "admissionregistration.k8s.io":
            strategy = reserving_static_names(strategy)
        try:
            storage = storages.of(stored.group_resource)
        except KeyError:
            storage = storages.add(stored, strategy.selectable_fields, decoder(stored.type))
        schema = schema_for(resource.group, resource.version, resource.kind)
        assert schema is not None, resource
        if resource in wanted:
            if resource.group != stored.group:
                strategy = _stricter(strategy, strategies.strategy_for(resource, off), change)
            result.append(Endpoint(resource, storage, strategy, change, schema))
    return result


def stamp_certificate_request(obj: certificates.CertificateSigningRequest, user: UserInfo) -> None:
    """Write down who asks for a certificate: signers and approvers rely on it."""
    spec = obj.spec
    spec.username, spec.uid, spec.groups = user.name, user.uid, list(user.groups)
    spec.extra = {name: list(values) for name, values in user.extra.items()}


def add_handlers(
    resources: Resources,
    storages: Storages,
    admission: AdmissionChain,
    clock: Clock,
    *,
    access: AccessReviews,
    tokens: TokenReviews,
    requests: TokenRequests,
    parts: Parts,
) -> None:
    """Add what is not plain storage."""
    handlers = resources.handlers
    requests_of = GroupResource("certificates.k8s.io", "certificatesigningrequests")
    handlers.writing.stamps[requests_of] = stamp_certificate_request
    bindings = Bindings(storages, admission, clock)
    evictions = Evictions(storages, admission, handlers.deletion, clock)
    scales = Scales(handlers.writing, clock)
    resources.virtual[("", "bindings")] = {"create": bindings.create}
    resources.virtual[("", "componentstatuses")] = component_statuses(parts)
    resources.subresources[("", "pods", "binding")] = {"create": bindings.create}
    resources.subresources[("", "pods", "eviction")] = {"create": evictions.create}
    for group, plural in SCALED:
        resources.subresources[(group, plural, "scale")] = scales.handlers()

    async def local_review(request: Request, review: authorization.LocalSubjectAccessReview) -> Any:
        return await access.create_local_subject_access_review(request, request.info.namespace, review)

    async def token(request: Request, asked: authentication.TokenRequest) -> Any:
        return await requests.create(request, request.info.namespace, request.info.name, asked)

    for group, plural, answer in (
        ("authentication.k8s.io", "tokenreviews", tokens.create),
        ("authentication.k8s.io", "selfsubjectreviews", SelfSubjectReviews(clock).create),
        ("authorization.k8s.io", "subjectaccessreviews", access.create_subject_access_review),
        ("authorization.k8s.io", "localsubjectaccessreviews", local_review),
        ("authorization.k8s.io", "selfsubjectaccessreviews", access.create_self_subject_access_review),
        ("authorization.k8s.io", "selfsubjectrulesreviews", access.create_self_subject_rules_review),
    ):
        resources.virtual[(group, plural)] = posted(answer, admission, handlers.writing.fields)
    resources.subresources[("", "serviceaccounts", "token")] = posted(
        token, admission, handlers.writing.fields, _TOKEN_REQUEST, default_token_request
    )
