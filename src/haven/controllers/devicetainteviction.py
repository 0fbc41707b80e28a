"""Delete Pods that use devices with NoExecute taints which they do not bear, at once or when their patience ends.

A driver taints its devices in ResourceSlices; with the gate DRADeviceTaintRules operators do so by DeviceTaintRules,
whose status tells how many Pods have to go because of them.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#device-taints-and-tolerations
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from haven.api.core import v1 as core
from haven.api.resource import v1 as resource
from haven.api.resource import v1beta2
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.names import NamespacedName
from haven.client.interface import Patch, PatchType
from haven.controllers import pods
from haven.controllers.actions import Change, Delete, Emit, Requeue, Steps, Wiring, key_from
from haven.controllers.devicetaintrules import CONDITION, Counts, condition_of
from haven.controllers.resourceclaim import claims_of

__all__ = ["DeviceTaintEvictionController", "eviction_seconds", "selects", "tolerates"]

NO_EXECUTE = "NoExecute"
REASON = "DeviceTaintManagerEviction"
POOL = "device pool"
RULE_STATUS_SECONDS = 10.0
"""How often the status of a rule changes at most: counting looks at every Pod."""
_MANAGER = "device-taint-eviction"
_RULES = resource_of(v1beta2.DeviceTaintRule)
_PODS = resource_of(core.Pod)
Taint = resource.DeviceTaint | v1beta2.DeviceTaint


def tolerates(toleration: resource.DeviceToleration, taint: Taint) -> bool:
    """Tell whether a toleration bears a taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator in ("", "Equal"):
        return (toleration.value or "") == (taint.value or "")
    return toleration.operator == "Exists"


def eviction_seconds(result: resource.DeviceRequestAllocationResult, taints: Iterable[Taint]) -> float | None:
    """Return when (Unix time) a user of an allocated device has to go because of these NoExecute taints, or None."""
    when: float | None = None
    for taint in taints:
        since = times.parse(taint.time_added) if taint.time_added else 0.0
        bearing = [
            one.toleration_seconds for one in result.tolerations if one.effect == NO_EXECUTE and tolerates(one, taint)
        ]
        if any(seconds is None for seconds in bearing):
            continue
        patience = min((max(0, seconds) for seconds in bearing if seconds is not None), default=0)
        when = since + patience if when is None else min(when, since + patience)
    return when


def selects(rule: v1beta2.DeviceTaintRule, driver: str, pool: str, device: str) -> bool:
    """Tell whether a rule taints a device."""
    selector = rule.spec.device_selector
    if selector is None:
        return False
    pairs = ((selector.driver, driver), (selector.pool, pool), (selector.device, device))
    return all(wanted is None or wanted == found for wanted, found in pairs)


def _pool(driver: str, pool: str) -> str:
    return f"{driver}/{pool}"


def _pools_of_claim(claim: resource.ResourceClaim) -> Iterable[str]:
    allocation = claim.status.allocation
    return {_pool(one.driver, one.pool) for one in allocation.devices.results} if allocation is not None else ()


def _pools_of_slice(one: resource.ResourceSlice) -> Iterable[str]:
    return [_pool(one.spec.driver, one.spec.pool.name)]


