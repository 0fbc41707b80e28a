"""Every flag of kube-apiserver is taken, or refused with a reason; bad values are refused in upstream's words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.spec.apiserver.conftest import Api

from haven.apiserver import assembly
from haven.apiserver.authentication.tokenkeys import SigningKeys
from haven.apiserver.flags import FLAGS, OTHERS, FlagError, with_flags
from haven.apiserver.request import Request
from haven.apiserver.settings import Settings
from haven.clock import FakeClock
from haven.store.memory import MemoryStore

DOCUMENT = Path(__file__).parents[3] / "docs" / "flags.md"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"nonsense": "1"}, "unknown flag: --nonsense"),
        ({"max-requests-inflight": "-1"}, "--max-requests-inflight can not be negative value"),
        (
            {"max-requests-inflight": "x"},
            'invalid argument "x" for "--max-requests-inflight" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            {"profiling": "perhaps"},
            'invalid argument "perhaps" for "--profiling" flag: strconv.ParseBool: parsing "perhaps": invalid syntax',
        ),
        ({"request-timeout": "-1s"}, "--request-timeout can not be negative value"),
        (
            {"request-timeout": "abc"},
            'invalid argument "abc" for "--request-timeout" flag: time: invalid duration "abc"',
        ),
        ({"goaway-chance": "0.5"}, "--goaway-chance can not be less than 0 or greater than 0.02"),
        (
            {"authorization-config": "a", "authorization-mode": "RBAC"},
            "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags "
            "are defined",
        ),
        (
            {"authentication-config": "a", "oidc-issuer-url": "https://x"},
            "authentication-config file and oidc-* flags are mutually exclusive",
        ),
        (
            {"encryption-provider-config-automatic-reload": "true"},
            "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config",
        ),
        (
            {"service-account-max-token-expiration": "1s"},
            "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds",
        ),
        (
            {"shutdown-watch-termination-grace-period": "-1s"},
            "shutdown-watch-termination-grace-period, if provided, can not be a negative value",
        ),
        (
            {"etcd-servers": "http://x"},
            "--etcd-servers is not for Haven: the store is chosen when a cluster is made: haven up --etcd-servers",
        ),
        (
            {"watch-cache": "false"},
            'invalid argument "false" for "--watch-cache" flag: every read comes from the watch cache',
        ),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, str], complaint: str) -> None:
    with pytest.raises(FlagError) as caught:
        with_flags(Settings(), values)

    assert str(caught.value) == complaint


def test_values_are_read_as_upstream_reads_them() -> None:
    settings = with_flags(
        Settings(),
        {
            "request-timeout": "1m30s",
            "event-ttl": "2h",
            "service-node-port-range": "30000-30009",
            "watch-cache": "true",
            "goaway-chance": "0.01",
            "enable-aggregator-routing": "T",
        },
    )

    assert (settings.request_timeout_seconds, settings.event_ttl_seconds) == (90.0, 7200)
    assert settings.service_node_ports == range(30000, 30010)
    assert settings.aggregator_routing


def test_every_flag_is_in_the_documentation() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `--")]
    documented = {row[1].strip().strip("`").removeprefix("--") for row in rows}

    assert documented == {*FLAGS, *OTHERS}
    assert not FLAGS.keys() & OTHERS.keys()


async def test_scripts_of_allowed_origins_may_read_answers(signing_keys: SigningKeys) -> None:
    settings = Settings(serve_kubernetes_service=False, cors_allowed_origins=("example[.]com$",))
    server = await assembly.start(settings, MemoryStore(), assembly.Trust(signing_keys), listen=False)

    async def ask(method: str, origin: str) -> tuple[int, str]:
        answer = await server.handle(Request(method, "/version", {}, {"origin": origin}))
        return answer.status, answer.headers.get("Access-Control-Allow-Origin", "")

    asked = [await ask(*one) for one in (("GET", "https://a.example.com"), ("GET", "https://b.org"))]
    preflight = await ask("OPTIONS", "https://a.example.com")
    await server.stop()

    assert asked == [(200, "https://a.example.com"), (200, "")]
    assert preflight == (204, "https://a.example.com")


async def test_a_server_that_is_told_to_end_is_first_not_ready_and_ends_watches_by_and_by(
    signing_keys: SigningKeys,
) -> None:
    clock = FakeClock()
    settings = Settings(serve_kubernetes_service=False, shutdown_delay_seconds=10, shutdown_watch_grace_seconds=20)
    trust, store = assembly.Trust(signing_keys), MemoryStore(clock=clock)
    server = await assembly.start(settings, store, trust, clock=clock, chance=random.Random(7), listen=False)
    api = Api(server, store)
    watched = [
        await server.local_transport()._handle(
            Request("GET", "/api/v1/configmaps", {"watch": ["1"]}, {}, local=True, user=assembly.ADMIN)
        )
        for _ in range(2)
    ]
    streams = [response.stream for response in watched]

    async def read(stream: AsyncIterator[bytes]) -> None:
        async for _ in stream:
            pass

    readers = [asyncio.ensure_future(read(stream)) for stream in streams if stream is not None]
    await clock.advance(0)
    before = (await api.raw("GET", "/readyz")).status

    ending = asyncio.ensure_future(server.stop())
    await clock.advance(0)
    told = await api.raw("GET", "/readyz/shutdown")
    live = (await api.raw("GET", "/livez")).status
    running = [reader.done() for reader in readers]
    await clock.advance(10)
    half = sum(reader.done() for reader in readers)
    for _ in range(3):
        await clock.advance(10)
    await ending

    assert (before, told.status, live) == (200, 500, 200)
    assert b"process is shutting down" in told.body
    assert (running, half) == ([False, False], 1)
    assert all(reader.done() for reader in readers)
