"""PodSecurity: pods keep to the standard that their namespace asks for, and workloads' authors are warned.

Source: https://kubernetes.io/docs/concepts/security/pod-security-admission/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haven.api import scheme
from haven.api.core import v1 as core
from haven.apimachinery import fielderrors, meta
from haven.apimachinery.apierrors import Forbidden, GroupResource, InternalError, Invalid
from haven.apimachinery.fielderrors import FieldError
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest, Objects
from haven.apiserver.admission.podsecurity.checks import describe, evaluate
from haven.apiserver.admission.podsecurity.meter import DENY, PodSecurityMeter
from haven.apiserver.admission.podsecurity.policy import PREFIX, Level, LevelVersion, Policy, policy_of
from haven.metrics.families import Registry, Value

__all__ = ["Exemptions", "PodSecurity"]

PODS_CHECKED_MAX = 3000
"""How many existing pods are looked at when a namespace gets a stricter level."""
_NAMESPACES, _PODS = GroupResource("", "namespaces"), GroupResource("", "pods")
_Check = Callable[[AdmissionRequest], Awaitable[None]]
_IGNORED = frozenset({"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"})


@dataclass(frozen=True)
class Exemptions:
    """Who and what is not checked at all."""

    usernames: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()


class PodSecurity:
    """Judges pods, what makes pods, and namespaces."""

    name = "PodSecurity"
    resources = frozenset(
        {
            _NAMESPACES, _PODS, GroupResource("", "podtemplates"), GroupResource("", "replicationcontrollers"),
            GroupResource("apps", "daemonsets"), GroupResource("apps", "deployments"),
            GroupResource("apps", "replicasets"), GroupResource("apps", "statefulsets"),
            GroupResource("batch", "cronjobs"), GroupResource("batch", "jobs"),
        }
    )  # fmt: skip
    is_steady = True

    def __init__(
        self,
        objects: Objects,
        *,
        defaults: Policy | None = None,
        exemptions: Exemptions | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._objects = objects
        self._defaults = defaults or Policy()
        self._exemptions = exemptions or Exemptions()
        self._namespaces = scheme.resource_of(core.Namespace)
        self._pods = scheme.resource_of(core.Pod)
        self._meter = PodSecurityMeter(registry) if registry is not None else None

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def validate(self, request: AdmissionRequest) -> None:
        resource = request.resource.group_resource
        if resource == _NAMESPACES:
            if not request.subresource:
                self._check_namespace(request)
        elif resource == _PODS:
            if request.subresource not in _IGNORED:
                await self._counted(self._check_pod, request)
        elif not request.subresource:
            await self._counted(self._check_workload, request)

    async def _counted(self, check: _Check, request: AdmissionRequest) -> None:
        """Check, and count what comes of it."""
        meter, place = self._meter, (request.operation, request.resource.group_resource, request.subresource)
        if meter is None:
            return await check(request)
        refused = False
        try:
            await check(request)
        except Forbidden:
            refused = True
            raise
        except InternalError:
            meter.error(*place, fatal=True).value += 1
            raise
        finally:
            for value in meter.told_by(request.audit_annotations, *place, refused=refused):
                value.value += 1

    def counts(self, operation: str, resource: GroupResource, annotations: Mapping[str, str]) -> Iterator[Value]:
        """Yield what counts an object that is made as another one was, of which this was written down."""
        if self._meter is not None:
            yield from self._meter.told_by(annotations, operation, resource, "")

    # ---- namespaces

    def _check_namespace(self, request: AdmissionRequest) -> None:
        namespace: core.Namespace = request.object
        new, errors = policy_of(namespace.metadata.labels, self._defaults)
        old: Policy | None = None
        old_errors: tuple[FieldError, ...] = ()
        if request.operation == UPDATE:
            old, old_errors = policy_of(request.old.metadata.labels, self._defaults)
        if errors and errors != old_errors:
            raise Invalid.of(request.resource.group_kind, request.name, errors)
        exempt = namespace.metadata.name in self._exemptions.namespaces
        if old is None:
            if exempt:
                self._warn_exempt(request, namespace, new)
            return
        stricter = new.enforce.level.value > old.enforce.level.value
        if (
            new.enforce == old.enforce
            or new.enforce.level is Level.PRIVILEGED
            or (new.enforce.minor == old.enforce.minor and not stricter)
        ):
            return
        if exempt:
            self._warn_exempt(request, namespace, new)
            return
        request.warnings.extend(self._existing(namespace.metadata.name, new.enforce))

    def _warn_exempt(self, request: AdmissionRequest, namespace: core.Namespace, policy: Policy) -> None:
        if policy.is_privileged or policy == self._defaults:
            return
        labels = namespace.metadata.labels
        parts = [
            f"{mode}={asked}"
            for mode, asked in (("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn))
            if asked.level is not Level.PRIVILEGED and (PREFIX + mode in labels or f"{PREFIX}{mode}-version" in labels)
        ]
        request.warnings.append(
            f"namespace {quote(namespace.metadata.name)} is exempt from Pod Security, and the policy"
            f" ({', '.join(parts)}) will be ignored"
        )

    def _existing(self, namespace: str, enforce: LevelVersion) -> Iterator[str]:
        """Yield warnings about pods that are there and would not be let in any more."""
        pods = list(self._first_of_each(self._objects.list(self._pods, namespace)))
        checked = pods[:PODS_CHECKED_MAX]
        found: dict[str, list[str]] = {}
        for pod in checked:
            violations = evaluate(enforce, pod.metadata, pod.spec)
            if violations:
                found.setdefault(", ".join(reason for reason, _ in violations), []).append(pod.metadata.name)
        if len(checked) < len(pods):
            yield (
                f"new PodSecurity enforce level only checked against the first {len(checked)} of {len(pods)}"
                " existing pods"
            )
        if found:
            yield (
                f"existing pods in namespace {quote(namespace)} violate the new PodSecurity enforce level"
                f" {quote(str(enforce))}"
            )
        yield from sorted(f"{_some(names)}: {reasons}" for reasons, names in found.items())

    def _first_of_each(self, pods: Sequence[core.Pod]) -> Iterator[core.Pod]:
        """Yield one pod of each controller and the lone ones first: they differ most."""
        seen: set[str] = set()
        rest: list[core.Pod] = []
        for pod in pods:
            if pod.spec.runtime_class_name in self._exemptions.runtime_classes:
                continue
            owner = next((owner.uid for owner in pod.metadata.owner_references if owner.controller), None)
            if owner is not None and owner in seen:
                rest.append(pod)
                continue
            if owner is not None:
                seen.add(owner)
            yield pod
        yield from rest

    # ---- pods and workloads

    async def _check_pod(self, request: AdmissionRequest) -> None:
        if self._is_exempt(request):
            return
        namespace = await self._namespace(request.namespace)
        if namespace is None:
            raise InternalError(f"failed to lookup namespace {quote(request.namespace)}")
        policy, errors = policy_of(namespace.metadata.labels, self._defaults)
        if not errors and policy.is_privileged:
            _annotate(request, "enforce-policy", str(LevelVersion(Level.PRIVILEGED)))
            return
        pod: core.Pod = request.object
        if request.operation == UPDATE and not _matters(pod.spec, request.old.spec):
            return
        self._judge(request, policy, errors, pod.metadata, pod.spec, enforce=True)

    async def _check_workload(self, request: AdmissionRequest) -> None:
        if self._is_exempt(request):
            return
        namespace = await self._namespace(request.namespace)
        if namespace is None:
            return
        policy, errors = policy_of(namespace.metadata.labels, self._defaults)
        if not errors and policy.warn.level is Level.PRIVILEGED and policy.audit.level is Level.PRIVILEGED:
            return
        template = _template(request.object)
        if template is not None:
            self._judge(request, policy, errors, template.metadata, template.spec, enforce=False)

    async def _namespace(self, name: str) -> core.Namespace | None:
        namespace = self._objects.get(self._namespaces, "", name)
        return namespace if namespace is not None else await self._objects.get_fresh(self._namespaces, "", name)

    def _is_exempt(self, request: AdmissionRequest) -> bool:
        for reason, value, exempt in (
            ("namespace", request.namespace, self._exemptions.namespaces),
            ("user", request.user.name, self._exemptions.usernames),
        ):
            if value in exempt:
                _annotate(request, "exempt", reason)
                return True
        return False

    def _judge(
        self,
        request: AdmissionRequest,
        policy: Policy,
        errors: tuple[FieldError, ...],
        metadata: meta.ObjectMeta,
        spec: core.PodSpec,
        *,
        enforce: bool,
    ) -> None:
        if spec.runtime_class_name in self._exemptions.runtime_classes:
            _annotate(request, "exempt", "runtimeClass")
            return
        if errors:
            _annotate(request, "error", f"Failed to parse policy: {fielderrors.aggregate(errors)}")
        known: dict[LevelVersion, str] = {}

        def wrong(asked: LevelVersion) -> str:
            if asked not in known:
                known[asked] = describe(evaluate(asked, metadata, spec))
            return known[asked]

        if found := wrong(policy.audit):
            text = f"would violate PodSecurity {quote(str(policy.audit))}: {found}"
            _annotate(request, "audit-violations", text)
        if enforce:
            _annotate(request, "enforce-policy", str(policy.enforce))
            if found := wrong(policy.enforce):
                because = f"violates PodSecurity {quote(str(policy.enforce))}: {found}"
                raise Forbidden.of(request.resource.group_resource, request.name, because)
        if found := wrong(policy.warn):
            if self._meter is not None:
                place = (request.operation, request.resource.group_resource, request.subresource)
                self._meter.evaluation(DENY, "warn", policy.warn, *place).value += 1
            request.warnings.append(f"would violate PodSecurity {quote(str(policy.warn))}: {found}")


def _annotate(request: AdmissionRequest, key: str, value: str) -> None:
    request.audit_annotations[PREFIX + key] = value


def _some(names: list[str]) -> str:
    first, others = min(names), len(names) - 1
    if not others:
        return first
    return f"{first} (and {others} other pod{'' if others == 1 else 's'})"


def _template(obj: Any) -> core.PodTemplateSpec | None:
    """Return the template of what makes pods; None if it has none."""
    if isinstance(obj, core.PodTemplate):
        return obj.template
    spec = obj.spec
    if hasattr(spec, "job_template"):
        spec = spec.job_template.spec
    template: core.PodTemplateSpec | None = spec.template
    return template


def _matters(new: core.PodSpec, old: core.PodSpec) -> bool:
    """Tell whether an update changes what is checked: images, or ephemeral containers."""
    pairs = ((new.containers or [], old.containers or []), (new.init_containers, old.init_containers))
    for mine, theirs in pairs:
        if len(mine) != len(theirs):
            return True
        if any(one.image != other.image for one, other in zip(mine, theirs, strict=True)):
            return True
    images = {container.name: container.image for container in old.ephemeral_containers}
    return any(
        container.name not in images or container.image != images[container.name]
        for container in new.ephemeral_containers
    )
