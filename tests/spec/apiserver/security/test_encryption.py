"""Encryption at rest: ciphers, configuration, rotation, and a KMS plugin over a socket."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from haven.apiserver.configfiles import ConfigError
from haven.apiserver.encryption.ciphers import AesCbc, AesGcm, DerivedGcm, Secretbox
from haven.apiserver.encryption.configuration import parse_encryption
from haven.apiserver.encryption.kms import Encrypted, Envelope, KmsFailed, Status
from haven.apiserver.encryption.transformers import Chain, DecryptionFailed, Identity, Prefixed, Transformer
from haven.apiserver.encryption.wire import annotations_of, bytes_of, decode, encode, text_of
from haven.clock import FakeClock
from haven.store.memory import MemoryStore

from .conftest import Client, Serve

KEY = b"/registry/core/secrets/default/s"
SECRETS = "/api/v1/namespaces/default/secrets"
CIPHERS: list[Transformer] = [AesGcm(bytes(32)), AesCbc(bytes(16)), Secretbox(bytes(32)), DerivedGcm(bytes(32))]


@pytest.mark.parametrize("cipher", CIPHERS, ids=lambda cipher: type(cipher).__name__)
@given(value=st.binary(max_size=300))
def test_what_is_sealed_can_be_opened(cipher: Transformer, value: bytes) -> None:
    sealed = cipher.seal(KEY, value)

    assert cipher.open(KEY, sealed) == (value, False)
    assert len(value) < 8 or value not in sealed


@pytest.mark.parametrize("cipher", CIPHERS, ids=lambda cipher: type(cipher).__name__)
def test_what_was_tampered_with_is_not_opened(cipher: Transformer) -> None:
    sealed = bytearray(cipher.seal(KEY, b"secret value"))
    sealed[-1] ^= 1

    if isinstance(cipher, AesCbc):
        assert cipher.open(KEY, cipher.seal(KEY, b"x" * 16)).value == b"x" * 16  # It cannot tell.
    else:
        with pytest.raises(DecryptionFailed):
            cipher.open(KEY, bytes(sealed))
    with pytest.raises(DecryptionFailed):
        cipher.open(KEY, b"short")


def test_a_value_belongs_to_its_key() -> None:
    sealed = AesGcm(bytes(32)).seal(KEY, b"v")

    with pytest.raises(DecryptionFailed, match="message authentication failed"):
        AesGcm(bytes(32)).open(b"/registry/core/secrets/other/s", sealed)


def test_the_secretbox_is_naclss() -> None:
    """The vector of NaCl's own test (secretbox.c)."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f4"
        "1db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52"
        "f0a089bc76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b"
        "4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da"
        "99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
    )

    assert Secretbox(key).open(KEY, nonce + box).value == message


def test_the_first_way_writes_and_all_read() -> None:
    old, new = Prefixed(b"k8s:enc:a:", AesGcm(bytes(16))), Prefixed(b"k8s:enc:b:", AesGcm(bytes(32)))
    plain = Prefixed(b"", Identity())
    sealed = Chain([old, plain]).seal(KEY, b"v")

    assert sealed.startswith(b"k8s:enc:a:")
    assert Chain([old, plain]).open(KEY, sealed) == (b"v", False)
    assert Chain([new, old]).open(KEY, sealed) == (b"v", True)
    assert Chain([new, plain]).open(KEY, b"{}") == (b"{}", True)
    with pytest.raises(DecryptionFailed, match="no matching prefix found"):
        Chain([new, plain]).open(KEY, sealed)


@pytest.mark.parametrize(
    ("resources", "asked", "found"),
    [
        (["secrets"], ("", "secrets"), True),
        (["secrets"], ("apps", "secrets"), False),
        (["*."], ("", "configmaps"), True),
        (["*.apps"], ("apps", "deployments"), True),
        (["*.apps"], ("batch", "jobs"), False),
        (["*.*"], ("example.com", "things"), True),
        (["things.example.com"], ("example.com", "things"), True),
    ],
)
def test_resources_are_named_with_wildcards(resources: list[str], asked: tuple[str, str], found: bool) -> None:
    (item,) = parse_encryption(config(identity(), resources=resources))

    assert item.concerns(*asked) is found


