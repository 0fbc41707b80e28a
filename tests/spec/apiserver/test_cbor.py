"""A server with the gate CBORServingAndStorage speaks CBOR; one without it has never heard of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from haven.apimachinery.codecs import cbor
from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.settings import Settings
from haven.store.memory import MemoryStore

MAPS = "/api/v1/namespaces/default/configmaps"
CBOR = "application/cbor"


class Speaker:
    """Sends requests to a server's door."""

    def __init__(self, server: assembly.ApiServer) -> None:
        self._handle = server.handle

    async def __call__(self, method: str, target: str, body: bytes = b"", **headers: str) -> Response:
        path, _, query = target.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&") if pair]
        sent = {"authorization": "Bearer t", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await self._handle(Request(method, path, {name: [value] for name, _, value in pairs}, sent, body))


@pytest.fixture(params=["CBORServingAndStorage=true"])
async def say(request: Any, signing_keys: SigningKeys) -> AsyncIterator[Speaker]:
    store = MemoryStore()
    trust = assembly.Trust(signing_keys, static_tokens={"t": UserInfo("admin", groups=("system:masters",))})
    gates = (request.param,) if request.param else ()
    settings = Settings(port=0, serve_kubernetes_service=False, feature_gates=gates)
    server = await assembly.start(settings, store, trust, listen=False)
    yield Speaker(server)
    await server.stop()
    await store.close()


def a_map(name: str, **more: Any) -> bytes:
    return cbor.encode(
        {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"k": "v"}, **more}
    )


async def test_an_object_goes_in_and_out_in_cbor(say: Speaker) -> None:
    made = await say("POST", MAPS, a_map("it"), content_type=CBOR, accept=CBOR)

    shown = await say("GET", f"{MAPS}/it", accept=f"{CBOR},application/json")

    assert (made.status, made.headers["Content-Type"]) == (201, CBOR)
    assert cbor.decode(shown.body)["data"] == {"k": "v"}
    assert cbor.decode((await say("GET", MAPS, accept=CBOR)).body)["items"][0]["metadata"]["name"] == "it"


async def test_who_wants_something_else_more_gets_that(say: Speaker) -> None:
    shown = await say("GET", MAPS, accept=f"{CBOR};q=0.5,application/json")

    assert shown.headers["Content-Type"] == "application/json"


async def test_a_refusal_is_in_cbor_too(say: Speaker) -> None:
    refused = await say("GET", f"{MAPS}/none", accept=CBOR)

    assert (refused.status, refused.headers["Content-Type"]) == (404, CBOR)
    assert cbor.decode(refused.body)["reason"] == "NotFound"


async def test_an_apply_in_cbor_is_one(say: Speaker) -> None:
    applied = await say(
        "PATCH", f"{MAPS}/new?fieldManager=m", a_map("new"), content_type="application/apply-patch+cbor", accept=CBOR
    )

    assert applied.status == 201
    assert cbor.decode(applied.body)["metadata"]["managedFields"][0]["operation"] == "Apply"


async def test_a_body_that_is_no_cbor_is_refused_in_words_about_cbor(say: Speaker) -> None:
    refused = await say("POST", MAPS, b"\xa1", content_type=CBOR, accept=CBOR)

    assert refused.status == 400
    text = "the object provided is unrecognized (must be of type ConfigMap): unable to determine group/version/kind: "
    assert cbor.decode(refused.body)["message"] == text + "unexpected EOF (a1)"
    await say("POST", MAPS, a_map("kept"), content_type=CBOR)
    assert (await say("DELETE", f"{MAPS}/kept", b"\xa1", content_type=CBOR)).status == 400


async def test_a_watch_is_a_sequence_of_events(say: Speaker) -> None:
    await say("POST", MAPS, a_map("seen"), content_type=CBOR)

    watched = await say("GET", f"{MAPS}?watch=1&resourceVersion=0", accept=CBOR)

    assert watched.headers["Content-Type"] == "application/cbor-seq"
    assert watched.stream is not None
    first = await anext(watched.stream)
    event = cbor.decode(first)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "seen")
    await watched.stream.aclose()  # type: ignore[attr-defined]


async def test_documents_have_no_cbor_form_but_the_pages_of_operators_do(say: Speaker) -> None:
    assert (await say("GET", "/apis", accept=CBOR)).status == 406
    page = await say("GET", "/statusz", accept=f"{CBOR};as=Statusz;g=config.k8s.io;v=v1beta1")
    assert page.headers["Content-Type"] == f"{CBOR};g=config.k8s.io;v=v1beta1;as=Statusz"
    assert cbor.decode(page.body)["kind"] == "Statusz"


@pytest.mark.parametrize("say", [""], indirect=True)
async def test_without_the_gate_it_is_as_unknown_as_any_other_media_type(say: Speaker) -> None:
    assert (await say("GET", MAPS, accept=CBOR)).status == 406
    refused = await say("POST", MAPS, a_map("it"), content_type=CBOR)
    assert refused.status == 415
    assert b"cbor" not in refused.body
    apply = await say("PATCH", f"{MAPS}/it?fieldManager=m", a_map("it"), content_type="application/apply-patch+cbor")
    assert apply.status == 415
