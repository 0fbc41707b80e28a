"""Metrics as Prometheus reads them."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from haven.metrics.exposition import DELIMITED, TEXT, expose, go_float
from haven.metrics.families import Histogram, MetricsError, Registry, read_table

TABLE = """\
# name, type, stability, deprecated since, labels, bounds, what it is
things_total\tcounter\tSTABLE\t\tkind,size\t\tThings.
seconds\thistogram\tALPHA\t\t\t0.1,1,1e+06\tTime.
old_total\tcounter\tALPHA\t1.35.0\t\t\tGone.
older_total\tcounter\tSTABLE\t1.34.0\t\t\tStill here.
cardinality_enforcement_unexpected_categorizations_total\tcounter\tALPHA\t\t\t\tUnexpected.
"""


def registry(**settings: object) -> Registry:
    return Registry(read_table(TABLE), **settings)  # type: ignore[arg-type]


def text(of: Registry) -> str:
    return expose(of.families(), "")[1].decode()


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0"), (12, "12"), (999999, "999999"), (1e6, "1e+06"), (1234567.5, "1.2345675e+06"), (0.005, "0.005"),
        (1e-05, "1e-05"), (0.0001, "0.0001"), (2592000, "2.592e+06"), (-2.5, "-2.5"),
        (1795400296.6, "1.7954002966e+09"),
        (123.25, "123.25"), (math.inf, "+Inf"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_go_writes_them(number: float, written: str) -> None:
    assert go_float(number) == written


def test_labels_are_sorted_and_escaped_and_buckets_add_up() -> None:
    found = registry()
    found["things_total"].child('a "b"\n', "big").value += 2
    for value in (0.05, 0.1, 0.2, 2e6):
        found["seconds"].histogram().add(value)

    shown = text(found)

    assert '# TYPE things_total counter\nthings_total{kind="a \\"b\\"\\n",size="big"} 2\n' in shown
    assert 'seconds_bucket{le="0.1"} 2\nseconds_bucket{le="1"} 3\nseconds_bucket{le="1e+06"} 3\n' in shown
    assert 'seconds_bucket{le="+Inf"} 4\nseconds_sum 2.00000035e+06\nseconds_count 4\n' in shown
    assert [one.name for one in text_string_to_metric_families(shown)] == [
        "cardinality_enforcement_unexpected_categorizations", "older", "seconds", "things",
    ]  # fmt: skip


def test_deprecated_metrics_are_shown_as_long_as_their_stability_promises() -> None:
    assert "\nolder_total 0" in text(registry())
    assert "old_total 0" not in text(registry()).replace("older", "")
    assert registry().hidden == {"old_total"}
    with pytest.raises(MetricsError, match="Only the previous minor version is allowed"):
        registry(show_hidden="1.34")


def test_metrics_can_be_turned_off_and_labels_limited() -> None:
    found = registry(disabled=["seconds"], allowed={"things_total,kind": frozenset({"good"})})
    for kind in ("good", "bad", "worse"):
        found["things_total"].child(kind, "s").value += 1

    shown = text(found)

    assert "seconds" not in shown
    assert 'things_total{kind="good",size="s"} 1\nthings_total{kind="unexpected",size="s"} 2\n' in shown


def test_protobuf_is_written_for_those_who_like_it_best() -> None:
    found = registry()
    found["things_total"].child("k", "s").value = 7
    delimited = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

    content_type, body = expose(found.families(), f"{delimited};q=0.7,text/plain;version=0.0.4;q=0.3")

    assert content_type == DELIMITED
    assert b"\x0a\x0cthings_total" in body
    assert b"\x1a\x09\x09\x00\x00\x00\x00\x00\x00\x1c\x40" in body  # Counter: the double 7.
    assert expose(found.families(), f"text/plain,{delimited};q=0.1")[0] == TEXT
    assert expose(found.families(), "application/openmetrics-text;version=1.0.0")[0] == TEXT


def test_values_in_fine_buckets_can_be_shown_in_coarser_ones() -> None:
    fine = Histogram((1, 2, 3, 4))
    for value in (1, 2, 2, 3, 9):
        fine.add(value)

    coarse = fine.coarser((2, 4))

    assert (coarse.counts, coarse.total) == ([3, 1, 1], 17)


def test_counting_anew_keeps_what_counts() -> None:
    found = registry()
    child = found["things_total"].child("k", "s")
    child.value += 3

    found.reset()
    child.value += 1

    assert 'things_total{kind="k",size="s"} 1\n' in text(found)
