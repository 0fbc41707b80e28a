"""What is special about the store in etcd: it is shared, it goes away and comes back, and it keeps its own time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.etcdserver import Etcd, Tls
from tests.ports import free_port

from haven.apimachinery.names import Revision
from haven.store.etcd import EtcdStore
from haven.store.etcdwire import EtcdSettings
from haven.store.interface import Change, Expectation, Put, StoreError, TransactionFailed


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[Etcd]:
    server = Etcd(tmp_path)
    server.start()
    yield server
    await server.kill()


@pytest.fixture
async def stores(etcd: Etcd) -> AsyncIterator[tuple[EtcdStore, EtcdStore]]:
    """Two processes' views of one etcd."""
    settings = EtcdSettings((etcd.address,))
    one, other = await EtcdStore.open(settings), await EtcdStore.open(settings)
    yield one, other
    await one.close()
    await other.close()


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def commit_when_back(store: EtcdStore, value: bytes) -> Revision:
    async with asyncio.timeout(60):
        while True:
            try:
                return await store.commit([Put(b"/back", value)])
            except StoreError:
                await asyncio.sleep(0.05)


# Shared


async def test_what_one_process_was_told_is_known_to_the_other_once_it_caught_up(
    stores: tuple[EtcdStore, EtcdStore],
) -> None:
    one, other = stores
    heard: list[Change] = []
    other.add_listener(heard.extend)

    for number in range(50):
        revision = await one.commit([Put(b"/a", b"%d" % number)])
        await other.catch_up()
        assert other.revision >= revision
        assert heard[-1].value == b"%d" % number


async def test_all_processes_hear_the_same_changes_in_the_same_order(stores: tuple[EtcdStore, EtcdStore]) -> None:
    heard: tuple[list[Change], list[Change]] = ([], [])
    for store, changes in zip(stores, heard, strict=True):
        store.add_listener(changes.extend)

    await asyncio.gather(*(stores[number % 2].commit([Put(b"/%d" % number, b"")]) for number in range(200)))
    await asyncio.gather(*(store.catch_up() for store in stores))

    assert heard[0] == heard[1]
    assert len(heard[0]) == 200


async def test_of_two_processes_that_change_the_same_revision_one_is_refused_and_then_knows_why(
    stores: tuple[EtcdStore, EtcdStore],
) -> None:
    one, other = stores
    heard: list[Change] = []
    other.add_listener(heard.extend)
    first = await one.commit([Put(b"/a", b"1")])
    second = await one.commit([Put(b"/a", b"2")], [Expectation(b"/a", first)])

    with pytest.raises(TransactionFailed) as failure:
        await other.commit([Put(b"/a", b"3")], [Expectation(b"/a", first)])

    assert failure.value.current is not None
    assert failure.value.current.modified == second
    assert heard[-1].revision == second


async def test_history_is_shortened_by_one_of_them(etcd: Etcd) -> None:
    settings = EtcdSettings((etcd.address,), compaction_seconds=0.1)
    one, other = await EtcdStore.open(settings), await EtcdStore.open(settings)
    for number in range(20):
        await one.commit([Put(b"/a", b"%d" % number)])
    written = one.revision

    await until(lambda: max(one.compacted, other.compacted) >= written)

    record = await other.get(b"/a")
    assert record is not None
    assert record.value == b"19"
    await one.close()
    await other.close()


# Away and back


async def test_what_was_acknowledged_survives_a_killed_etcd_and_work_goes_on(
    etcd: Etcd, stores: tuple[EtcdStore, EtcdStore]
) -> None:
    one, other = stores
    heard: list[Change] = []
    other.add_listener(heard.extend)
    for number in range(20):
        await one.commit([Put(b"/%02d" % number, b"")])
    await etcd.kill()

    with pytest.raises(StoreError, match="does not answer"):
        await one.commit([Put(b"/away", b"")])
    etcd.start()
    await commit_when_back(one, b"1")
    await other.catch_up()

    found = await other.range(b"/")
    assert {b"/%02d" % number for number in range(20)} < {record.key for record in found.records}
    told = list(dict.fromkeys(change.key for change in heard if change.key != b"/away"))
    assert told[-2:] == [b"/19", b"/back"]  # The last perhaps twice: of a commit without an answer nothing is known.


async def test_a_watch_goes_on_when_etcd_is_back(etcd: Etcd, stores: tuple[EtcdStore, EtcdStore]) -> None:
    one, _ = stores
    await one.commit([Put(b"/back", b"0")])
    watch = one.watch(b"/back", after=Revision(0))
    assert [change.value for change in await anext(watch)] == [b"0"]
    await etcd.kill()
    etcd.start()

    await commit_when_back(one, b"1")

    async with asyncio.timeout(60):
        assert {change.value for change in await anext(watch)} == {b"1"}


async def test_an_etcd_that_is_not_there_is_told_in_one_sentence() -> None:
    with pytest.raises(StoreError, match="does not answer: check that it runs"):
        await EtcdStore.open(EtcdSettings((f"http://127.0.0.1:{free_port()}",)))


@pytest.mark.parametrize("servers", [(), ("http://",), ("http://a:1", "https://b:2")])
async def test_addresses_that_make_no_sense_are_refused(servers: tuple[str, ...]) -> None:
    with pytest.raises(StoreError, match="address"):
        await EtcdStore.open(EtcdSettings(servers))


# Time to live


async def test_a_key_vanishes_after_its_time_and_one_that_was_overwritten_stays(
    stores: tuple[EtcdStore, EtcdStore],
) -> None:
    one, other = stores
    gone: list[bytes] = []
    other.add_listener(lambda changes: gone.extend(change.key for change in changes if change.value is None))
    await one.commit([Put(b"/ever", b"")])
    for seconds in (3, 30, 300):  # A busy machine may be too late to overwrite it.
        first = await one.commit([Put(b"/kept", b"", ttl_seconds=seconds)])
        with contextlib.suppress(TransactionFailed):
            await one.commit([Put(b"/kept", b"for good")], [Expectation(b"/kept", first)])
            break
    await other.catch_up()
    gone.clear()
    await one.commit([Put(b"/short", b"", ttl_seconds=seconds)])  # When it goes, the other's time is up, too.

    await until(lambda: bool(gone), 600)

    assert gone == [b"/short"]
    assert [record.key for record in (await other.range(b"/")).records] == [b"/ever", b"/kept"]


# TLS


def _issue(
    folder: Path, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(names, critical=False).add_extension(uses, critical=False)
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key


async def test_both_sides_prove_who_they_are(tmp_path: Path) -> None:
    authority = _issue(tmp_path, "authority", None)
    for name in ("server", "client"):
        _issue(tmp_path, name, authority)
    ca = tmp_path / "authority.crt"
    etcd = Etcd(tmp_path, Tls(ca, tmp_path / "server.crt", tmp_path / "server.key"))
    etcd.start()

    known = EtcdSettings((etcd.address,), ca, tmp_path / "client.crt", tmp_path / "client.key")
    store = await EtcdStore.open(known)
    await store.commit([Put(b"/a", b"secret")])
    record = await store.get(b"/a")
    await store.close()

    assert record is not None
    assert record.value == b"secret"
    with pytest.raises(StoreError, match="certificates"):
        await EtcdStore.open(EtcdSettings((etcd.address,), ca))
    await etcd.stop()
