"""All admission plugins in upstream's order: first those that change objects, later those that only judge.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple, cast

from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CREATE, AdmissionRequest, Mutator, Plugin, Validator
from haven.metrics.families import Histogram, Registry, Value

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
_CONTROLLER = "apiserver_admission_controller_admission_duration_seconds"
_ALL = "apiserver_admission_step_admission_duration_seconds"


class _Timed(NamedTuple):
    """Steps of one kind, each with the plugin's name and where its time is counted; and where their sum is."""

    kind: str
    operation: str
    steps: tuple[tuple[_Step, str, Histogram | None], ...]
    total: Histogram | None


class _Steps(NamedTuple):
    mutating: _Timed
    validating: _Timed
    unsteady: tuple[tuple[Callable[[AdmissionRequest], bool] | None, _Step | None], ...]
    """Of each plugin that is not steady, what tells whether it is idle; then what it says if it only judges."""
    repeated: list[int]
    """How many requests passed without that the others were asked."""


class AdmissionChain:
    """Runs plugins. Which ones care about a kind of request is worked out once.

    `guards` are what upstream's registry does with the user at hand: they come behind all plugins, in the given order,
    and cannot be turned off.
    """

    def __init__(
        self, plugins: Sequence[Plugin], guards: Sequence[Plugin] = (), registry: Registry | None = None
    ) -> None:
        unknown = [plugin.name for plugin in plugins if plugin.name not in ORDER]
        assert not unknown, unknown
        self.plugins = tuple(sorted(plugins, key=lambda plugin: ORDER.index(plugin.name)))
        self._guards = tuple(guards)
        self._registry = registry
        if registry is not None:
            registry.add_collector(self._count_repeated)
        self._steps: dict[tuple[str, str, str], _Steps] = {}

    def require(self, guard: Plugin) -> None:
        """Ask one more guard from now on."""
        self._guards = (*self._guards, guard)
        self._steps.clear()

    async def admit(self, request: AdmissionRequest) -> None:
        """Let plugins change or refuse a request, before validation.

        They are asked a second time if one of them made a change that those before it would have wanted to see.
        """
        steps = self._for(request).mutating
        await self._run(steps, request)
        if request.reinvocation.is_wanted:
            request.reinvocation.is_second_round = True
            await self._run(steps, request)

    async def validate(self, request: AdmissionRequest) -> None:
        """Let plugins refuse a request that is otherwise ready to be stored; a generated name is known by now."""
        if not request.name:
            metadata = getattr(request.object, "metadata", None)
            request.name = metadata.name if metadata is not None else ""
        await self._run(self._for(request).validating, request)

    async def _run(self, timed: _Timed, request: AdmissionRequest) -> None:
        """Run steps one after the other, and count how long each took."""
        before = began = perf_counter()
        name = ""
        try:
            for step, name, spread in timed.steps:  # noqa: B007
                await step(request)
                if spread is not None:
                    now = perf_counter()
                    spread.add(now - before)
                    before = now
        except Exception:
            if self._registry is not None and name:
                now = perf_counter()
                labels = (timed.operation, "true", timed.kind)
                self._registry[_CONTROLLER].histogram(name, *labels).add(now - before)
                self._registry[_ALL].histogram(*labels).add(now - began)
            raise
        if timed.total is not None:
            timed.total.add(perf_counter() - began)

    def not_repeatable(self, request: AdmissionRequest) -> Sequence[_Step] | None:
        """Return who has to judge a request though all other plugins have seen one like it.

        None if that is not enough, because somebody might change the object, or write down something about it.
        """
        result: list[_Step] = []
        steps = self._for(request)
        for is_idle, judge in steps.unsteady:
            if is_idle is not None and is_idle(request):
                continue
            if judge is None:
                return None
            result.append(judge)
        steps.repeated[0] += 1
        return result

    def counts(self, resource: GroupResource, annotations: Mapping[str, str]) -> tuple[Value, ...]:
        """Return what plugins count in for each new object that is made as one of which this was written down."""
        return tuple(
            value
            for plugin in self.plugins
            if hasattr(plugin, "counts") and (plugin.resources is None or resource in plugin.resources)
            for value in plugin.counts(CREATE, resource, annotations)
        )

    def _count_repeated(self) -> None:
        """Count the requests for which the plugins were not asked again: that took them no time."""
        for steps in self._steps.values():
            number, steps.repeated[0] = steps.repeated[0], 0
            if not number:
                continue
            for timed in (steps.mutating, steps.validating):
                for spread in (*(spread for _, _, spread in timed.steps), timed.total):
                    if spread is not None:
                        spread.add_some(0.0, number)

    def judges(self, request: AdmissionRequest) -> bool:
        """Tell whether any plugin wants to see such a request, so that callers may spare themselves copies."""
        steps = self._for(request)
        return bool(steps.mutating.steps or steps.validating.steps)

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
            self._timed(
                "admit",
                operation,
                [(cast("Mutator", one).admit, one) for one in chosen if hasattr(one, "admit")],
            ),
            self._timed(
                "validate",
                operation,
                [(cast("Validator", one).validate, one) for one in chosen if hasattr(one, "validate")],
            ),
            tuple(
                (getattr(plugin, "is_idle", None), plugin.validate if getattr(plugin, "only_refuses", False) else None)
                for plugin in chosen
                if not getattr(plugin, "is_steady", False)
            ),
            [0],
        )

    def _timed(self, kind: str, operation: str, steps: Sequence[tuple[_Step, Plugin]]) -> _Timed:
        registry = self._registry
        labels = (operation, "false", kind)
        found = []
        for step, plugin in steps:
            own = registry is not None and plugin not in self._guards
            spread = registry[_CONTROLLER].histogram(plugin.name, *labels) if registry is not None and own else None
            found.append((step, plugin.name if own else "", spread))
        return _Timed(
            kind, operation, tuple(found), registry[_ALL].histogram(*labels) if registry is not None else None
        )
