"""Certificates of the cluster: made once, renewed in time, readable by their owner only."""

from __future__ import annotations

import asyncio
import base64
import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from haven.clock import FakeClock
from haven.cluster.certificates import names_of
from haven.cluster.pki import Pki, PkiError, PkiSettings, ensure, renew_authorities
from haven.cluster.renewal import FOLLOW_SECONDS, Renewal, follow

NOW = 1_700_000_000.0
DAY = 86400.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PkiSettings, Pki]:
    settings = PkiSettings(tmp_path_factory.mktemp("pki"), node_name="n1", hosts=("192.0.2.7", "api.example.com"))
    return settings, ensure(settings, NOW)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_serving_certificate_is_for_every_way_to_reach_the_server(made: tuple[PkiSettings, Pki]) -> None:
    certificate = load(made[1].apiserver[0])

    assert names_of(certificate) >= {
        "localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local", "10.96.0.1", "n1", "192.0.2.7", "api.example.com",
    }  # fmt: skip
    certificate.verify_directly_issued_by(load(made[1].ca_certificate))


def test_kubeconfig_files_name_users_and_groups_as_kubeadm_does(made: tuple[PkiSettings, Pki]) -> None:
    subjects = {}
    for path in (made[1].admin, made[1].super_admin, made[1].component("kubelet"), made[1].component("scheduler")):
        user = yaml.safe_load(path.read_text())["users"][0]["user"]
        certificate = x509.load_pem_x509_certificate(base64.b64decode(user["client-certificate-data"]))
        name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        groups = [part.value for part in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        subjects[path.name] = (name, groups)

    assert subjects == {
        "admin.conf": ("kubernetes-admin", ["kubeadm:cluster-admins"]),
        "super-admin.conf": ("kubernetes-super-admin", ["system:masters"]),
        "kubelet.conf": ("system:node:n1", ["system:nodes"]),
        "scheduler.conf": ("system:kube-scheduler", []),
    }


def test_nobody_else_can_read_the_files(made: tuple[PkiSettings, Pki]) -> None:
    for path in made[1].directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_second_run_changes_nothing_and_a_later_one_renews_all_but_the_authorities(
    made: tuple[PkiSettings, Pki],
) -> None:
    settings = made[0]

    assert ensure(settings, NOW).changed == ()
    assert ensure(settings, NOW + 59 * DAY).changed == ()
    renewed = set(ensure(settings, NOW + 61 * DAY).changed)

    assert {"apiserver.crt", "apiserver.key", "kubelet.conf", "front-proxy-client.crt"} <= renewed
    assert not renewed & {"ca.crt", "ca.key", "sa.key", "admin.conf", "front-proxy-ca.crt"}


def test_a_new_address_makes_a_new_serving_certificate_only(tmp_path: Path) -> None:
    ensure(PkiSettings(tmp_path), NOW)

    changed = ensure(PkiSettings(tmp_path, hosts=("192.0.2.9",)), NOW).changed

    assert set(changed) == {"apiserver.key", "apiserver.crt"}


def test_the_files_work_in_tls(made: tuple[PkiSettings, Pki]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made[1].ca_certificate))
    context.load_cert_chain(*map(str, made[1].apiserver))
    context.load_cert_chain(*map(str, made[1].kubelet_serving))


async def test_a_running_machine_renews_in_time_and_tells_its_servers(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    settings = PkiSettings(tmp_path)
    ensure(settings, NOW)
    told: list[Pki] = []
    renewal = Renewal(settings, clock, told.append)

    await renewal.check()
    assert told == []
    await clock.advance(61 * DAY)
    await renewal.check()

    assert "apiserver.crt" in told[0].changed


def test_an_authority_that_ended_is_named_with_its_fix_and_renewed_with_its_own_key(tmp_path: Path) -> None:
    settings = PkiSettings(directory=tmp_path, authority_life=timedelta(days=30))
    ensure(settings, NOW)
    before = load(tmp_path / "ca.crt")
    later = NOW + 31 * 86400

    with pytest.raises(PkiError, match="haven up --renew-authority"):
        ensure(settings, later)
    renew_authorities(settings, later)
    pki = ensure(settings, later)

    after = load(tmp_path / "ca.crt")
    assert after.public_key() == before.public_key(), "pins of the key would not hold any more"
    assert after.not_valid_after_utc.timestamp() > later
    assert {"admin.conf", "kubelet.conf"} & set(pki.changed), "kubeconfig files must name the new certificate"
    load(tmp_path / "apiserver.crt").verify_directly_issued_by(after)


def test_a_clock_that_was_set_back_is_named(tmp_path: Path) -> None:
    ensure(PkiSettings(directory=tmp_path), NOW)

    with pytest.raises(PkiError, match="set this machine's clock"):
        ensure(PkiSettings(directory=tmp_path), NOW - 86400)


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "front-proxy-ca.key", "sa.key"])
def test_damaged_keys_are_named_and_never_replaced_silently(tmp_path: Path, name: str) -> None:
    ensure(PkiSettings(directory=tmp_path), NOW)
    (tmp_path / name).write_text("rubbish")

    with pytest.raises(PkiError, match="restore"):
        ensure(PkiSettings(directory=tmp_path), NOW)
    assert (tmp_path / name).read_text() == "rubbish"


def test_an_authority_with_anothers_key_is_named(tmp_path: Path) -> None:
    ensure(PkiSettings(directory=tmp_path / "one"), NOW)
    ensure(PkiSettings(directory=tmp_path / "two"), NOW)
    (tmp_path / "one" / "ca.key").write_bytes((tmp_path / "two" / "ca.key").read_bytes())

    with pytest.raises(PkiError, match="does not belong to its key"):
        ensure(PkiSettings(directory=tmp_path / "one"), NOW)


async def test_whoever_uses_files_learns_that_they_were_written_anew(tmp_path: Path) -> None:
    clock, told = FakeClock(NOW), []
    file = tmp_path / "kubelet.crt"
    file.write_text("old")
    following = asyncio.create_task(follow([file], clock, lambda: told.append(file.read_text())))
    await clock.advance(FOLLOW_SECONDS)
    before = list(told)

    (tmp_path / "new").write_text("new")
    (tmp_path / "new").replace(file)
    await clock.advance(FOLLOW_SECONDS)
    await clock.advance(FOLLOW_SECONDS)
    following.cancel()

    assert (before, told) == ([], ["new"])


async def test_a_renewal_that_fails_is_tried_again(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    ensure(PkiSettings(tmp_path), NOW)
    (tmp_path / "ca.key").write_text("rubbish")

    await Renewal(PkiSettings(tmp_path), clock).check()

    assert (tmp_path / "ca.key").read_text() == "rubbish"
