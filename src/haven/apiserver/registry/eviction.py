"""pods/eviction: a Pod is deleted if its disruption budget allows it.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.api.policy import v1 as policy
from haven.api.scheme import GroupVersionKind
from haven.apimachinery import apierrors, meta, serialization, times
from haven.apimachinery.fielderrors import Path, invalid
from haven.apimachinery.selectors import SelectorError, from_label_selector
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import CREATE, AdmissionRequest
from haven.apiserver.registry import serverwrites, systemfields
from haven.apiserver.registry.bindings import condition_set
from haven.apiserver.registry.deletion import Deletion
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import UNREAD, DeleteParameters, delete_parameters, write_parameters
from haven.apiserver.registry.output import answer_form, object_response
from haven.apiserver.registry.requestobjects import body_of
from haven.apiserver.registry.storage import Storages, Write
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import Entry
from haven.clock import Clock
from haven.store.interface import TransactionFailed

__all__ = ["Evictions"]

_GVK = GroupVersionKind("policy", "v1", "Eviction")
_PODS = apierrors.GroupResource("", "pods")
_BUDGETS = apierrors.GroupResource("policy", "poddisruptionbudgets")
_CONFLICT_ATTEMPTS = 20
_DISRUPTED_PODS_MAX = 2000
_REFUSAL = "Cannot evict pod as it would violate the pod's disruption budget."


class SeveralBudgets(apierrors.ApiError):
    """More than one budget covers the Pod; upstream answers 500 without a reason."""

    code, reason = 500, ""


class MismatchedDryRun(apierrors.ApiError):
    """The query asks for another kind of dry run than the body; upstream answers 500 without a reason."""

    code, reason = 500, ""


class Evictions:
    """Handler of eviction."""

    def __init__(self, storages: Storages, admission: AdmissionChain, deletion: Deletion, clock: Clock) -> None:
        self._storages = storages
        self._admission = admission
        self._deletion = deletion
        self._clock = clock

    async def create(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer a POST to pods/{name}/eviction."""
        form = answer_form(request, endpoint, tables=False)
        parameters = write_parameters(request.query, "CreateOptions")
        request.body = request.body.replace(b'"policy/v1beta1"', b'"policy/v1"')
        eviction: policy.Eviction = body_of(request, _GVK, parameters)
        namespace, name = request.info.namespace, request.info.name
        systemfields.ensure_namespace(eviction.metadata, namespace)
        if eviction.metadata.name != name:
            raise apierrors.BadRequest("name in URL does not match name in Eviction object")
        given = eviction.delete_options
        if given is not None and given.ignore_store_read_error_with_cluster_breaking_potential:
            kind = apierrors.GroupKind("policy", "Eviction")
            text = "can not be set for pod eviction, try after removing the option"
            raise apierrors.Invalid.of(kind, name, [invalid(Path("deleteOptions").child(UNREAD), True, text)])
        if eviction.delete_options is not None and eviction.delete_options.dry_run and parameters.dry_run:
            asked, told = parameters.tree["dryRun"], eviction.delete_options.dry_run
            if asked != told:
                raise MismatchedDryRun(
                    f"Non-matching dry-run options in request and content: [{' '.join(asked)}] and [{' '.join(told)}]"
                )
        options = delete_parameters({}, eviction.delete_options or meta.DeleteOptions(), is_gated=False)
        options.dry_run = options.dry_run or parameters.dry_run
        admission = AdmissionRequest(
            operation=CREATE,
            resource=endpoint.resource,
            subresource="eviction",
            namespace=namespace,
            name=name,
            user=request.user,
            object=eviction,
            dry_run=options.dry_run,
            options=parameters.tree,
            warnings=request.warnings,
            audit_annotations=request.audit_annotations,
            audit_details=request.audit_details,
            delays=request.waits(),
        )
        await self._admission.admit(admission)
        await self._admission.validate(admission)
        await self._evict(request, endpoint, namespace, name, options)
        return object_response(request, endpoint, form, meta.Status(status="Success", code=201), 201, served=True)

    async def _evict(
        self, request: Request, endpoint: Endpoint, namespace: str, name: str, options: DeleteParameters
    ) -> None:
        entry = self._pod(namespace, name)
        pod: core.Pod = entry.glimpse
        pinned = False
        budget_name = ""
        if pod.status.phase not in ("Succeeded", "Failed", "Pending") and not pod.metadata.deletion_timestamp:
            budget = self._budget_of(pod)
            if budget is not None:
                budget_name = budget.name
                if _may_ignore(budget.glimpse, pod):
                    pinned = True
                else:
                    await self._take_disruption(budget, name, dry_run=options.dry_run)
        own_version = options.resource_version is not None
        if pinned and not own_version:
            options.resource_version = str(entry.revision)
        try:
            await self._delete(request, endpoint, namespace, name, options)
        except apierrors.Conflict:
            if pinned and not own_version:
                raise _too_many(budget_name) from None
            raise

    def _pod(self, namespace: str, name: str) -> Entry:
        entry = self._storages.of(_PODS).get(namespace, name)
        if entry is None:
            raise apierrors.NotFound.of(_PODS, name)
        return entry

    async def _delete(
        self, request: Request, endpoint: Endpoint, namespace: str, name: str, options: DeleteParameters
    ) -> None:
        if not options.dry_run:
            entry = await self._add_condition(namespace, name, options)
            if options.resource_version is not None:
                options.resource_version = str(entry.revision)
        await self._deletion.delete_one(request, endpoint, namespace, name, options, is_admitted=True)

    async def _add_condition(self, namespace: str, name: str, options: DeleteParameters) -> Entry:
        storage = self._storages.of(_PODS)
        kind = apierrors.GroupResource("", "Pod")
        while True:
            entry = self._pod(namespace, name)
            if options.uid and options.uid != entry.uid:
                because = (
                    f"the UID in the precondition ({options.uid}) does not match the UID in record ({entry.uid}). "
                    "The object might have been deleted and then recreated"
                )
                raise apierrors.Conflict.of(kind, name, because)
            if options.resource_version and options.resource_version != str(entry.revision):
                because = (
                    f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
                    f"ResourceVersion in record ({entry.revision}). The object might have been modified"
                )
                raise apierrors.Conflict.of(kind, name, because)
            pod = serialization.decode(entry.data, core.Pod)
            condition = core.PodCondition(
                type="DisruptionTarget",
                status="True",
                reason="EvictionByEvictionAPI",
                message="Eviction API: evicting",
            )
            condition_set(pod, condition, times.format_time(self._clock.now_seconds()))
            write = Write(storage, storage.key(namespace, name), pod, expected=entry.revision)
            if entry.holds(write.value):
                return entry
            try:
                await self._storages.commit([write])
            except TransactionFailed:
                continue
            return self._pod(namespace, name)

    def _budget_of(self, pod: core.Pod) -> Entry | None:
        found: list[Entry] = []
        storage = self._storages.of(_BUDGETS)
        if storage.cache.damaged:
            storage.refuse_list(pod.metadata.namespace, None, None, None)
        for entry in storage.cache.entries(pod.metadata.namespace):
            try:
                selector = from_label_selector(entry.glimpse.spec.selector)
            except SelectorError:
                continue
            if selector.matches(pod.metadata.labels):
                found.append(entry)
        if len(found) > 1:
            raise SeveralBudgets(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        return found[0] if found else None

    async def _take_disruption(self, budget: Entry, pod_name: str, *, dry_run: bool) -> None:
        """Count the Pod against its budget; raise what forbids it."""
        storage = self._storages.of(_BUDGETS)
        for _ in range(_CONFLICT_ATTEMPTS):
            entry = storage.get(budget.namespace, budget.name)
            if entry is None:
                raise apierrors.NotFound.of(_BUDGETS, budget.name)
            new = serialization.decode(entry.data, policy.PodDisruptionBudget)
            _check_budget(new)
            status = new.status
            status.disruptions_allowed -= 1
            now = times.format_time(self._clock.now_seconds())
            if status.disruptions_allowed == 0:
                _set_not_allowed(new, now)
            if dry_run:
                return
            status.disrupted_pods = {**status.disrupted_pods, pod_name: now}
            new.metadata.managed_fields = serverwrites.updated(new, entry, storage.resource, now, subresource="status")
            write = Write(storage, storage.key(entry.namespace, entry.name), new, expected=entry.revision)
            try:
                await self._storages.commit([write])
            except TransactionFailed:
                continue
            return
        raise apierrors.Timeout(
            f'Timeout: couldn\'t update PodDisruptionBudget "{budget.name}" due to conflicts',
            meta.StatusDetails(retry_after_seconds=10),
        )


def _may_ignore(budget: policy.PodDisruptionBudget, pod: core.Pod) -> bool:
    """An unready Pod disrupts nobody if the budget says so, or if enough others are healthy."""
    if any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions):
        return False
    if budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow":
        return True
    status = budget.status
    return status.current_healthy >= status.desired_healthy > 0