def identity() -> dict[str, Any]:
    return {"identity": {}}


def keyed(kind: str, *names: str, size: int = 32) -> dict[str, Any]:
    keys = [{"name": name, "secret": base64.b64encode(name.encode() * size)[: size * 4 // 3 + 3]} for name in names]
    for item, name in zip(keys, names, strict=True):
        item["secret"] = base64.b64encode((name.encode() * size)[:size]).decode()
    return {kind: {"keys": keys}}


def config(*providers: dict[str, Any], resources: list[str] | None = None) -> bytes:
    tree = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": resources or ["secrets"], "providers": list(providers)}],
    }
    return yaml.safe_dump(tree).encode()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (config(), "at least one .*providers is required"),
        (config({}), "does not contain any of the expected providers"),
        (config({"identity": {}, **keyed("aesgcm", "a")}), "more than one provider specified"),
        (config(keyed("secretbox", "a", size=16)), r"got 16, expected one of \[32\]"),
        (config({"aescbc": {"keys": [{"name": "a", "secret": "!"}]}}), "secrets must be base64 encoded"),
        (config({"aescbc": {"keys": []}}), "at least one .*keys is required"),
        (config(identity(), resources=["*"]), "use '\\*.' to encrypt all the resources from core API group"),
        (config(identity(), resources=["*.", "secrets"]), "overlapping resources"),
        (config(identity(), resources=["a", "a"]), r'resources: Invalid value: \["a","a"\]: the same resource'),
        (config(identity(), resources=["apiserveripinfo"]), "do not have REST API/s"),
        (config(identity(), resources=["servicenodeportallocations"]), "do not have REST API/s"),
        (
            config(identity()).replace(b"apiserver.config.k8s.io/", b""),
            'no kind "EncryptionConfiguration" in version "v1"',
        ),
        (config({"kms": {"apiVersion": "v2", "name": "a", "endpoint": "unix:///%zz"}}), 'invalid URL escape "%zz"'),
        (config({"kms": {"name": "a", "endpoint": "unix:///x"}}), "KMSv1 is deprecated"),
        (config({"kms": {"apiVersion": "v2", "name": "a", "endpoint": "tcp://x"}}), "only unix is supported"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_encryption(data)


@pytest.mark.parametrize(
    ("provider", "resources"),
    [
        ({"kms": {"apiVersion": "v2", "name": "a", "endpoint": "UNIX:/run/x y", "timeout": None}}, ["secrets"]),
        ({"aescbc": {"keys": [{"name": "a", "secret": "AAAAAAAAAAAA\nAAAAAAAAAA==\n"}]}}, ["secrets"]),
        (identity(), ["*.extensions"]),
        (identity(), ["events", "*.apps", "pods.example.com"]),
    ],
)
def test_what_upstream_takes_is_taken(provider: dict[str, Any], resources: list[str]) -> None:
    (found,) = parse_encryption(config(provider, resources=resources))

    assert len(found.providers) == 1


async def secret(client: Client, name: str = "s") -> int:
    body = {"metadata": {"name": name}, "data": {"k": "djE="}}
    return (await client.ask("POST", SECRETS, body)).status


async def stored(store: MemoryStore, name: str = "s") -> bytes:
    record = await store.get(f"/registry/core/secrets/default/{name}".encode())
    assert record is not None
    return record.value


async def test_secrets_are_stored_encrypted_and_read_plain(serve: Serve, tmp_path: Path) -> None:
    file, store = tmp_path / "enc.yaml", MemoryStore()
    file.write_bytes(config(keyed("secretbox", "one"), identity()))
    client = await serve(store, encryption_provider_config=str(file))

    assert await secret(client) == 201

    raw = await stored(store)
    assert raw.startswith(b"k8s:enc:secretbox:v1:one:")
    assert b"djE=" not in raw
    for path in (f"{SECRETS}/s", f"{SECRETS}?limit=5"):
        assert b"djE=" in (await client.ask("GET", path)).body
    namespace = await store.get(b"/registry/core/namespaces/default")
    assert namespace is not None
    assert namespace.value.startswith(b"{")


async def test_a_server_that_starts_again_reads_what_was_encrypted_and_nothing_without_the_key(
    serve: Serve, tmp_path: Path
) -> None:
    file, store = tmp_path / "enc.yaml", MemoryStore()
    file.write_bytes(config(keyed("aescbc", "one")))
    first = await serve(store, encryption_provider_config=str(file))
    await secret(first)
    await first.server.stop()

    again = await serve(store, encryption_provider_config=str(file))
    assert b"djE=" in (await again.ask("GET", f"{SECRETS}/s")).body
    await again.server.stop()

    none = await serve(store)
    status, answer = await none.json("GET", f"{SECRETS}/s")
    assert (status, answer["message"].endswith("identity transformer tried to read encrypted data")) == (500, True)
    await none.server.stop()
    file.write_bytes(config(keyed("aescbc", "two"), identity()))
    other = await serve(store, encryption_provider_config=str(file))
    status, answer = await other.json("GET", f"{SECRETS}/s")
    missing = "no matching key was found for the provided AES transformer"
    assert (status, answer["message"].endswith(missing)) == (500, True)


async def test_a_new_key_is_used_when_objects_are_written_again(serve: Serve, tmp_path: Path) -> None:
    file, store = tmp_path / "enc.yaml", MemoryStore()
    file.write_bytes(config(keyed("aesgcm", "one"), identity()))
    client = await serve(store, encryption_provider_config=str(file), encryption_provider_config_automatic_reload=True)
    await secret(client)
    file.write_bytes(config(keyed("aesgcm", "two", "one"), identity()))
    await client.server.storages._encryption.look()

    _, before = await client.json("GET", f"{SECRETS}/s")
    status, after = await client.json("PUT", f"{SECRETS}/s", before)
    _, again = await client.json("PUT", f"{SECRETS}/s", after)

    assert status == 200
    assert (await stored(store)).startswith(b"k8s:enc:aesgcm:v1:two:")
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"], "it is not stale any more"


async def test_what_was_plain_is_encrypted_when_it_is_written_again(serve: Serve, tmp_path: Path) -> None:
    file, store = tmp_path / "enc.yaml", MemoryStore()
    plain = await serve(store)
    await secret(plain)
    await plain.server.stop()
    file.write_bytes(config(keyed("secretbox", "one"), identity(), resources=["*.*"]))

    client = await serve(store, encryption_provider_config=str(file))
    _, found = await client.json("GET", f"{SECRETS}/s")
    await client.ask("PUT", f"{SECRETS}/s", found)

    assert (await stored(store)).startswith(b"k8s:enc:secretbox:v1:one:")


class Service:
    """A plugin in memory: it turns bytes around."""

    def __init__(self) -> None:
        self.key_id = "1"
        self.healthz = "ok"
        self.decrypted = 0

    def status(self) -> Status:
        return Status("v2", self.healthz, self.key_id)

    def encrypt(self, plaintext: bytes, uid: str) -> Encrypted:
        return Encrypted(plaintext[::-1], self.key_id, {"version.example.com": b"1"})

    def decrypt(self, ciphertext: bytes, uid: str, key_id: str, annotations: Mapping[str, bytes]) -> bytes:
        assert annotations == {"version.example.com": b"1"}
        self.decrypted += 1
        return ciphertext[::-1]


def test_a_seed_is_decrypted_once_and_changes_with_the_plugins_key() -> None:
    service, clock = Service(), FakeClock()
    writer, reader = Envelope("p", service, clock), Envelope("p", service, clock)
    writer.refresh()
    reader.refresh()
    sealed = [writer.seal(KEY, value) for value in (b"a", b"b")]

    opened = [reader.open(KEY, value) for value in sealed]

    assert [value for value, _ in opened] == [b"a", b"b"]
    assert service.decrypted == 1
    assert not opened[0].stale
    service.key_id = "2"
    reader.refresh()
    assert reader.open(KEY, sealed[0]) == (b"a", True)


def test_nothing_is_written_with_a_seed_that_is_out_of_date() -> None:
    service, clock = Service(), FakeClock()
    envelope = Envelope("p", service, clock)
    envelope.refresh()
    service.healthz = "on fire"
    service.key_id = ""
    clock._now += 200
    envelope.refresh()

    with pytest.raises(KmsFailed, match=r"encryptedDEKSource with keyID hash .* expired at .* \(current time is "):
        envelope.seal(KEY, b"v")


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=5)), st.binary(max_size=200), st.integers(0, 2**63))
def test_messages_survive_the_wire(pairs: dict[str, bytes], data: bytes, number: int) -> None:
    fields = decode(encode({1: data, 4: pairs, 5: number}))

    assert bytes_of(fields, 1) == data
    assert annotations_of(fields, 4) == pairs
    assert fields.get(5, [0]) == [number]


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """A KMS plugin as it would be outside: gRPC over a unix socket."""
    service = Service()

    def status(_: bytes, __: Any) -> bytes:
        found = service.status()
        return encode({1: found.version, 2: found.healthz, 3: found.key_id})

    def encrypt(body: bytes, _: Any) -> bytes:
        fields = decode(body)
        found = service.encrypt(bytes_of(fields, 1), text_of(fields, 2))
        return encode({1: found.ciphertext, 2: found.key_id, 3: dict(found.annotations)})

    def decrypt(body: bytes, _: Any) -> bytes:
        fields = decode(body)
        annotations = annotations_of(fields, 4)
        return encode({1: service.decrypt(bytes_of(fields, 1), text_of(fields, 2), text_of(fields, 3), annotations)})

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(method)
        for name, method in (("Status", status), ("Encrypt", encrypt), ("Decrypt", decrypt))
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v2.KeyManagementService", handlers),))
    endpoint = f"unix://{tmp_path}/kms.sock"
    server.add_insecure_port(f"unix:{tmp_path}/kms.sock")
    server.start()
    yield service, endpoint
    server.stop(None)


