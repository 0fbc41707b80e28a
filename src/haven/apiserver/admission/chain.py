"""All admission plugins in upstream's order: first those that change objects, later those that only judge.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, cast

from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import AdmissionRequest, Mutator, Plugin, Validator

__all__ = ["ORDER", "AdmissionChain"]

ORDER = (
    "AlwaysAdmit", "NamespaceAutoProvision", "NamespaceLifecycle", "NamespaceExists",
    "LimitPodHardAntiAffinityTopology", "LimitRanger", "ServiceAccount", "NodeRestriction", "TaintNodesByCondition",
    "AlwaysPullImages", "ImagePolicyWebhook", "PodSecurity", "PodNodeSelector", "Priority",
    "DefaultTolerationSeconds", "PodTolerationRestriction", "EventRateLimit", "ExtendedResourceToleration",
    "DefaultStorageClass", "StorageObjectInUseProtection", "PodGroupProtection",
    "OwnerReferencesPermissionEnforcement", "PersistentVolumeClaimResize", "RuntimeClass", "CertificateApproval",
    "CertificateSigning", "ClusterTrustBundleAttest", "CertificateSubjectRestriction", "DefaultIngressClass",
    "DenyServiceExternalIPs", "PodTopologyLabels", "PodGroupWorkloadExists", "NodeDeclaredFeatureValidator",
    "JobValidation", "PodResizeValidator", "MutatingAdmissionPolicy", "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook", "ResourceQuota", "AlwaysDeny",
)  # fmt: skip
"""Every plugin of v1.36; which of them run is up to who builds the chain."""

_Step = Callable[[AdmissionRequest], Awaitable[None]]


class _Steps(NamedTuple):
    mutating: tuple[_Step, ...]
    validating: tuple[_Step, ...]


class AdmissionChain:
    """Runs plugins. Which ones care about a kind of request is worked out once.

    `guards` are what upstream's registry does with the user at hand: they come behind all plugins, in the given order,
    and cannot be turned off.
    """

    def __init__(self, plugins: Sequence[Plugin], guards: Sequence[Plugin] = ()) -> None:
        unknown = [plugin.name for plugin in plugins if plugin.name not in ORDER]
        assert not unknown, unknown
        self.plugins = tuple(sorted(plugins, key=lambda plugin: ORDER.index(plugin.name)))
        self._guards = tuple(guards)
        self._steps: dict[tuple[str, str, str], _Steps] = {}

    async def admit(self, request: AdmissionRequest) -> None:
        """Let plugins change or refuse a request, before validation.

        They are asked a second time if one of them made a change that those before it would have wanted to see.
        """
        steps = self._for(request).mutating
        for step in steps:
            await step(request)
        if request.reinvocation.is_wanted:
            request.reinvocation.is_second_round = True
            for step in steps:
                await step(request)

    async def validate(self, request: AdmissionRequest) -> None:
        """Let plugins refuse a request that is otherwise ready to be stored; a generated name is known by now."""
        if not request.name:
            metadata = getattr(request.object, "metadata", None)
            request.name = metadata.name if metadata is not None else ""
        for step in self._for(request).validating:
            await step(request)

    def judges(self, request: AdmissionRequest) -> bool:
        """Tell whether any plugin wants to see such a request, so that callers may spare themselves copies."""
        steps = self._for(request)
        return bool(steps.mutating or steps.validating)

    def _for(self, request: AdmissionRequest) -> _Steps:
        resource = request.resource
        key = (request.operation, resource.group, resource.plural)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = self._select(request.operation, resource.group_resource)
        return steps

    def _select(self, operation: str, resource: GroupResource) -> _Steps:
        chosen: list[Any] = [
            plugin
            for plugin in (*self.plugins, *self._guards)
            if plugin.handles(operation) and (plugin.resources is None or resource in plugin.resources)
        ]
        return _Steps(
            tuple(cast("Mutator", plugin).admit for plugin in chosen if hasattr(plugin, "admit")),
            tuple(cast("Validator", plugin).validate for plugin in chosen if hasattr(plugin, "validate")),
        )