def _check_budget(budget: policy.PodDisruptionBudget) -> None:
    status, name = budget.status, budget.metadata.name
    if status.observed_generation < budget.metadata.generation:
        raise _too_many(name)
    refused = apierrors.GroupResource("policy", "poddisruptionbudget")
    if status.disruptions_allowed < 0:
        raise apierrors.Forbidden.of(refused, name, "pdb disruptions allowed is negative")
    if len(status.disrupted_pods) > _DISRUPTED_PODS_MAX:
        because = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise apierrors.Forbidden.of(refused, name, because)
    if status.disruptions_allowed:
        return
    condition = next((one for one in status.conditions if one.type == "DisruptionAllowed"), None)
    told = condition is not None and condition.status == "False" and condition.message
    if told and condition is not None and condition.reason == "SyncFailed":
        text = (
            f"The disruption budget {name} does not allow evicting pods currently because it failed sync: "
            f"{condition.message}"
        )
    elif status.current_healthy <= status.desired_healthy:
        text = (
            f"The disruption budget {name} needs {status.desired_healthy} healthy pods and has "
            f"{status.current_healthy} currently"
        )
    elif told and condition is not None:
        text = (
            f"The disruption budget {name} does not allow evicting pods currently ({condition.reason}): "
            f"{condition.message}"
        )
    else:
        text = f"The disruption budget {name} does not allow evicting pods currently"
    causes = [meta.StatusCause(reason="DisruptionBudget", message=text)]
    raise apierrors.TooManyRequests(_REFUSAL, meta.StatusDetails(causes=causes))


def _set_not_allowed(budget: policy.PodDisruptionBudget, now: str) -> None:
    kept = [one for one in budget.status.conditions if one.type != "DisruptionAllowed"]
    before = next((one for one in budget.status.conditions if one.type == "DisruptionAllowed"), None)
    changed = before is None or before.status != "False"
    condition = meta.Condition(
        type="DisruptionAllowed",
        status="False",
        observed_generation=budget.status.observed_generation,
        last_transition_time=now if changed or before is None else before.last_transition_time,
        reason="InsufficientPods",
    )
    budget.status.conditions = [*kept, condition]


def _too_many(budget_name: str) -> apierrors.TooManyRequests:
    text = f"The disruption budget {budget_name} is still being processed by the server."
    causes = [meta.StatusCause(reason="DisruptionBudget", message=text)]
    return apierrors.TooManyRequests(_REFUSAL, meta.StatusDetails(causes=causes, retry_after_seconds=10))