async def test_secrets_are_encrypted_with_the_keys_of_a_plugin(
    serve: Serve, plugin: tuple[Service, str], tmp_path: Path
) -> None:
    service, endpoint = plugin
    file, store = tmp_path / "enc.yaml", MemoryStore()
    kms = {"kms": {"apiVersion": "v2", "name": "vault", "endpoint": endpoint, "timeout": "60s"}}
    file.write_bytes(config(kms, identity()))
    first = await serve(store, encryption_provider_config=str(file))
    await secret(first)
    await first.server.stop()

    again = await serve(store, encryption_provider_config=str(file))
    _, found = await again.json("GET", f"{SECRETS}/s")

    assert (await stored(store)).startswith(b"k8s:enc:kms:v2:vault:")
    assert found["data"] == {"k": "djE="}
    assert service.decrypted == 1
    service.key_id = "2"
    await again.server.storages._encryption.refresh()
    before = await stored(store)
    await again.ask("PUT", f"{SECRETS}/s", found)
    assert await stored(store) != before
    assert text_of(decode((await stored(store)).removeprefix(b"k8s:enc:kms:v2:vault:")), 2) == "2"


async def test_a_plugin_that_is_away_costs_what_it_has_the_keys_of_until_it_comes(
    serve: Serve, plugin: tuple[Service, str], tmp_path: Path
) -> None:
    _, endpoint = plugin
    file, store = tmp_path / "enc.yaml", MemoryStore()
    kms = {"apiVersion": "v2", "name": "a", "endpoint": endpoint, "timeout": "60s"}
    file.write_bytes(config({"kms": kms}))
    first = await serve(store, encryption_provider_config=str(file))
    await secret(first)
    await first.server.stop()
    file.write_bytes(config({"kms": {**kms, "endpoint": f"unix://{tmp_path}/nobody.sock", "timeout": "100ms"}}))

    client = await serve(store, encryption_provider_config=str(file))

    for method, path, body in (("GET", f"{SECRETS}/s", None), ("POST", SECRETS, {"metadata": {"name": "new"}})):
        status, answer = await client.json(method, path, body)
        assert (status, answer["message"]) == (500, "Internal error occurred: got unexpected nil transformer")
    check = await client.ask("GET", "/readyz/kms-providers")
    assert (check.status, (await client.ask("GET", "/healthz")).status) == (500, 500)
    assert (await client.ask("GET", "/livez")).status == 200
    said = "kms-provider-0: failed to perform status section of the healthz check for KMS Provider a, error: rpc error"
    assert said in check.body.decode()
    assert (await client.ask("GET", "/api/v1/configmaps")).status == 200


