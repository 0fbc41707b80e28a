"""A server's Lease: its name, who keeps it, and when those of others go."""

from __future__ import annotations

from haven.api.coordination import v1
from haven.apimachinery import times
from haven.cluster.serveridentity import identity_name, is_over, kept

NOW = times.parse("2026-01-01T00:00:00Z")


def test_the_name_is_the_one_that_upstreams_server_has_on_that_machine() -> None:
    assert identity_name("e2ecli-node") == "apiserver-upl3cxokk653avcb26dsuozuim"


def a_lease(holder: str = "one", now: float = NOW) -> v1.Lease:
    lease = kept(None, hostname="host", holder=holder, now=now)
    assert lease is not None
    return lease


def test_a_lease_names_the_machine_and_the_process() -> None:
    lease = a_lease()

    assert lease.metadata.labels == {
        "apiserver.kubernetes.io/identity": "kube-apiserver",
        "kubernetes.io/hostname": "host",
    }
    assert (lease.spec.holder_identity, lease.spec.lease_duration_seconds) == ("one", 3600)


def test_a_lease_says_where_other_servers_reach_this_one() -> None:
    lease = kept(None, hostname="host", holder="one", now=NOW, address="10.0.0.1:6443")

    assert lease is not None
    assert lease.metadata.annotations == {"kubernetes.io/peer-advertise-address": "10.0.0.1:6443"}


def test_it_is_renewed_by_the_process_that_keeps_it_and_taken_over_when_that_is_silent() -> None:
    lease = a_lease()

    renewed = kept(lease, hostname="host", holder="one", now=NOW + 10)
    assert renewed is not None
    assert renewed.spec.renew_time == times.format_micro_time(NOW + 10)
    assert kept(renewed, hostname="host", holder="two", now=NOW + 15) is None
    taken = kept(renewed, hostname="host", holder="two", now=NOW + 60)
    assert taken is not None
    assert taken.spec.holder_identity == "two"


def test_a_lease_is_over_when_it_ran_out() -> None:
    assert not is_over(a_lease(), NOW + 3600)
    assert is_over(a_lease(), NOW + 3601)
    assert is_over(v1.Lease(), NOW)
