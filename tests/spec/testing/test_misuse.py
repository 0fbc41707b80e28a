"""What a test gets to read when it asks for what is not there: the reason, not a crash of something inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haven.apimachinery.apierrors import InternalError
from haven.testing import Admission, Cluster, WaitTimeout

SHORT = 0.05


@pytest.fixture(scope="module")
def cluster(haven_cluster_module: Cluster) -> Cluster:
    haven_cluster_module.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "here"},
            "spec": {"containers": [{"name": "main", "image": "web"}]},
        }
    )
    haven_cluster_module.wait_for("pod/here", "Ready", timeout=60)
    return haven_cluster_module


REFUSED: dict[str, tuple[Callable[[Cluster], Any], type[Exception], str]] = {
    "what is no object": (lambda c: c.create({"kind": "Pod", "metadata": {"name": "x"}}), ValueError, "no kind"),
    "a path where an object belongs": (lambda c: c.create("pod.yaml"), ValueError, "no Kubernetes object"),  # type: ignore[arg-type]
    "a manifest that is not there": (lambda c: c.apply("nothing.yaml"), OSError, "no manifest 'nothing.yaml'"),
    "a path that is not there": (lambda c: c.apply(Path("nothing.yaml")), FileNotFoundError, "nothing.yaml"),
    "no manifest at all": (lambda c: c.apply(None), TypeError, "None is no manifest"),  # type: ignore[arg-type]
    "no condition": (lambda c: c.wait_for("pod/here", 3), TypeError, "3 is no condition"),  # type: ignore[arg-type]
    "a behaviour that says nothing": (lambda c: c.behave(name="here"), ValueError, "run_seconds"),
    "a node that is there": (lambda c: c.add_node("node-0"), ValueError, "'node-0' already"),
    "a node that is not there": (lambda c: c.node("far").power_off(), LookupError, "no simulated node 'far': node-0"),
    "a container that is not there": (lambda c: c.pod("here").succeed("side"), KeyError, "no container 'side': main"),
    "a taint that is none": (
        lambda c: c.add_node("odd", taints=("NoSchedule",)), ValueError, "'NoSchedule' is no taint",
    ),
    "a fault for a kind by another of its names": (
        lambda c: c.faults.add(resource="deploy", status=500), ValueError, "say 'deployments'",
    ),
    "a fault that never strikes": (lambda c: c.faults.add(status=500, times=0), ValueError, "or None for always"),
    "a fault that is more than certain": (
        lambda c: c.faults.add(status=500, probability=50), ValueError, "at most 1",
    ),
    "a watch broken off that is none": (
        lambda c: c.faults.add(verb="get", drop_watch=2), ValueError, "leave the verb out",
    ),
    "an absence that is no absence": (
        lambda c: c.audit.assert_not_requested(resource="pod"), ValueError, "say 'pods'",
    ),
    "an awaitable call where asyncio does not run": (
        lambda c: c.aio.get("pod", "here").send(None), RuntimeError, "use the plain calls",
    ),
    "no snapshot": (lambda c: c.restore(None), TypeError, "None is no snapshot"),  # type: ignore[arg-type]
    "what runs already": (lambda c: c.start(), RuntimeError, "runs already"),
    "what does not run": (lambda c: Cluster().list("pods"), RuntimeError, "use `with cluster:`"),
    "a user without a name": (lambda c: c.as_user(""), ValueError, "name"),
    "a controller that there is not": (
        lambda c: Cluster(disabled_controllers=frozenset({"cronjobs"})).start(), ValueError, "cronjob-controller",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_said_what_is_wrong_with(cluster: Cluster, what: str) -> None:
    act, kind, words = REFUSED[what]

    with pytest.raises(kind, match=words):
        act(cluster)


WAITED: dict[str, tuple[Callable[[Cluster], Any], str]] = {
    "a kind that is not served": (lambda c: c.wait_for("gadget/x", "Ready", timeout=SHORT), "serves no 'gadget'"),
    "a part that is not there yet": (
        lambda c: c.wait_for("pod/here", lambda pod: pod["status"]["open"], timeout=SHORT), "KeyError: 'open'",
    ),
    "a lookup that fails": (lambda c: c.wait_until(lambda: {}["open"], timeout=SHORT), "KeyError: 'open'"),
    "a function": (lambda c: c.wait_until(lambda: False, timeout=SHORT), "here Running on node-0"),
    "a Pod that is not there": (lambda c: c.pod("gone").succeed(timeout=SHORT), "no such Pod in namespace default"),
}  # fmt: skip


@pytest.mark.parametrize("what", WAITED)
def test_it_is_said_what_was_there_when_in_vain_was_waited_for(cluster: Cluster, what: str) -> None:
    act, words = WAITED[what]

    with pytest.raises(WaitTimeout, match=words):
        act(cluster)


def test_a_pod_that_no_node_takes_tells_why_it_does_not_run(haven_cluster: Cluster) -> None:
    haven_cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "far"},
            "spec": {"nodeSelector": {"moon": "yes"}, "containers": [{"name": "main", "image": "web"}]},
        }
    )
    haven_cluster.wait_for("pod/far", "PodScheduled=False", timeout=60)
    haven_cluster.settle()

    with pytest.raises(WaitTimeout, match="didn't match Pod's node affinity/selector"):
        haven_cluster.pod("far").succeed(timeout=SHORT)


@pytest.mark.haven(disabled_controllers=frozenset({"replicaset-controller"}))
def test_a_controller_can_be_left_out_by_upstreams_name(haven_cluster: Cluster) -> None:
    haven_cluster.apply(
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web}
        spec:
          selector: {matchLabels: {app: web}}
          template:
            metadata: {labels: {app: web}}
            spec: {containers: [{name: main, image: web}]}
        """
    )

    haven_cluster.wait_until(lambda: haven_cluster.list("replicasets"), timeout=60)
    haven_cluster.settle()

    assert haven_cluster.list("pods") == []


def test_a_function_without_a_name_can_be_a_webhook(haven_cluster: Cluster) -> None:
    haven_cluster.validating_webhook("configmaps")(lambda admission: None)
    haven_cluster.validating_webhook("configmaps")(lambda admission: None)

    assert len(haven_cluster.list("validatingwebhookconfigurations")) == 2


def test_a_failed_test_is_told_which_faults_no_request_has_met(cluster: Cluster) -> None:
    fault = cluster.faults.add(verb="list", resource="gadgets", status=500)

    assert "verb='list', resource='gadgets', status=500" in cluster.describe()

    cluster.faults.remove(fault)
    assert "Faults" not in cluster.describe()


def test_what_a_webhooks_function_raised_is_in_the_answer(cluster: Cluster) -> None:
    @cluster.validating_webhook("secrets")
    def broken(admission: Admission) -> None:
        raise KeyError("colour")

    with pytest.raises(InternalError, match=r"raised KeyError: 'colour' \(test_misuse.py, line"):
        cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})
