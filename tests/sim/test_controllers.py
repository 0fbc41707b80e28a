"""Controllers against the real API server, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.sim.hollow import Cluster, a_template, running_cluster

from haven.api.apps import v1 as apps
from haven.api.batch import v1 as batch
from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.api.scheme import resource_of
from haven.apimachinery import meta

LABELS = {"app": "web"}
SELECTOR = meta.LabelSelector(match_labels=LABELS)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as running:
        yield running


def a_deployment(replicas: int = 3, **strategy: object) -> apps.Deployment:
    return apps.Deployment(
        metadata=meta.ObjectMeta(name="web", namespace="default"),
        spec=apps.DeploymentSpec(
            replicas=replicas,
            selector=SELECTOR,
            template=a_template(LABELS),
            strategy=apps.DeploymentStrategy(
                type="RollingUpdate",
                rolling_update=apps.RollingUpdateDeployment(max_surge="25%", max_unavailable="25%"),
            ),
            revision_history_limit=10,
            progress_deadline_seconds=600,
        ),
    )


async def test_a_deployment_gets_its_pods_and_says_so(cluster: Cluster) -> None:
    await cluster.create(a_deployment())

    async def is_available() -> bool:
        return (await cluster.get(apps.Deployment, "web")).status.available_replicas == 3

    await cluster.wait(is_available)
    status = (await cluster.get(apps.Deployment, "web")).status
    assert {each.type: each.reason for each in status.conditions} == {
        "Available": "MinimumReplicasAvailable",
        "Progressing": "NewReplicaSetAvailable",
    }
    messages = [event.message for event in await cluster.events("ScalingReplicaSet")]
    assert len(messages) == 1
    assert messages[0].startswith("Scaled up replica set web-")
    assert messages[0].endswith(" from 0 to 3")


async def test_a_new_template_replaces_every_pod_and_the_old_set_stays_for_rollback(cluster: Cluster) -> None:
    await cluster.create(a_deployment())

    async def is_available() -> bool:
        status = (await cluster.get(apps.Deployment, "web")).status
        return status.available_replicas == status.updated_replicas == status.replicas == 3

    await cluster.wait(is_available)

    def roll(deployment: apps.Deployment) -> None:
        deployment.spec.template.spec.containers[0].image = "two"

    generation = (await cluster.change(apps.Deployment, "web", roll)).metadata.generation

    async def is_rolled() -> bool:
        deployment = await cluster.get(apps.Deployment, "web")
        images = {pod.spec.containers[0].image for pod in await cluster.list(core.Pod)}
        return deployment.status.observed_generation >= generation and images == {"two"} and await is_available()

    await cluster.wait(is_rolled)
    sets = await cluster.list(apps.ReplicaSet)
    assert sorted(each.spec.replicas or 0 for each in sets) == [0, 3]
    revisions = {each.metadata.annotations["deployment.kubernetes.io/revision"] for each in sets}
    assert revisions == {"1", "2"}


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_what_a_deleted_deployment_owns_goes_too(cluster: Cluster, policy: str) -> None:
    await cluster.create(a_deployment())

    async def has_pods() -> bool:
        return len(await cluster.list(core.Pod)) == 3

    await cluster.wait(has_pods)

    await cluster.delete(apps.Deployment, "web", policy)

    async def is_empty() -> bool:
        kinds = (apps.Deployment, apps.ReplicaSet, core.Pod)
        return not any([await cluster.list(kind) for kind in kinds])

    await cluster.wait(is_empty)


async def test_orphans_outlive_their_owner(cluster: Cluster) -> None:
    await cluster.create(a_deployment())

    async def has_pods() -> bool:
        return len(await cluster.list(core.Pod)) == 3

    await cluster.wait(has_pods)

    await cluster.delete(apps.Deployment, "web", "Orphan")

    async def is_orphaned() -> bool:
        sets = await cluster.list(apps.ReplicaSet)
        is_gone = not await cluster.list(apps.Deployment)
        return is_gone and [each.metadata.owner_references for each in sets] == [[]]

    await cluster.wait(is_orphaned)
    assert len(await cluster.list(core.Pod)) == 3


async def test_a_stateful_set_makes_its_pods_in_order_and_rolls_from_the_last(cluster: Cluster) -> None:
    await cluster.create(
        apps.StatefulSet(
            metadata=meta.ObjectMeta(name="db", namespace="default"),
            spec=apps.StatefulSetSpec(
                replicas=3,
                selector=SELECTOR,
                template=a_template(LABELS),
                service_name="db",
                pod_management_policy="OrderedReady",
                update_strategy=apps.StatefulSetUpdateStrategy(
                    type="RollingUpdate", rolling_update=apps.RollingUpdateStatefulSetStrategy(partition=0)
                ),
                revision_history_limit=10,
            ),
        )
    )

    async def is_ready() -> bool:
        status = (await cluster.get(apps.StatefulSet, "db")).status
        return status.ready_replicas == 3 and status.current_revision == status.update_revision

    await cluster.wait(is_ready)
    assert await cluster.names(core.Pod) == ["db-0", "db-1", "db-2"]
    created = [event.message for event in await cluster.events("SuccessfulCreate")]
    assert created == [f"Create Pod db-{number} in StatefulSet db successful" for number in range(3)]

    def roll(owner: apps.StatefulSet) -> None:
        owner.spec.template.spec.containers[0].image = "two"

    await cluster.change(apps.StatefulSet, "db", roll)

    async def is_rolled() -> bool:
        images = {pod.spec.containers[0].image for pod in await cluster.list(core.Pod)}
        return images == {"two"} and await is_ready()

    await cluster.wait(is_rolled)
    deleted = [event.message for event in await cluster.events("SuccessfulDelete")]
    assert deleted == [f"Delete Pod db-{number} in StatefulSet db successful" for number in (2, 1, 0)]


async def test_a_daemon_set_runs_on_every_node(cluster: Cluster) -> None:
    await cluster.create(
        apps.DaemonSet(
            metadata=meta.ObjectMeta(name="agent", namespace="default"),
            spec=apps.DaemonSetSpec(
                selector=SELECTOR,
                template=a_template(LABELS),
                update_strategy=apps.DaemonSetUpdateStrategy(
                    type="RollingUpdate", rolling_update=apps.RollingUpdateDaemonSet(max_unavailable=1, max_surge=0)
                ),
                revision_history_limit=10,
            ),
        )
    )

    async def is_ready() -> bool:
        status = (await cluster.get(apps.DaemonSet, "agent")).status
        return status.desired_number_scheduled == status.number_available == 1

    await cluster.wait(is_ready)
    pods = await cluster.list(core.Pod)
    assert [pod.spec.node_name for pod in pods] == ["node-0"]
    keys = {toleration.key for toleration in pods[0].spec.tolerations}
    assert {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"} <= keys


def a_job(name: str, code: str, **spec: object) -> batch.Job:
    template = a_template({"job": name}, run_seconds="0", exit_code=code)
    template.spec.restart_policy = "Never"
    return batch.Job(
        metadata=meta.ObjectMeta(name=name, namespace="default"),
        spec=batch.JobSpec(template=template, **spec),  # type: ignore[arg-type]
    )


async def test_a_job_is_complete_when_its_pods_succeeded(cluster: Cluster) -> None:
    await cluster.create(a_job("sum", "0", completions=4, parallelism=2, backoff_limit=6))

    async def is_complete() -> bool:
        conditions = (await cluster.get(batch.Job, "sum")).status.conditions
        return any(each.type == "Complete" and each.status == "True" for each in conditions)

    await cluster.wait(is_complete)
    status = (await cluster.get(batch.Job, "sum")).status
    assert (status.succeeded, status.failed, status.active) == (4, 0, 0)
    assert [each.type for each in status.conditions] == ["SuccessCriteriaMet", "Complete"]
    assert not any(pod.metadata.finalizers for pod in await cluster.list(core.Pod))


async def test_an_indexed_job_runs_every_index_once(cluster: Cluster) -> None:
    await cluster.create(a_job("map", "0", completions=3, parallelism=3, completion_mode="Indexed", backoff_limit=6))

    async def is_complete() -> bool:
        return (await cluster.get(batch.Job, "map")).status.completion_time is not None

    await cluster.wait(is_complete)
    assert (await cluster.get(batch.Job, "map")).status.completed_indexes == "0-2"


async def test_a_job_without_retries_fails_with_its_pod(cluster: Cluster) -> None:
    await cluster.create(a_job("bad", "1", completions=1, parallelism=1, backoff_limit=0))

    async def is_failed() -> bool:
        conditions = (await cluster.get(batch.Job, "bad")).status.conditions
        return any(each.type == "Failed" for each in conditions)

    await cluster.wait(is_failed)
    status = (await cluster.get(batch.Job, "bad")).status
    assert status.failed == 1
    assert [(each.type, each.reason) for each in status.conditions] == [
        ("FailureTarget", "BackoffLimitExceeded"),
        ("Failed", "BackoffLimitExceeded"),
    ]


async def test_endpoints_follow_the_pods_of_a_service(cluster: Cluster) -> None:
    await cluster.create(a_deployment())
    await cluster.create(
        core.Service(
            metadata=meta.ObjectMeta(name="web", namespace="default"),
            spec=core.ServiceSpec(
                selector=LABELS,
                cluster_ip="None",
                cluster_ips=["None"],
                ip_families=["IPv4"],
                ip_family_policy="SingleStack",
                type="ClusterIP",
                ports=[core.ServicePort(port=80, target_port=8080, protocol="TCP")],
            ),
        )
    )

    async def counts() -> list[int]:
        slices = [each for each in await cluster.list(discovery.EndpointSlice) if "web" in each.metadata.name]
        ready = [endpoint for each in slices for endpoint in each.endpoints or () if endpoint.conditions.ready]
        endpoints = await cluster.get(core.Endpoints, "web")
        return [len(ready), sum(len(subset.addresses) for subset in endpoints.subsets)]

    async def has(count: int) -> bool:
        return await counts() == [count, count]

    await cluster.wait(lambda: has(3))

    def shrink(deployment: apps.Deployment) -> None:
        deployment.spec.replicas = 1

    await cluster.change(apps.Deployment, "web", shrink)

    await cluster.wait(lambda: has(1))


async def test_a_deleted_namespace_takes_everything_with_it(cluster: Cluster) -> None:
    await cluster.create(core.Namespace(metadata=meta.ObjectMeta(name="shop")))
    deployment = a_deployment()
    deployment.metadata.namespace = "shop"
    await cluster.create(deployment)

    async def is_filled() -> bool:
        accounts = await cluster.names(core.ServiceAccount, "shop")
        maps = await cluster.names(core.ConfigMap, "shop")
        return len(await cluster.list(core.Pod, "shop")) == 3 and (accounts, maps) == (
            ["default"],
            ["kube-root-ca.crt"],
        )

    await cluster.wait(is_filled)

    await cluster.delete(core.Namespace, "shop", namespace="")

    async def is_gone() -> bool:
        namespaces = await cluster.client.list(resource_of(core.Namespace))
        return "shop" not in {each.metadata.name for each in namespaces.items}

    await cluster.wait(is_gone)
    assert await cluster.list(core.ConfigMap, "shop") == []


async def test_pods_of_a_vanished_owner_are_collected(cluster: Cluster) -> None:
    reference = meta.OwnerReference(
        api_version="apps/v1", kind="ReplicaSet", name="gone", uid=meta.UID("never-existed")
    )
    template = a_template(LABELS)
    await cluster.create(
        core.Pod(
            metadata=meta.ObjectMeta(name="lost", namespace="default", owner_references=[reference]),
            spec=template.spec,
        )
    )

    async def is_collected() -> bool:
        return not await cluster.list(core.Pod)

    await cluster.wait(is_collected)
