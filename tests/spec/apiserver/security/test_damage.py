"""Stored values that cannot be read: each costs its kind and nothing else, and is never left out in silence."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from haven.store.interface import Delete, Put
from haven.store.memory import MemoryStore

from .conftest import Client, Serve

SECRETS = "/api/v1/namespaces/default/secrets"
BAD = b"/registry/core/secrets/default/bad"
OPTION = "ignoreStoreReadErrorWithClusterBreakingPotential"
GATE = "AllowUnsafeMalformedObjectDeletion=true"
SEALED = b"k8s:enc:aescbc:v1:lost:" + bytes(48)
MISSING = "identity transformer tried to read encrypted data"
CORRUPT = f"data from the storage is not transformable revision=0: {MISSING}"


def a_secret(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"k": "djE="}}


async def overwrite(store: MemoryStore, key: bytes, value: bytes) -> None:
    await store.commit([Put(key, value)])


async def a_damaged_server(serve: Serve, value: bytes = SEALED, **settings: Any) -> Client:
    """Return a server that finds two Secrets, one of which cannot be read."""
    store = MemoryStore()
    first = await serve(store)
    for name in ("bad", "good"):
        assert (await first.ask("POST", SECRETS, a_secret(name))).status == 201
    await first.server.stop()
    await overwrite(store, BAD, value)
    return await serve(store, **settings)


async def test_what_cannot_be_read_costs_its_kind_and_nothing_else(serve: Serve) -> None:
    client = await a_damaged_server(serve)
    listed = f'Internal error occurred: unable to transform key "{BAD.decode()}": {MISSING}'

    for method, path, body, status, message in (
        ("GET", f"{SECRETS}/bad", None, 500, f"Internal error occurred: {MISSING}"),
        ("PUT", f"{SECRETS}/bad", a_secret("bad"), 500, f"Internal error occurred: {MISSING}"),
        ("DELETE", f"{SECRETS}/bad", None, 500, f"Internal error occurred: {MISSING}"),
        ("POST", SECRETS, a_secret("bad"), 409, 'secrets "bad" already exists'),
        ("GET", SECRETS, None, 500, listed),
        ("DELETE", SECRETS, None, 500, listed),
        ("GET", "/api/v1/secrets?limit=1", None, 500, listed),
        ("GET", f"{SECRETS}?fieldSelector=metadata.name%3Dbad".replace("%3D", "="), None, 500, listed),
    ):
        answered, answer = await client.json(method, path, body)
        assert (answered, answer["message"]) == (status, message), (method, path)
    for path in (
        f"{SECRETS}/good",
        f"{SECRETS}?fieldSelector=metadata.name=good",
        "/api/v1/namespaces/kube-system/secrets",
        "/api/v1/configmaps",
        "/livez",
    ):
        assert (await client.ask("GET", path)).status == 200, path


async def test_nobody_can_watch_a_kind_that_is_not_whole(serve: Serve) -> None:
    client = await a_damaged_server(serve)

    for path in (f"{SECRETS}?watch=1", f"{SECRETS}?resourceVersion=0", "/api/v1/namespaces/other/secrets?watch=true"):
        status, answer = await client.json("GET", path)
        assert (status, answer["reason"], answer["details"]["retryAfterSeconds"]) == (429, "TooManyRequests", 1)
        assert answer["message"] == (
            f'storage is (re)initializing: failed to list *core.Secret: unable to transform key "{BAD.decode()}": '
            f"{MISSING}"
        )


async def test_readiness_names_what_cannot_be_read_and_how_to_mend_it(serve: Serve) -> None:
    client = await a_damaged_server(serve)

    answer = await client.ask("GET", "/readyz/informer-sync")

    assert answer.status == 500
    for part in (BAD.decode(), MISSING, "--encryption-provider-config", OPTION):
        assert part in answer.body.decode()


async def test_with_the_gate_lists_name_all_that_they_lack(serve: Serve) -> None:
    client = await a_damaged_server(serve, feature_gates=(GATE,))

    _, one = await client.json("GET", f"{SECRETS}/bad")
    status, answer = await client.json("GET", SECRETS)

    head = "StorageError: corrupt object, Code: 7, Key: "
    tail = f", ResourceVersion: 0, AdditionalErrorMsg: {CORRUPT}"
    assert one["message"] == f"Internal error occurred: {head}/core/secrets/default/bad{tail}"
    assert (status, answer["reason"]) == (500, "StorageReadError")
    assert answer["message"] == "failed to read one or more secrets from the storage"
    cause = {"reason": "UnexpectedServerResponse", "message": f"{head}{BAD.decode()}{tail}", "field": BAD.decode()}
    assert answer["details"] == {"name": "list", "kind": "secrets", "causes": [cause]}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b'{"kind":', "couldn't get version/kind; json parse error: unexpected end of JSON input"),
        (b"junk", "couldn't get version/kind; json parse error: invalid character 'j' looking for beginning of value"),
        (b'{"metadata":{"name":"bad","namespace":"default"}}', "metadata.uid is missing"),
        (b'{"metadata":{"name":"x","namespace":"y","uid":"' + b"0" * 36 + b'"}}', "it says that it is y/x"),
    ],
)
async def test_what_is_no_object_is_answered_like_what_cannot_be_decrypted(
    serve: Serve, value: bytes, complaint: str
) -> None:
    client = await a_damaged_server(serve, value)

    status, answer = await client.json("GET", f"{SECRETS}/bad")

    assert (status, answer["message"], "reason" in answer) == (500, complaint, False)
    assert (await client.ask("GET", SECRETS)).status == 500


async def test_with_the_gate_it_can_be_deleted_unread_and_the_kind_is_whole_again(serve: Serve) -> None:
    client = await a_damaged_server(serve, feature_gates=(GATE,))

    status, answer = await client.json("DELETE", f"{SECRETS}/bad", {OPTION: True})

    details = {"name": "bad", "kind": "Secret"}
    assert status == 200
    assert {key: answer[key] for key in ("status", "details", "code")} == {
        "status": "Success",
        "details": details,
        "code": 200,
    }
    assert [item["metadata"]["name"] for item in (await client.json("GET", SECRETS))[1]["items"]] == ["good"]
    assert (await client.ask("GET", f"{SECRETS}/bad")).status == 404
    assert (await client.ask("GET", "/readyz")).status == 200
    watch = await client.ask("GET", f"{SECRETS}?watch=1")
    assert watch.status == 200
    await watch.stream.aclose()


@pytest.mark.parametrize(
    ("path", "options", "complaint"),
    [
        ("/bad", {"dryRun": ["All"]}, "cannot be set together with .dryRun"),
        ("/bad", {"gracePeriodSeconds": 0}, "cannot be set together with .gracePeriodSeconds"),
        ("/bad", {"preconditions": {"uid": "x"}}, "cannot be set together with .preconditions"),
        ("/bad", {"propagationPolicy": "Orphan"}, "cannot be set together with .propagationPolicy"),
        ("/good", {}, "is exclusively used to delete corrupt object(s), try again by removing this option"),
        ("/none", {}, "is exclusively used to delete corrupt object(s), try again by removing this option"),
        ("", {}, "is not allowed with DELETECOLLECTION, try again after removing the option"),
    ],
)
async def test_only_what_cannot_be_read_goes_unread(
    serve: Serve, path: str, options: dict[str, Any], complaint: str
) -> None:
    client = await a_damaged_server(serve, feature_gates=(GATE,))

    status, answer = await client.json("DELETE", SECRETS + path, {OPTION: True, **options})

    assert status == 422
    assert answer["message"].endswith(f"{OPTION}: Invalid value: true: {complaint}")
    assert (await client.ask("GET", f"{SECRETS}/good")).status == 200


async def test_to_delete_unread_takes_a_permission_of_its_own(serve: Serve) -> None:
    client = await a_damaged_server(serve, feature_gates=(GATE,))
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["delete"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    role: dict[str, Any] = {"metadata": {"name": "r"}, "rules": [rule]}
    await client.ask("POST", f"{rbac}/roles", role)
    subject = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}
    await client.ask(
        "POST", f"{rbac}/rolebindings", {"metadata": {"name": "r"}, "subjects": [subject], "roleRef": reference}
    )

    refused, answer = await client.json("DELETE", f"{SECRETS}/bad?{OPTION}=true", token="jane")
    rule["verbs"] = ["delete", "unsafe-delete-ignore-read-errors"]
    await client.ask("PUT", f"{rbac}/roles/r", role)
    allowed, _ = await client.json("DELETE", f"{SECRETS}/bad?{OPTION}=true", token="jane")

    assert (refused, allowed) == (403, 200)
    assert answer["message"].startswith(
        'secrets "bad" is forbidden: not permitted to do "unsafe-delete-ignore-read-errors", reason: '
    )


async def test_without_the_gate_the_option_does_nothing(serve: Serve) -> None:
    client = await a_damaged_server(serve)

    bad, _ = await client.json("DELETE", f"{SECRETS}/bad", {OPTION: True})
    good, _ = await client.json("DELETE", f"{SECRETS}/good", {OPTION: True})

    assert (bad, good) == (500, 200)


def a_configuration(*names: str) -> bytes:
    keys = [{"name": name, "secret": base64.b64encode((name.encode() * 32)[:32]).decode()} for name in names]
    providers = [{"secretbox": {"keys": keys}}, {"identity": {}}]
    tree = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }
    return yaml.safe_dump(tree).encode()


async def test_a_key_that_comes_later_makes_all_readable(serve: Serve, tmp_path: Path) -> None:
    file, store = tmp_path / "enc.yaml", MemoryStore()
    file.write_bytes(a_configuration("one"))
    settings: dict[str, Any] = {
        "encryption_provider_config": str(file),
        "encryption_provider_config_automatic_reload": True,
    }
    first = await serve(store, **settings)
    await first.ask("POST", SECRETS, a_secret("s"))
    await first.server.stop()
    file.write_bytes(a_configuration("two"))
    client = await serve(store, **settings)
    assert (await client.ask("GET", SECRETS)).status == 500

    file.write_bytes(a_configuration("two", "one"))
    await client.server.storages._encryption.look()
    await client.server.storages.mend()

    _, listed = await client.json("GET", SECRETS)
    assert [item["data"] for item in listed["items"]] == [{"k": "djE="}]
    assert (await client.ask("GET", "/readyz")).status == 200


async def test_a_value_that_goes_bad_ends_watches_and_one_that_is_good_again_is_a_change(serve: Serve) -> None:
    store = MemoryStore()
    client = await serve(store)
    _, made = await client.json("POST", SECRETS, a_secret("bad"))
    record = await store.get(BAD)
    assert record is not None
    watch = await client.ask("GET", f"{SECRETS}?watch=1")
    async with asyncio.timeout(60):
        assert b'"ADDED"' in await anext(watch.stream)

    await overwrite(store, BAD, SEALED)
    async with asyncio.timeout(60):
        ended = json.loads(await anext(watch.stream))
        assert [chunk async for chunk in watch.stream] == []
    while_bad = (await client.ask("GET", f"{SECRETS}/bad")).status
    await overwrite(store, BAD, record.value.replace(b"djE=", b"djI="))
    again = await client.ask("GET", f"{SECRETS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}")
    async with asyncio.timeout(60):
        event = json.loads(await anext(again.stream))

    assert (ended["type"], ended["object"]["code"], while_bad) == ("ERROR", 429, 500)
    assert (event["type"], event["object"]["data"]) == ("MODIFIED", {"k": "djI="})
    await again.stream.aclose()


async def test_no_kind_of_damaged_object_keeps_the_server_from_starting(serve: Serve) -> None:
    store = MemoryStore()
    first = await serve(store)
    hook = {"metadata": {"name": "w"}, "webhooks": []}
    for path, body in (
        (SECRETS, a_secret("s")),
        ("/api/v1/nodes", {"metadata": {"name": "n"}}),
        ("/api/v1/namespaces/default/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
        ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", hook),
    ):
        assert (await first.ask("POST", path, body)).status == 201, path
    await first.server.stop()
    found = (await store.range(b"/registry/")).records
    kinds = {tuple(record.key.split(b"/")[2:4]): record.key for record in found}
    for key in (*kinds.values(), b"/registry/strange", b"/registry/core/pods/default"):
        await overwrite(store, key, b"junk")

    client = await serve(store)

    assert len(kinds) > 12
    assert (await client.ask("GET", "/livez")).status == 200
    assert (await client.ask("GET", "/api/v1/nodes")).status == 500
    assert (await client.ask("GET", "/apis/batch/v1/jobs")).status == 200


async def test_while_a_webhook_is_unknown_nothing_is_admitted_that_it_might_refuse(serve: Serve) -> None:
    store = MemoryStore()
    hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    client = await serve(store, feature_gates=(GATE,))
    await client.ask("POST", hooks, {"metadata": {"name": "w"}, "webhooks": []})
    assert (await client.ask("POST", SECRETS, a_secret("before"))).status == 201
    key = b"/registry/admissionregistration.k8s.io/validatingwebhookconfigurations/w"

    await overwrite(store, key, b"junk")
    status, answer = await client.json("POST", SECRETS, a_secret("s"))
    deleted = (await client.ask("DELETE", f"{hooks}/w", {OPTION: True})).status

    assert (status, answer["message"]) == (403, 'secrets "s" is forbidden: not yet ready to handle request')
    assert deleted == 200
    assert (await client.ask("POST", SECRETS, a_secret("s"))).status == 201


async def test_a_quota_that_cannot_be_read_is_not_taken_for_none(serve: Serve) -> None:
    store = MemoryStore()
    client = await serve(store)
    quotas = "/api/v1/namespaces/default/resourcequotas"
    await client.ask("POST", quotas, {"metadata": {"name": "q"}, "spec": {"hard": {"secrets": "1"}}})
    key = b"/registry/core/resourcequotas/default/q"

    await overwrite(store, key, b"junk")
    refused = (await client.ask("POST", SECRETS, a_secret("s"))).status
    await store.commit([Delete(key)])

    assert refused == 500
    assert (await client.ask("POST", SECRETS, a_secret("s"))).status == 201
