"""Controllers count their work under upstream's names."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families
from tests.spec.controllers.test_job import Jobs, a_job
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.controllers.actions import Controller, Wiring
from haven.controllers.counts import Counts, counted_metrics
from haven.controllers.jobcounts import JobCounts
from haven.controllers.rootca import RootCAPublisher
from haven.metrics.exposition import expose
from haven.metrics.families import Registry


def shown(counts: Counts) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return what a scraper sees, but for buckets."""
    registry = Registry([])
    registry.extend(counted_metrics().values())
    counts.show(registry)
    text = expose(registry.families(), "")[1].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


class CountedJobs(Jobs):
    """A world whose controller can be looked at."""

    controller: Controller

    def start(self, make: Callable[[Wiring], Controller]) -> None:
        def kept(wiring: Wiring) -> Controller:
            self.controller = make(wiring)
            return self.controller

        super().start(kept)


def test_a_job_and_its_pods_are_counted_once_each() -> None:
    world = CountedJobs(a_job(completions=2, parallelism=2))
    world.end(world.living[0])
    world.end(world.living[0], "Failed")
    world.wait(100.0)
    world.end(world.living[0])

    counts = getattr(world.controller, "counts", None)
    assert isinstance(counts, JobCounts)
    found = shown(counts)
    mode = ("completion_mode", "NonIndexed")
    finished = "job_controller_job_pods_finished_total"
    assert found[finished, frozenset({mode, ("result", "succeeded")})] == 2
    assert found[finished, frozenset({mode, ("result", "failed")})] == 1
    over = frozenset({mode, ("reason", "CompletionsReached"), ("result", "succeeded")})
    assert found["job_controller_jobs_finished_total", over] == 1
    created = "job_controller_job_pods_creation_total"
    assert found[created, frozenset({("reason", "new"), ("status", "succeeded")})] == 2
    again = frozenset({("reason", "recreate_terminating_or_failed"), ("status", "succeeded")})
    assert found[created, again] == 1
    tracked = "job_controller_terminated_pods_tracking_finalizer_total"
    assert found[tracked, frozenset({("event", "add")})] == found[tracked, frozenset({("event", "delete")})] == 3
    passes = {labels: number for (name, labels), number in found.items() if name == "job_controller_job_syncs_total"}
    assert passes[frozenset({mode, ("action", "pods_created"), ("result", "success")})] >= 1
    assert not any(("result", "error") in labels for labels in passes)
    assert not any(isinstance(pod, core.Pod) and pod.metadata.finalizers for pod in world.all(core.Pod))


def test_what_is_not_counted_yet_is_zero_only_where_nothing_tells_values_apart() -> None:
    found = shown(Counts())
    assert found["endpoint_slice_controller_endpoints_desired", frozenset()] == 0
    assert not [name for name, labels in found if labels]


def test_gauges_show_what_there_is_at_present() -> None:
    counts, zones = Counts(), {("a",): 3.0, ("b",): 1.0}
    counts.gauges["node_collector_zone_size"] = lambda: dict(zones)
    assert shown(counts)["node_collector_zone_size", frozenset({("zone", "a")})] == 3
    del zones[("a",)]
    assert [name for name, labels in shown(counts) if ("zone", "a") in labels] == []


def test_the_authority_is_counted_for_each_namespace_that_it_is_published_to() -> None:
    world = World()
    made: list[RootCAPublisher] = []

    def make(wiring: Wiring) -> Controller:
        made.append(RootCAPublisher(wiring, root_ca_pem="pem"))
        return made[0]

    world.start(make)
    world.put(core.Namespace(metadata=meta.ObjectMeta(name="a"), status=core.NamespaceStatus(phase="Active")))
    world.settle()
    found = shown(made[0].counts)
    assert found["root_ca_cert_publisher_sync_total", frozenset({("code", "200")})] >= 1
    assert ("root_ca_cert_publisher_sync_total", frozenset({("code", "500")})) not in found
