"""Virtual time: what is due happens, at once and in order."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes.client import CoreV1Api

from haven.testing import Cluster

CRONJOB = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: report}
spec:
  schedule: "*/5 * * * *"
  successfulJobsHistoryLimit: 100
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: report}]
"""
START = datetime(2030, 1, 1, 11, 59, 0, tzinfo=UTC)


def a_job(**spec: object) -> dict[str, object]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "work"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work"},
        "spec": {"template": {"spec": pod}, **spec},
    }


@pytest.mark.haven(start_seconds=START.timestamp())
def test_an_hour_of_a_cronjob_takes_no_time(haven_cluster: Cluster) -> None:
    haven_cluster.behave(owner="Job", run_seconds=20)
    haven_cluster.apply(CRONJOB)
    began = time.monotonic()

    haven_cluster.clock.advance(hours=1)

    jobs = haven_cluster.list("jobs")
    assert len(jobs) == 12
    assert all(job["status"].get("succeeded") == 1 for job in jobs[:-1])
    assert time.monotonic() - began < 1800  # However slow the machine is.


def test_finished_jobs_vanish_when_their_time_is_up(haven_cluster: Cluster) -> None:
    haven_cluster.behave(owner="Job", run_seconds=5)
    haven_cluster.create(a_job(ttlSecondsAfterFinished=600))

    haven_cluster.clock.advance(minutes=5)
    assert haven_cluster.get("job", "work")["status"]["succeeded"] == 1
    haven_cluster.clock.advance(minutes=6)

    assert haven_cluster.list("jobs") == []


def test_a_job_that_takes_too_long_fails(haven_cluster: Cluster) -> None:
    haven_cluster.create(a_job(activeDeadlineSeconds=3600))
    haven_cluster.wait_for("job/work", {"status": {"active": 1}})

    haven_cluster.clock.advance(hours=2)

    job = haven_cluster.wait_for("job/work", "Failed")
    assert any(item["reason"] == "DeadlineExceeded" for item in job["status"]["conditions"])


@pytest.mark.haven(nodes=2)
def test_pods_leave_a_node_that_fell_silent(haven_cluster: Cluster) -> None:
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "web"}]}}
    haven_cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {**spec, "template": template},
        }
    )
    haven_cluster.wait_for("deployment/web", "Available")
    lost = haven_cluster.list("pods")[0]["spec"]["nodeName"]

    haven_cluster.node(lost).power_off()
    haven_cluster.clock.advance(minutes=2)
    haven_cluster.wait_for(f"node/{lost}", "Ready=Unknown")
    haven_cluster.clock.advance(minutes=6)

    running = [pod for pod in haven_cluster.list("pods") if not pod["metadata"].get("deletionTimestamp")]
    assert [pod["spec"]["nodeName"] for pod in running] == [{"node-0": "node-1", "node-1": "node-0"}[lost]]


def test_nodes_stay_ready_however_far_time_goes(haven_cluster: Cluster) -> None:
    haven_cluster.clock.advance(hours=8)

    haven_cluster.wait_for("node/node-0", "Ready")
    assert not [e for e in haven_cluster.list("events") if e["reason"] == "NodeNotReady"]


@pytest.mark.haven(frozen=True, start_seconds=START.timestamp())
def test_a_frozen_clock_stands_still(haven_cluster: Cluster) -> None:
    assert haven_cluster.clock.now == START

    haven_cluster.clock.advance_to(START + timedelta(minutes=3))

    assert haven_cluster.clock.now == START + timedelta(minutes=3)


def test_a_crashing_container_backs_off(haven_cluster: Cluster) -> None:
    haven_cluster.behave(name="crash", run_seconds=1, exit_code=1)
    container = {"name": "main", "image": "crash"}
    haven_cluster.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "crash"}, "spec": {"containers": [container]}}
    )

    haven_cluster.clock.advance(minutes=2)

    status = haven_cluster.pod("crash").object["status"]["containerStatuses"][0]
    assert status["restartCount"] == 4
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["lastState"]["terminated"]["exitCode"] == 1


def test_a_node_that_is_switched_on_again_is_ready_at_once(haven_cluster: Cluster) -> None:
    node = haven_cluster.node("node-0")
    node.power_off()
    haven_cluster.clock.advance(minutes=2)
    haven_cluster.wait_for("node/node-0", "Ready=Unknown", timeout=60)

    node.power_on()

    haven_cluster.wait_for("node/node-0", "Ready", timeout=60)
    haven_cluster.wait_for("node/node-0", lambda found: not found["spec"].get("taints"), timeout=60)


@pytest.mark.haven(frozen=True, start_seconds=1_000_000_000)
def test_clients_are_let_in_in_whatever_year_a_cluster_begins_and_ends(haven_cluster: Cluster) -> None:
    api = CoreV1Api(haven_cluster.client())

    assert [item.metadata.name for item in api.list_node().items] == ["node-0"]
    haven_cluster.world.clock.set_now_seconds(4_000_000_000)
    assert [item.metadata.name for item in api.list_node().items] == ["node-0"]
