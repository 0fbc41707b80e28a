"""What admission plugins change and refuse, in upstream's words."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.core.quotausage import calculate
from haven.api.node import v1 as node
from haven.api.scheduling import v1 as scheduling
from haven.api.storage import v1 as storage
from haven.apimachinery import meta, serialization
from haven.apimachinery.apierrors import ApiError, Conflict, Forbidden, Invalid, NotFound
from haven.apimachinery.quantity import Quantity
from haven.apiserver.admission.chain import ORDER, AdmissionChain
from haven.apiserver.admission.interface import CREATE, DELETE, UPDATE, AdmissionRequest
from haven.apiserver.admission.plugins import DEFAULT, AdmissionSettings, Parts, make_plugins
from haven.apiserver.admission.policies.plugins import PolicyAdmission, WebhookConditions
from haven.apiserver.admission.tolerations import merge_tolerations
from haven.apiserver.admission.versions import ServedVersions
from haven.apiserver.admission.webhooks.plugins import WebhookAdmission
from haven.apiserver.authorization.rbac import RBAC
from haven.apiserver.request import UserInfo
from haven.apiserver.webhooks.caller import WebhookCaller
from haven.apiserver.webhooks.services import ClusterAddresses
from haven.clock import FakeClock

USER = UserInfo("jane")
NODE = UserInfo("system:node:n1", groups=("system:nodes",))


@pytest.fixture
def chain(objects: Any) -> AdmissionChain:
    put_namespace(objects)
    objects.put(core.ServiceAccount(metadata=meta.ObjectMeta(namespace="ns", name="default")))
    return AdmissionChain(
        make_plugins(
            Parts(objects, RBAC(), FakeClock(), random.Random(7), without_webhooks(objects), without_policies(objects))
        )
    )


def without_policies(objects: Any) -> PolicyAdmission:
    return PolicyAdmission(objects, ServedVersions(), RBAC())


def without_webhooks(objects: Any) -> WebhookAdmission:
    caller = WebhookCaller(ClusterAddresses(objects))
    return WebhookAdmission(objects, ServedVersions(), caller, WebhookConditions(RBAC()), FakeClock())


def put_namespace(objects: Any, **labels: str) -> core.Namespace:
    namespace = core.Namespace(metadata=meta.ObjectMeta(name="ns", labels=labels))
    namespace.status.phase = "Active"
    return objects.put(namespace)


def a_request(obj: Any, old: Any = None, *, operation: str = "", subresource: str = "", **more: Any) -> Any:
    resource = scheme.resource_of(type(obj if obj is not None else old))
    metadata = (obj if obj is not None else old).metadata
    values: dict[str, Any] = {"namespace": metadata.namespace, "name": metadata.name, "user": USER, **more}
    operation = operation or (UPDATE if old is not None else CREATE)
    return AdmissionRequest(operation, resource, subresource, object=obj, old=old, **values)


async def admitted(chain: AdmissionChain, request: Any) -> Any:
    await chain.admit(request)
    await chain.validate(request)
    return request.object


async def refusal(chain: AdmissionChain, request: Any) -> str:
    with pytest.raises(ApiError) as refused:
        await admitted(chain, request)
    return refused.value.message


def a_container(name: str = "c", **fields: Any) -> core.Container:
    return core.Container(name=name, image="i", **fields)


def amounts(**values: str) -> dict[str, Quantity]:
    return {name.replace("_", "."): Quantity.parse(value) for name, value in values.items()}


def a_pod(name: str = "a", **spec: Any) -> core.Pod:
    spec.setdefault("containers", [a_container()])
    return core.Pod(metadata=meta.ObjectMeta(namespace="ns", name=name), spec=core.PodSpec(**spec))


def test_every_default_plugin_runs_at_its_place(chain: AdmissionChain) -> None:
    names = [plugin.name for plugin in chain.plugins]

    assert set(names) == DEFAULT | {"NodeRestriction"}
    assert names == sorted(names, key=ORDER.index)
    assert names[0] == "NamespaceLifecycle"
    assert names[-1] == "ResourceQuota"


async def test_nothing_is_created_where_the_namespace_is_missing_or_going(chain: AdmissionChain, objects: Any) -> None:
    config_map = core.ConfigMap(metadata=meta.ObjectMeta(namespace="missing", name="m"))
    with pytest.raises(NotFound, match='namespaces "missing" not found'):
        await admitted(chain, a_request(config_map))

    namespace = serialization.copy(objects.get(scheme.resource_of(core.Namespace), "", "ns"))
    namespace.status.phase = "Terminating"
    objects.put(namespace)
    config_map.metadata.namespace = "ns"
    with pytest.raises(Forbidden) as refused:
        await admitted(chain, a_request(config_map))
    assert refused.value.message == (
        'configmaps "m" is forbidden: unable to create new content in namespace ns because it is being terminated'
    )
    assert refused.value.details is not None
    assert refused.value.details.causes[0].reason == "NamespaceTerminating"


async def test_the_default_namespace_is_not_deleted(chain: AdmissionChain) -> None:
    namespace = core.Namespace(metadata=meta.ObjectMeta(name="default"))

    message = await refusal(chain, a_request(None, namespace, operation=DELETE))

    assert message == 'namespaces "default" is forbidden: this namespace may not be deleted'


async def test_a_pod_gets_account_token_priority_and_tolerations(chain: AdmissionChain) -> None:
    pod = await admitted(chain, a_request(a_pod()))

    assert pod.spec.service_account_name == pod.spec.service_account == "default"
    volume = pod.spec.volumes[0]
    assert volume.name.startswith("kube-api-access-")
    assert len(volume.name) == len("kube-api-access-") + 5
    assert serialization.to_tree(volume.projected) == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
            {
                "downwardAPI": {
                    "items": [
                        {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}
                    ]
                }
            },
        ],
    }
    assert pod.spec.containers[0].volume_mounts[0].read_only
    assert pod.spec.priority == 0
    assert pod.spec.preemption_policy == "PreemptLowerPriority"
    assert [(item.key, item.toleration_seconds) for item in pod.spec.tolerations] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]


async def test_a_pod_of_a_missing_account_is_refused(chain: AdmissionChain) -> None:
    message = await refusal(chain, a_request(a_pod(service_account_name="nosuch")))

    assert message == (
        'pods "a" is forbidden: error looking up service account ns/nosuch: serviceaccount "nosuch" not found'
    )


async def test_mirror_pods_use_neither_accounts_nor_secrets(chain: AdmissionChain) -> None:
    mirror = {"kubernetes.io/config.mirror": "x"}
    pod = a_pod(service_account_name="default")
    pod.metadata.annotations = mirror
    assert await refusal(chain, a_request(pod)) == (
        'pods "a" is forbidden: a mirror pod may not reference service accounts'
    )
    pod = a_pod(volumes=[core.Volume(name="v", secret=core.SecretVolumeSource(secret_name="s"))])
    pod.metadata.annotations = mirror
    assert await refusal(chain, a_request(pod)) == 'pods "a" is forbidden: a mirror pod may not reference secrets'


async def test_priority_comes_from_the_class_only(chain: AdmissionChain, objects: Any) -> None:
    objects.put(scheduling.PriorityClass(metadata=meta.ObjectMeta(name="high"), value=77, preemption_policy="Never"))

    pod = await admitted(chain, a_request(a_pod(priority_class_name="high")))

    assert (pod.spec.priority, pod.spec.preemption_policy) == (77, "Never")
    assert await refusal(chain, a_request(a_pod(priority_class_name="nosuch"))) == (
        'pods "a" is forbidden: no PriorityClass with name nosuch was found'
    )
    assert await refusal(chain, a_request(a_pod(priority=5))) == (
        'pods "a" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission'
        " controller computed 0 from the given PriorityClass name"
    )


async def test_a_runtime_class_adds_overhead_and_scheduling(chain: AdmissionChain, objects: Any) -> None:
    objects.put(
        node.RuntimeClass(
            metadata=meta.ObjectMeta(name="rt"),
            handler="h",
            overhead=node.Overhead(pod_fixed=amounts(cpu="250m")),
            scheduling=node.Scheduling(
                node_selector={"rt": "h"}, tolerations=[core.Toleration(key="rt", operator="Exists")]
            ),
        )
    )

    pod = await admitted(chain, a_request(a_pod(runtime_class_name="rt")))

    assert (pod.spec.overhead, pod.spec.node_selector) == (amounts(cpu="250m"), {"rt": "h"})
    assert [item.key for item in pod.spec.tolerations][-1] == "rt"
    assert await refusal(chain, a_request(a_pod(runtime_class_name="rt", node_selector={"rt": "x"}))) == (
        'pods "a" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[rt] = h; pod.spec.nodeSelector[rt] = x'
    )
    assert await refusal(chain, a_request(a_pod(overhead=amounts(cpu="1m")))) == (
        'pods "a" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead'
    )


def test_merged_tolerations_keep_the_wider_ones() -> None:
    wide = core.Toleration(operator="Exists")
    narrow = core.Toleration(key="k", operator="Equal", value="v", effect="NoSchedule")

    assert merge_tolerations([narrow], [wide]) == [wide]
    assert merge_tolerations([narrow], [narrow]) == [narrow]


async def test_a_limit_range_fills_in_and_bounds(chain: AdmissionChain, objects: Any) -> None:
    limit_range = core.LimitRange(metadata=meta.ObjectMeta(namespace="ns", name="l"))
    limit_range.spec.limits = [
        core.LimitRangeItem(
            type="Container",
            default=amounts(cpu="500m", memory="256Mi"),
            default_request=amounts(cpu="100m", memory="256Mi"),
            max=amounts(cpu="1"),
            max_limit_request_ratio=amounts(cpu="5"),
        )
    ]
    objects.put(limit_range)

    pod = await admitted(chain, a_request(a_pod()))

    assert pod.spec.containers[0].resources.limits == amounts(cpu="500m", memory="256Mi")
    assert pod.metadata.annotations["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    )
    greedy = a_container(resources=core.ResourceRequirements(limits=amounts(cpu="2"), requests=amounts(cpu="200m")))
    assert await refusal(chain, a_request(a_pod(containers=[greedy]))) == (
        'pods "a" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, cpu max limit to request ratio'
        " per Container is 5, but provided ratio is 10.000000]"
    )


# ---- quota


def put_quota(objects: Any, hard: dict[str, Quantity], **spec: Any) -> core.ResourceQuota:
    quota = core.ResourceQuota(metadata=meta.ObjectMeta(namespace="ns", name="q"))
    quota.spec = core.ResourceQuotaSpec(hard=hard, **spec)
    quota.status = core.ResourceQuotaStatus(hard=hard, used=dict.fromkeys(hard, Quantity.ZERO))
    return objects.put(quota)


def used(objects: Any) -> dict[str, str]:
    quota = objects.get(scheme.resource_of(core.ResourceQuota), "ns", "q")
    return {name: str(amount) for name, amount in quota.status.used.items()}


def asking(cpu: str, memory: str) -> core.Container:
    return a_container(resources=core.ResourceRequirements(requests=amounts(cpu=cpu), limits=amounts(memory=memory)))


async def test_a_quota_of_compute_needs_requests_and_sums_them(chain: AdmissionChain, objects: Any) -> None:
    put_quota(objects, amounts(requests_cpu="1", limits_memory="1Gi", pods="2"))

    assert await refusal(chain, a_request(a_pod())) == (
        'pods "a" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c'
    )
    await admitted(chain, a_request(a_pod(containers=[asking("600m", "512Mi")])))
    assert used(objects) == {"requests.cpu": "600m", "limits.memory": "512Mi", "pods": "1"}
    assert await refusal(chain, a_request(a_pod("b", containers=[asking("600m", "512Mi")]))) == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m,'
        " limited: requests.cpu=1"
    )
    await admitted(chain, a_request(a_pod("b", containers=[asking("100m", "512Mi")])))
    assert await refusal(chain, a_request(a_pod("c", containers=[asking("100m", "1Mi")]))) == (
        'pods "c" is forbidden: exceeded quota: q, requested: limits.memory=1Mi,pods=1, used: limits.memory=1Gi,pods=2,'
        " limited: limits.memory=1Gi,pods=2"
    )


async def test_requests_at_the_same_moment_never_exceed_a_quota(chain: AdmissionChain, objects: Any) -> None:
    put_quota(objects, {"count/configmaps": Quantity.of(5)})
    config_maps = [core.ConfigMap(metadata=meta.ObjectMeta(namespace="ns", name=f"m{index}")) for index in range(20)]

    results = await asyncio.gather(*(admitted(chain, a_request(obj)) for obj in config_maps), return_exceptions=True)

    assert sum(isinstance(result, Forbidden) for result in results) == 15
    assert used(objects) == {"count/configmaps": "5"}


async def test_a_quota_that_changes_meanwhile_is_judged_again(chain: AdmissionChain, objects: Any) -> None:
    put_quota(objects, {"secrets": Quantity.of(2)})
    original = objects.update_status
    disturbed = []

    async def disturb(resource: Any, obj: Any) -> Any:
        if not disturbed:
            disturbed.append(True)
            rival = serialization.copy(objects.get(resource, "ns", "q"))
            rival.status.used = {"secrets": Quantity.of(2)}
            objects.put(rival)
        return await original(resource, obj)

    objects.update_status = disturb
    secret = core.Secret(metadata=meta.ObjectMeta(namespace="ns", name="s"))

    assert await refusal(chain, a_request(secret)) == (
        'secrets "s" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=2, limited: secrets=2'
    )


async def test_a_quota_that_always_changes_ends_in_a_conflict(chain: AdmissionChain, objects: Any) -> None:
    put_quota(objects, {"secrets": Quantity.of(2)})

    async def conflict(resource: Any, obj: Any) -> Any:
        raise Conflict.of(resource.group_resource, obj.metadata.name, "busy")

    objects.update_status = conflict
    with pytest.raises(Conflict):
        await admitted(chain, a_request(core.Secret(metadata=meta.ObjectMeta(namespace="ns", name="s"))))


async def test_scopes_choose_what_counts_and_dry_runs_reserve_nothing(chain: AdmissionChain, objects: Any) -> None:
    put_quota(objects, amounts(pods="1"), scopes=["BestEffort"])

    await admitted(chain, a_request(a_pod(containers=[asking("1m", "1Mi")])))
    await admitted(chain, a_request(a_pod(), dry_run=True))
    assert used(objects) == {"pods": "0"}
    await admitted(chain, a_request(a_pod()))
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in await refusal(
        chain, a_request(a_pod("b"))
    )


def test_the_sum_of_what_is_there_is_what_requests_reserve(objects: Any) -> None:
    quota = put_quota(objects, amounts(requests_cpu="4", pods="9") | {"count/configmaps": Quantity.of(3)})
    by_resource = {
        "pods": [a_pod("a", containers=[asking("600m", "1Mi")]), a_pod("b", containers=[asking("100m", "1Mi")])],
        "configmaps": [core.ConfigMap()],
    }

    total = calculate(quota, lambda resource: by_resource.get(resource.resource, []), 0.0)

    assert {name: str(amount) for name, amount in total.items()} == {
        "requests.cpu": "700m",
        "pods": "2",
        "count/configmaps": "1",
    }


# ---- storage, nodes


async def test_claims_get_the_newest_default_class_and_a_finalizer(chain: AdmissionChain, objects: Any) -> None:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    for name, created in (("old", "2020-01-01T00:00:00Z"), ("new", "2021-01-01T00:00:00Z")):
        metadata = meta.ObjectMeta(name=name, annotations=default, creation_timestamp=created)
        objects.put(storage.StorageClass(metadata=metadata, provisioner="p"))

    claim = await admitted(
        chain, a_request(core.PersistentVolumeClaim(metadata=meta.ObjectMeta(namespace="ns", name="c")))
    )

    assert claim.spec.storage_class_name == "new"
    assert claim.metadata.finalizers == ["kubernetes.io/pvc-protection"]


async def test_a_node_is_tainted_when_it_is_born(chain: AdmissionChain) -> None:
    born = await admitted(chain, a_request(core.Node(metadata=meta.ObjectMeta(name="n1")), user=NODE))

    assert [(taint.key, taint.effect) for taint in born.spec.taints] == [("node.kubernetes.io/not-ready", "NoSchedule")]


async def test_a_kubelet_writes_its_own_node_only(chain: AdmissionChain, objects: Any) -> None:
    other = core.Node(metadata=meta.ObjectMeta(name="n2"))
    assert await refusal(chain, a_request(other, user=NODE)) == (
        'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
    )
    labels = {"node-restriction.kubernetes.io/x": "y", "kubernetes.io/hostname": "h", "node.kubernetes.io/own": "z"}
    labelled = core.Node(metadata=meta.ObjectMeta(name="n1", labels=labels))
    assert await refusal(chain, a_request(labelled, user=NODE)) == (
        'nodes "n1" is forbidden: node "n1" is not allowed to set the following labels:'
        " node-restriction.kubernetes.io/x"
    )
    pod = a_pod(node_name="n2")
    pod.metadata.uid = "u"  # type: ignore[assignment]
    objects.put(pod)
    assert await refusal(chain, a_request(None, pod, operation=DELETE, user=NODE)) == (
        'pods "a" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself'
    )
    assert "can only create mirror pods" in await refusal(chain, a_request(a_pod(node_name="n1"), user=NODE))


# ---- pod security


async def test_the_baseline_refuses_hosts_and_the_restricted_level_asks_for_more(
    chain: AdmissionChain, objects: Any
) -> None:
    put_namespace(objects, **{"pod-security.kubernetes.io/enforce": "baseline"})
    await admitted(chain, a_request(a_pod()))
    assert await refusal(chain, a_request(a_pod(host_network=True, host_pid=True))) == (
        'pods "a" is forbidden: violates PodSecurity "baseline:latest": host namespaces'
        " (hostNetwork=true, hostPID=true)"
    )
    put_namespace(objects, **{"pod-security.kubernetes.io/enforce": "restricted"})
    assert await refusal(chain, a_request(a_pod())) == (
        'pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container'
        ' "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must'
        ' set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set'
        ' securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set'
        ' securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )
    context = core.SecurityContext(
        allow_privilege_escalation=False,
        capabilities=core.Capabilities(drop=["ALL"]),
        run_as_non_root=True,
        seccomp_profile=core.SeccompProfile(type="RuntimeDefault"),
    )
    await admitted(chain, a_request(a_pod(containers=[a_container(security_context=context)])))


async def test_a_namespace_with_an_unknown_level_is_refused_and_a_stricter_one_warns(
    chain: AdmissionChain, objects: Any
) -> None:
    old = put_namespace(objects)
    wrong = serialization.copy(old)
    wrong.metadata.labels = {"pod-security.kubernetes.io/enforce": "strictest"}
    with pytest.raises(Invalid) as refused:
        await admitted(chain, a_request(wrong, old))
    assert refused.value.message == (
        'Namespace "ns" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strictest":'
        " must be one of privileged, baseline, restricted"
    )
    for name in ("a", "b"):
        objects.put(a_pod(name, host_pid=True))
    stricter = serialization.copy(old)
    stricter.metadata.labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    request = a_request(stricter, old)
    await admitted(chain, request)
    assert request.warnings == [
        'existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 1 other pod): host namespaces",
    ]


def test_unknown_plugins_are_refused(objects: Any) -> None:
    wrong = AdmissionSettings(enabled=["Nosuch"])
    with pytest.raises(ValueError, match='enable-admission-plugins plugin "Nosuch" is unknown'):
        make_plugins(
            Parts(
                objects,
                RBAC(),
                FakeClock(),
                random.Random(1),
                without_webhooks(objects),
                without_policies(objects),
                wrong,
            )
        )