@pytest.mark.parametrize(
    ("version", "healthz", "key_id", "complaint"),
    [
        ("v2", "sad", "1", "got unexpected healthz status: sad"),
        ("v1", "ok", "1", "expected KMSv2 API version v2, got v1"),
        ("v2", "ok", "", 'got invalid KMSv2 KeyID hash "": keyID is empty'),
        ("v3", "", "", "[got unexpected healthz status: , expected KMSv2 API version v2, got v3, got invalid KMSv2"),
        ("v2", "ok", "k" * 1025, "keyID is 1025 bytes, which exceeds the max size of 1024"),
        ("v2", "ok", "2", 'statusKeyIDHash="sha256:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"'),
    ],
)
def test_a_plugin_that_says_odd_things_is_not_well(version: str, healthz: str, key_id: str, complaint: str) -> None:
    service = Service()
    service.status = lambda: Status(version, healthz, key_id)  # type: ignore[method-assign]
    envelope = Envelope("p", service, FakeClock())

    envelope.refresh()

    assert envelope.problem.startswith("kmsv2 Provider p is not healthy, error: ")
    assert complaint in envelope.problem


def test_a_plugin_that_is_not_well_but_knows_its_key_is_written_with() -> None:
    service, clock = Service(), FakeClock()
    envelope = Envelope("p", service, clock)
    service.healthz = "sad"
    for _ in range(3):
        envelope.refresh()
        assert envelope.open(KEY, envelope.seal(KEY, b"v")).value == b"v"
        clock._now += 170