class DeviceTaintEvictionController:
    """Keys are places of Pods, and without a namespace those of rules."""

    workers = 8

    def __init__(self, wiring: Wiring, *, with_rules: bool) -> None:
        self._wiring = wiring
        self._pods = wiring.reader(core.Pod)
        self._claims = wiring.reader(resource.ResourceClaim)
        self._slices = wiring.reader(resource.ResourceSlice)
        self._claims.add_index(POOL, _pools_of_claim)
        self._slices.add_index(POOL, _pools_of_slice)
        self._doomed: set[NamespacedName] = set()
        self._blamed: dict[NamespacedName, set[str]] = {}
        """The rules because of which Pods have to go, or went just now: their status changes with that."""
        self._evicted: dict[str, int] = {}
        """How many Pods went since this controller runs, by the UIDs of the rules."""
        self._pods.add_handler(self._pod_changed)
        self._claims.add_handler(self._claim_changed)
        self._slices.add_handler(self._slice_changed)
        self._rules = wiring.reader(v1beta2.DeviceTaintRule) if with_rules else None
        if self._rules is not None:
            self._rules.add_handler(self._rule_changed)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        pod = old if new is None else new
        if pod is None or (old is not None and new is not None and _uses(old) == _uses(new)):
            return
        if any(claims_of(pod)):
            self._wiring.enqueue(key_from(pod))

    def _claim_changed(self, old: resource.ResourceClaim | None, new: resource.ResourceClaim | None) -> None:
        if old is not None and new is not None and old.status == new.status:
            return
        for claim in (old, new):
            if claim is not None:
                self._enqueue_users(claim)

    def _slice_changed(self, old: resource.ResourceSlice | None, new: resource.ResourceSlice | None) -> None:
        if old is not None and new is not None and old.spec == new.spec:
            return
        for pool in {pool for one in (old, new) if one is not None for pool in _pools_of_slice(one)}:
            for claim in self._claims.indexed(POOL, pool):
                self._enqueue_users(claim)

    def _rule_changed(self, old: v1beta2.DeviceTaintRule | None, new: v1beta2.DeviceTaintRule | None) -> None:
        if old is not None and new is not None and old.spec == new.spec:
            return
        if new is not None:
            self._wiring.enqueue(NamespacedName("", new.metadata.name))
        rules = [one for one in (old, new) if one is not None]
        for claim in self._claims.list():
            allocation = claim.status.allocation
            results = allocation.devices.results if allocation is not None else ()
            if any(selects(rule, one.driver, one.pool, one.device) for rule in rules for one in results):
                self._enqueue_users(claim)

    def _enqueue_users(self, claim: resource.ResourceClaim) -> None:
        for user in claim.status.reserved_for:
            if user.resource == "pods" and not user.api_group:
                self._wiring.enqueue(NamespacedName(claim.metadata.namespace, user.name))

    def sync(self, key: NamespacedName) -> Steps[None]:
        if not key.namespace:
            yield from self._report(key)
            return
        pod = self._pods.get(key.namespace, key.name)
        when = self._when(pod) if pod is not None else None
        self._blame(key, pod)
        if pod is None or when is None:
            if key in self._doomed:
                self._doomed.discard(key)
                if pod is not None:
                    yield Emit(_reference(pod), "Normal", REASON, "Cancelling deletion")
            return
        left = when - self._wiring.now_seconds()
        if left > 0:
            self._doomed.add(key)
            yield Requeue(left)
            return
        self._doomed.discard(key)
        if pod.metadata.deletion_timestamp is None:
            yield from self._evict(key, pod)

    def _when(self, pod: core.Pod) -> float | None:
        """Return when a Pod has to go, or None."""
        moments = (eviction_seconds(one, self._taints(one)) for one in self._devices(pod))
        return min((moment for moment in moments if moment is not None), default=None)

    def _devices(self, pod: core.Pod) -> Iterator[resource.DeviceRequestAllocationResult]:
        """Return the devices that a Pod on a node uses."""
        if not pod.spec.node_name:
            return
        for name in claims_of(pod):
            claim = self._claims.get(pod.metadata.namespace, name)
            allocation = claim.status.allocation if claim is not None else None
            if claim is None or allocation is None:
                continue
            if not any(user.uid == pod.metadata.uid for user in claim.status.reserved_for):
                continue  # It is another Pod's, perhaps of one that had this name before.
            yield from allocation.devices.results

    def _is_driven_by(self, rule: v1beta2.DeviceTaintRule, pod: core.Pod) -> bool:
        """Tell whether a Pod has to go because of a rule, now or later, if the rule's effect is NoExecute."""
        taint = rule.spec.taint
        if taint.effect != NO_EXECUTE:
            taint = serialization.copy(taint)
            taint.effect = NO_EXECUTE
        return any(
            selects(rule, one.driver, one.pool, one.device) and eviction_seconds(one, [taint]) is not None
            for one in self._devices(pod)
        )

    def _blame(self, key: NamespacedName, pod: core.Pod | None) -> None:
        """Have the rules that drive a Pod away report again, and those that did until now."""
        if self._rules is None:
            return
        before = self._blamed.pop(key, set())
        now: set[str] = set()
        if pod is not None:
            executing = (one for one in self._rules.list() if one.spec.taint.effect == NO_EXECUTE)
            now = {one.metadata.name for one in executing if self._is_driven_by(one, pod)}
        if now:
            self._blamed[key] = now
        for name in sorted(before ^ now):
            self._wiring.enqueue(NamespacedName("", name))

    def _report(self, key: NamespacedName) -> Steps[None]:
        """Write into a rule's status what it does."""
        rule = self._rules.get("", key.name) if self._rules is not None else None
        if rule is None:
            return
        now = self._wiring.now_seconds()
        known = next((one for one in rule.status.conditions if one.type == CONDITION), None)
        if known is not None and known.observed_generation == rule.metadata.generation and known.last_transition_time:
            left = RULE_STATUS_SECONDS - (now - times.parse(known.last_transition_time))
            if left > 0:
                yield Requeue(left)
                return
        condition = condition_of(rule, self._counts(rule))
        condition.last_transition_time = known.last_transition_time if known is not None else None
        if condition.status == "True":
            yield Requeue(RULE_STATUS_SECONDS)
        if condition == known:
            return
        condition.last_transition_time = times.format_time(now)
        body = {
            "apiVersion": rule.api_version,
            "kind": rule.kind,
            "metadata": {"name": key.name, "uid": rule.metadata.uid},
            "status": {"conditions": [serialization.to_tree(condition)]},
        }
        patch = Patch(PatchType.APPLY, body, field_manager=_MANAGER, force=True)
        try:
            yield Change(_RULES, "", key.name, patch, "status")
        except (apierrors.NotFound, apierrors.Conflict):
            return  # It is gone, perhaps with another of its name in its place.

    def _counts(self, rule: v1beta2.DeviceTaintRule) -> Counts:
        evicted = self._evicted.get(rule.metadata.uid, 0)
        if rule.spec.taint.effect not in (NO_EXECUTE, "None"):
            return Counts(evicted=evicted)
        driven = [
            one.metadata.namespace
            for one in self._pods.list()
            if one.metadata.deletion_timestamp is None and self._is_driven_by(rule, one)
        ]
        published = allocated = 0
        if rule.spec.taint.effect == "None":
            newest: dict[str, int] = {}
            for one in self._slices.list():
                pool = _pool(one.spec.driver, one.spec.pool.name)
                newest[pool] = max(newest.get(pool, 0), one.spec.pool.generation)
            for one in self._slices.list():
                driver, pool = one.spec.driver, one.spec.pool.name
                if one.spec.pool.generation == newest[_pool(driver, pool)]:
                    published += sum(selects(rule, driver, pool, device.name) for device in one.spec.devices)
            for claim in self._claims.list():
                results = claim.status.allocation.devices.results if claim.status.allocation is not None else ()
                allocated += sum(selects(rule, one.driver, one.pool, one.device) for one in results)
        return Counts(len(driven), len(set(driven)), evicted, published, allocated)

    def _taints(self, result: resource.DeviceRequestAllocationResult) -> Iterator[Taint]:
        slices = self._slices.indexed(POOL, _pool(result.driver, result.pool))
        newest = max((one.spec.pool.generation for one in slices), default=0)
        for one in slices:
            if one.spec.pool.generation != newest:
                continue  # What an older generation says is out of date.
            for device in one.spec.devices:
                if device.name == result.device:
                    yield from (taint for taint in device.taints if taint.effect == NO_EXECUTE)
        for rule in self._rules.list() if self._rules is not None else ():
            if rule.spec.taint.effect == NO_EXECUTE and selects(rule, result.driver, result.pool, result.device):
                yield rule.spec.taint

    def _evict(self, key: NamespacedName, pod: core.Pod) -> Steps[None]:
        yield Emit(_reference(pod), "Normal", REASON, "Marking for deletion")
        condition = pods.condition_tree(
            pod,
            "DisruptionTarget",
            "DeletionByDeviceTaintManager",
            "Device Taint manager: deleting due to NoExecute taint",
            self._wiring.now_seconds(),
        )
        body = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            yield Change(_PODS, key.namespace, key.name, Patch(PatchType.STRATEGIC, body), "status")
        except (apierrors.NotFound, apierrors.Conflict):
            return  # It is gone, perhaps with another of its name in its place.
        yield Delete(_PODS, key.namespace, key.name, uid=pod.metadata.uid)
        for name in self._blamed.get(key, ()):
            rule = self._rules.get("", name) if self._rules is not None else None
            if rule is not None:
                self._evicted[rule.metadata.uid] = self._evicted.get(rule.metadata.uid, 0) + 1
                self._wiring.enqueue(NamespacedName("", name))


def _uses(pod: core.Pod) -> object:
    return (pod.metadata.uid, pod.spec.node_name, list(claims_of(pod)))


def _reference(pod: core.Pod) -> core.ObjectReference:
    metadata = pod.metadata
    return core.ObjectReference(
        api_version="v1", kind="Pod", namespace=metadata.namespace, name=metadata.name, uid=metadata.uid
    )
