"""Watchers that share one encoding of what they all want: each is sent every change once, in order, lagging or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.spec.apiserver.test_watchcache import Store
from tests.virtualtime import in_virtual_time

from haven.apimachinery.names import Revision
from haven.apimachinery.selectors import parse_labels
from haven.apiserver.watchcache import Selection, Watched, Watcher


def told(events: Sequence[Watched]) -> list[str]:
    return [f"{event.type} {event.entry.name} {event.revision}" for event in events]


class Client:
    """Follows a watch as the server's streams do; remembers what came at once, and what its owner had to send."""

    encodings = 0

    def __init__(self, watcher: Watcher, form: str | None = "json", timeout_seconds: float | None = None) -> None:
        self.form = form
        self.lags = self.breaks = False
        self.seen: list[str] = []
        self.at_once = self.counted = 0
        self._timeout_seconds = timeout_seconds
        self.watcher = watcher
        watcher.sink = self
        self.task = asyncio.create_task(self._follow())

    def encode(self, events: Sequence[Watched]) -> bytes:
        Client.encodings += 1
        if self.breaks:
            raise ValueError("cannot be encoded")
        return ";".join(told(events)).encode()

    def send(self, chunk: bytes) -> bool:
        if self.lags:
            return False
        size, _, data = chunk.partition(b"\r\n")
        assert len(data) == int(size, 16) + 2, "not in the form of chunks"
        self.seen += data[:-2].decode().split(";")
        self.at_once += 1
        return True

    def count(self, events: int, size_bytes: int, receivers: int) -> None:
        assert size_bytes > 0
        self.counted += events * receivers

    async def _follow(self) -> None:
        while not self.watcher.stopped:
            await self.watcher.wait_change(self._timeout_seconds)
            self.seen += told(self.watcher.take())


async def ends(clients: Sequence[Client]) -> None:
    await asyncio.sleep(1.0)  # Of virtual time: every wave is over.
    for client in clients:
        client.watcher.stop()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(client.task for client in clients)), 5)


async def test_a_change_is_encoded_once_for_all_who_want_it_in_the_same_form() -> None:
    store = Store()
    clients = [Client(store.cache.watch(Selection("n"))) for _ in range(5)]
    other = Client(store.cache.watch(Selection("n")), "protobuf")
    alone = Client(store.cache.watch(Selection("n")), None)
    await asyncio.sleep(0)
    assert store.cache.statistics().watchers == 7
    Client.encodings = 0

    store.put("a")

    assert [client.at_once for client in clients] == [1] * 5
    assert other.at_once == 1
    assert alone.at_once == 0, "nothing is shared with a form of its own"
    assert Client.encodings == 2
    assert sum(client.counted for client in clients) == 5
    await asyncio.sleep(0)
    assert alone.seen == other.seen == clients[0].seen == ["ADDED a 1"]
    assert len(store.cache.watchers()) == 7
    store.cache.stop_watchers()
    await asyncio.wait_for(asyncio.gather(*(client.task for client in (*clients, other, alone))), 60)
    assert store.cache.statistics().watchers == 0


async def test_what_cannot_be_encoded_is_tried_once_and_left_to_the_owner_of_each_watch() -> None:
    store = Store()
    clients = [Client(store.cache.watch(Selection())) for _ in range(3)]
    for client in clients:
        client.breaks = True
    await asyncio.sleep(0)
    Client.encodings = 0

    store.put("a")
    await asyncio.sleep(0)

    assert Client.encodings == 1
    assert [(client.at_once, client.seen) for client in clients] == [(0, ["ADDED a 1"])] * 3
    for client in clients:
        client.watcher.stop()
        await client.task


@in_virtual_time
async def test_one_that_lags_gets_the_rest_from_its_owner_and_disturbs_nobody() -> None:
    store = Store(queue_max=1000)
    clients = [Client(store.cache.watch(Selection())) for _ in range(200)]
    await asyncio.sleep(0)
    clients[7].lags = True

    for number in range(30):
        store.put(f"pod-{number}")
        await asyncio.sleep(0.002)
    await ends(clients)

    wanted = [f"ADDED pod-{number} {number + 1}" for number in range(30)]
    assert all(client.seen == wanted for client in clients)
    assert clients[7].at_once == 0
    assert 0 < clients[8].at_once < 30, "several changes go out together where many watch"


STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "label", "delete"]), st.sampled_from("abc")),
    st.tuples(st.sampled_from(["lag", "keep up", "break", "mend", "join", "stop"]), st.integers(0, 70)),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.0005, 0.003, 0.01])),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, min_size=5, max_size=60), shares=st.sampled_from([None, 0.004]))
def test_whatever_happens_a_watcher_sees_what_a_replay_tells(
    steps: list[tuple[str, object]], shares: float | None
) -> None:
    @in_virtual_time
    async def story() -> None:
        store = Store(queue_max=1000, history_max=1000)
        labels = parse_labels("on=1")
        begun: list[tuple[Client, Selection, int, list[int]]] = []

        def join(number: int) -> None:
            selection = Selection(labels=labels) if number % 3 == 0 else Selection("n")
            client = Client(store.cache.watch(selection), "ab"[number % 2], shares if number % 5 == 0 else None)
            begun.append((client, selection, store.revision, []))

        for number in range(60):
            join(number)
        await asyncio.sleep(0)
        for action, what in steps:
            if action == "pass":
                assert isinstance(what, float)
                await asyncio.sleep(what)
            elif isinstance(what, str):
                if action != "delete":
                    store.put(what, labels={"on": "1"} if action == "label" else {})
                elif store.cache.get("n", what) is not None:
                    store.delete(what)
            elif isinstance(what, int):
                client, _, _, stopped = begun[what % len(begun)]
                if action == "join":
                    join(what)
                elif action == "stop":
                    client.watcher.stop()
                    stopped.append(store.revision)
                elif action in ("lag", "keep up"):
                    client.lags = action == "lag"
                else:
                    client.breaks = action == "break"
        await ends([client for client, *_ in begun])
        for client, selection, since, stopped in begun:
            until = stopped[0] if stopped else store.revision
            replayed = store.cache.replay(selection, after=Revision(since))
            assert client.seen == [line for line in told(replayed) if int(line.split()[-1]) <= until]

    story()