def test_a_seed_that_cannot_be_decrypted_is_not_asked_for_again_at_once() -> None:
    service, clock = Service(), FakeClock()
    writer, reader = Envelope("p", service, clock), Envelope("p", service, clock)
    writer.refresh()
    reader.refresh()
    sealed = [writer.seal(KEY, value) for value in (b"a", b"b")]
    asked = []

    def refuse(*_: Any) -> bytes:
        asked.append(1)
        raise KmsFailed("rpc error: code = Internal desc = no")

    service.decrypt = refuse  # type: ignore[method-assign]
    for value in sealed:
        with pytest.raises(
            DecryptionFailed, match="failed to decrypt DEK, error: rpc error: code = Internal desc = no"
        ):
            reader.open(KEY, value)
    del service.decrypt
    clock._now += 3

    assert len(asked) == 1
    assert reader.open(KEY, sealed[0]).value == b"a"


async def test_rules_for_one_resource_add_up(serve: Serve, tmp_path: Path) -> None:
    file, store = tmp_path / "enc.yaml", MemoryStore()
    file.write_bytes(config(keyed("aescbc", "old")))
    first = await serve(store, encryption_provider_config=str(file))
    await secret(first)
    await first.server.stop()
    tree = yaml.safe_load(config(keyed("secretbox", "new")))
    tree["resources"] += yaml.safe_load(config(keyed("aescbc", "old")))["resources"]
    file.write_text(yaml.safe_dump(tree))

    client = await serve(store, encryption_provider_config=str(file))
    _, found = await client.json("GET", f"{SECRETS}/s")
    await client.ask("PUT", f"{SECRETS}/s", found)

    assert (await stored(store)).startswith(b"k8s:enc:secretbox:v1:new:")
