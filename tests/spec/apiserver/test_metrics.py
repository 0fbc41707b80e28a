"""Requests are counted under upstream's names."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from haven.apiserver.metrics import Metrics
from haven.apiserver.request import Request, RequestInfo, Response


def a_request(verb: str = "get", **query: list[str]) -> Request:
    info = RequestInfo(verb=verb, path="/x", is_resource=True, version="v1", resource="pods", namespace="d", name="a")
    return Request(method="GET", path="/x", query=query, headers={}, info=info)


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Values by (name, the label that tells them apart here)."""
    return {
        (sample.name, sample.labels.get("le") or sample.labels.get("code") or sample.labels.get("dry_run", "")): (
            sample.value
        )
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_buckets_hold_what_is_at_most_their_bound() -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.005, 0.03, 100.0):
        metrics.observe(a_request(), Response(200, {}, b"x" * 2000), seconds)
    found = samples(metrics)
    name = "apiserver_request_duration_seconds"
    assert [found[name + "_bucket", le] for le in ("0.005", "0.025", "0.05", "60", "+Inf")] == [2, 2, 3, 3, 4]
    assert found[name + "_count", ""] == 4
    assert abs(found[name + "_sum", ""] - 100.036) < 1e-9
    sizes = [found["apiserver_response_sizes_bucket", le] for le in ("1000", "10000", "+Inf")]
    assert sizes == [0, 4, 4]


def test_codes_are_told_apart_in_counts_and_together_in_durations() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics.observe(a_request(), Response(status), 0.1)
    found = samples(metrics)
    assert (found["apiserver_request_total", "200"], found["apiserver_request_total", "404"]) == (2, 1)
    assert found["apiserver_request_duration_seconds_count", ""] == 3


def test_requests_that_differ_in_the_order_of_repeated_values_are_one_kind() -> None:
    metrics = Metrics()
    for values in (["All"], ["All", "All"]):
        metrics.observe(a_request("create", dryRun=values), Response(201), 0.1)
    assert samples(metrics)["apiserver_request_total", "201"] == 2


def test_a_watch_counts_as_long_while_it_lasts() -> None:
    metrics = Metrics()

    async def chunks():  # type: ignore[no-untyped-def]
        yield b""

    response = Response(200, stream=chunks())
    metrics.observe(a_request("watch"), response, 0.1)
    assert samples(metrics)["apiserver_longrunning_requests", ""] == 1
    for call in response.when_over:
        call()
    assert samples(metrics)["apiserver_longrunning_requests", ""] == 0


def test_waiting_for_others_is_no_part_of_the_service_level() -> None:
    metrics = Metrics()
    slow = a_request("create")
    slow.waits()["validating"] = 3.0
    metrics.observe(slow, Response(201), 3.03)
    metrics.observe(a_request("create"), Response(201), 0.2)
    found = samples(metrics)
    assert found["apiserver_request_duration_seconds_bucket", "3"] == 1
    assert found["apiserver_request_sli_duration_seconds_bucket", "0.05"] == 1
    assert found["apiserver_request_sli_duration_seconds_count", ""] == 2
    assert ("apiserver_request_slo_duration_seconds_count", "") not in found  # Deprecated for too long.


def test_scopes_and_applies_are_told_apart() -> None:
    metrics = Metrics()
    listed = RequestInfo(verb="list", path="/x", is_resource=True, version="v1", resource="pods")
    applied = a_request("patch")
    applied.headers = {"content-type": "application/apply-patch+yaml"}
    metrics.observe(Request(method="GET", path="/x", query={}, headers={}, info=listed), Response(200), 0.1)
    metrics.observe(applied, Response(200), 0.1)
    metrics.observe(a_request("patch"), Response(200), 0.1)
    text = metrics.text().decode()
    assert 'scope="cluster",subresource="",verb="LIST"' in text
    assert 'scope="resource",subresource="",verb="APPLY"' in text
    assert 'scope="resource",subresource="",verb="PATCH"' in text
