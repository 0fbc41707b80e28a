"""Answer ResourcePoolStatusRequests: how many devices of a driver's pools there are, and how many are taken.

A request is answered once, from what is published at that moment, and removed an hour later. Pools whose slices are
not all there yet get a moment; a request that meets such pools again and again stays without an answer.
Source: KEP-5677, https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from haven.api.resource import v1 as resource
from haven.api.resource import v1alpha3 as alpha
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.controllers.actions import Delete, Requeue, Retry, Steps, Update, Wiring

__all__ = ["ResourcePoolStatusRequestController", "pool_statuses", "status_of"]

LIMIT_DEFAULT = 100  # Pools in one answer.
ERROR_CHARACTERS_MAX = 256
TRIES_MAX = 5
FIRST_DELAY_SECONDS = 0.005
CLEAN_SECONDS = 600.0
ANSWERED_SECONDS_MAX = 3600.0
WAITING_SECONDS_MAX = 24 * 3600.0
COMPLETE, FAILED = "Complete", "Failed"
_CLEAN = ""  # A key that no request can have.
_REQUESTS = resource_of(alpha.ResourcePoolStatusRequest)


def pool_statuses(
    request: alpha.ResourcePoolStatusRequest,
    slices: Iterable[resource.ResourceSlice],
    claims: Iterable[resource.ResourceClaim],
) -> list[alpha.PoolStatus]:
    """Return the state of every pool that the request asks for, by name; slices of past generations do not count."""
    driver, wanted = request.spec.driver, request.spec.pool_name
    pools: dict[str, list[resource.ResourceSlice]] = {}
    for each in slices:
        pool = each.spec.pool
        if each.spec.driver != driver or (wanted and pool.name != wanted):
            continue
        held = pools.setdefault(pool.name, [])
        if held and held[0].spec.pool.generation > pool.generation:
            continue
        if held and held[0].spec.pool.generation < pool.generation:
            held.clear()
        held.append(each)
    taken = Counter(
        result.pool
        for claim in claims
        if claim.status.allocation is not None
        for result in claim.status.allocation.devices.results
        if result.driver == driver
    )
    return [_pool_status(driver, name, pools[name], taken[name]) for name in sorted(pools)]


def _pool_status(driver: str, name: str, held: list[resource.ResourceSlice], taken: int) -> alpha.PoolStatus:
    pool = held[0].spec.pool
    status = alpha.PoolStatus(driver=driver, pool_name=name, generation=pool.generation)
    nodes = {each.spec.node_name or "" for each in held}
    if len(nodes) == 1:
        status.node_name = nodes.pop() or None
    if len(held) < pool.resource_slice_count:
        seen = f"observed {len(held)}/{pool.resource_slice_count} slices at generation {pool.generation}"
        status.validation_error = f"pool {driver}/{name} is incomplete: {seen}"[:ERROR_CHARACTERS_MAX]
        return status
    total = sum(len(each.spec.devices) for each in held)
    status.resource_slice_count = len(held)
    status.total_devices = total
    status.allocated_devices = taken
    status.available_devices = max(0, total - taken)
    status.unavailable_devices = 0  # Upstream does not look at taints and conditions of devices yet.
    return status


def status_of(
    request: alpha.ResourcePoolStatusRequest, pools: list[alpha.PoolStatus], now_seconds: float
) -> alpha.ResourcePoolStatusRequestStatus:
    """Return the answer to a request; all pools are counted, those within its limit are shown."""
    limit = LIMIT_DEFAULT if request.spec.limit is None else request.spec.limit
    shown = pools[:limit]
    incomplete = sum(pool.validation_error is not None for pool in shown)
    message = f"Calculated status for {len(shown)} pools" + (f" ({incomplete} incomplete)" if incomplete else "")
    condition = meta.Condition(
        type=COMPLETE,
        status="True",
        last_transition_time=times.format_time(now_seconds),
        reason="CalculationComplete",
        message=message,
    )
    return alpha.ResourcePoolStatusRequestStatus(pool_count=len(pools), pools=shown, conditions=[condition])


class ResourcePoolStatusRequestController:
    """Keys are names of requests, and one that stands for removing old ones."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._slices = wiring.reader(resource.ResourceSlice)
        self._claims = wiring.reader(resource.ResourceClaim)
        self._requests = wiring.reader(alpha.ResourcePoolStatusRequest)
        self._tries: dict[str, int] = {}
        self._requests.add_handler(self._changed)
        wiring.enqueue(_CLEAN)

    def _changed(
        self, old: alpha.ResourcePoolStatusRequest | None, new: alpha.ResourcePoolStatusRequest | None
    ) -> None:
        if new is None:
            assert old is not None
            self._tries.pop(old.metadata.name, None)
        elif new.status is None:
            self._wiring.enqueue(new.metadata.name)

    def sync(self, key: str) -> Steps[None]:
        if key == _CLEAN:
            yield from self._clean()
            return
        request = self._requests.get("", key)
        if request is None or request.status is not None:
            self._tries.pop(key, None)
            return
        pools = pool_statuses(request, self._slices.list(), self._claims.list())
        status = status_of(request, pools, self._wiring.now_seconds())
        if any(pool.validation_error is not None for pool in status.pools):
            yield from self._try_later(key)
            return
        self._tries.pop(key, None)
        changed = serialization.copy(request)
        changed.status = status
        try:
            yield Update(changed, "status")
        except apierrors.NotFound:
            return

    def _try_later(self, name: str) -> Steps[None]:
        """Have a request looked at again, a few times; after that only a change of it brings it back."""
        tries = self._tries.get(name, 0)
        if tries < TRIES_MAX:
            self._tries[name] = tries + 1
            yield Requeue(FIRST_DELAY_SECONDS * 2**tries)
        else:
            del self._tries[name]

    def _clean(self) -> Steps[None]:
        yield Requeue(CLEAN_SECONDS)
        now = self._wiring.now_seconds()
        for request in self._requests.list():
            if not _is_old(request, now):
                continue
            try:
                yield Delete(_REQUESTS, "", request.metadata.name, uid=request.metadata.uid)
            except (apierrors.ApiError, Retry):
                continue  # The next round comes; one that resists must not hold up the others.


def _is_old(request: alpha.ResourcePoolStatusRequest, now_seconds: float) -> bool:
    since, patience = request.metadata.creation_timestamp, WAITING_SECONDS_MAX
    if request.status is not None:
        patience = ANSWERED_SECONDS_MAX
        ended = [each for each in request.status.conditions if each.type in (COMPLETE, FAILED)]
        since = ended[0].last_transition_time if ended else since
    return bool(since) and now_seconds - times.parse(since or "") > patience
