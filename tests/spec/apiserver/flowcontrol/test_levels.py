"""A priority level: seats, queues, whose turn it is."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from haven.apiserver.flowcontrol.allocation import Claim, divide, lend, set_nominal
from haven.apiserver.flowcontrol.levels import Level, Queuing, SchemaCounts, Ticket
from haven.apiserver.flowcontrol.matching import flow_hash
from haven.apiserver.flowcontrol.retryafter import DroppedRequests
from haven.apiserver.flowcontrol.sharding import deal


def a_level(seats: int, *, queues: int = 64, hand: int = 6, length: int = 50) -> Level:
    level = Level("low", "uid", limit=seats, nominal=seats, shares=100)
    level.configure(Queuing(queues, hand, length) if queues else None, exempt=False)
    return level


def ask(level: Level, flow: str, now: float, seats: int = 1) -> Ticket | None:
    """Behave as the runner does."""
    ticket = Ticket(level, SchemaCounts(), "schema", seats, flow=flow)
    if not level.waiting and level.has_room(seats):
        level.start(ticket, now)
        return ticket
    return ticket if level.wait(ticket, flow_hash("schema", flow), now) else None


def test_requests_start_at_once_while_there_are_seats() -> None:
    level = a_level(2)

    tickets = [ask(level, "one", 1.0) for _ in range(3)]

    assert [bool(ticket and ticket.started) for ticket in tickets] == [True, True, False]
    level.check()


def test_a_level_without_queues_refuses_what_finds_no_seat() -> None:
    level = a_level(1, queues=0)
    ask(level, "one", 1.0)

    assert ask(level, "one", 1.0) is None
    assert level.rejected == 1


def test_a_full_queue_refuses() -> None:
    level = a_level(1, queues=1, hand=1, length=2)

    answers = [ask(level, "one", 1.0) for _ in range(4)]

    assert [answer is not None for answer in answers] == [True, True, True, False]


def test_a_flood_does_not_keep_another_flow_waiting() -> None:
    level = a_level(1, length=1000)
    running = ask(level, "elephant", 1.0)
    for _ in range(500):
        ask(level, "elephant", 1.0)
    mouse = ask(level, "mouse", 2.0)
    served_before = 0
    now = 2.0

    while mouse is not None and not mouse.started:
        assert running is not None
        now += 0.01
        level.finish(running, now)
        running = level.next(now)
        served_before += 1
        level.check()

    assert served_before <= 12, "one per queue of the elephant's hand, twice at most"


def test_flows_share_the_work_evenly_whatever_their_requests_take() -> None:
    level = a_level(1, queues=512, hand=1, length=10_000)
    now = 1.0
    cost = {"quick": 0.001, "slow": 0.01}
    running = ask(level, "quick", now)
    for _ in range(2000):
        ask(level, "quick", now)
        ask(level, "slow", now)
    spent: Counter[str] = Counter()

    while running is not None and now < 6.0:
        now += cost[running.flow]
        spent[running.flow] += cost[running.flow]
        level.finish(running, now)
        running = level.next(now)

    assert 0.8 < spent["quick"] / spent["slow"] < 1.25 or spent["quick"] >= 2.0


def test_a_wide_request_waits_for_all_its_seats_and_one_wider_than_the_level_runs_alone() -> None:
    level = a_level(4)
    first = ask(level, "a", 1.0, seats=2)
    wide = ask(level, "b", 1.0, seats=9)
    assert first is not None
    assert wide is not None
    assert not wide.started

    level.finish(first, 2.0)

    assert level.next(2.0) is wide


def test_seats_linger_for_the_event_that_a_write_causes() -> None:
    level = a_level(3)
    ticket = Ticket(level, SchemaCounts(), "schema", 1, final_seats=3, linger_seconds=0.05)
    level.start(ticket, 1.0)

    assert level.finish(ticket, 1.1) == 0.05
    assert not level.has_room(1)
    level.release(ticket, 1.2)
    assert level.has_room(3)
    level.check()


def test_who_gives_up_leaves_the_line() -> None:
    level = a_level(1)
    ask(level, "one", 1.0)
    waiting = ask(level, "one", 1.0)
    assert waiting is not None

    assert level.give_up(waiting, 16.0)
    assert level.next(17.0) is None
    level.check()


@given(st.randoms(use_true_random=False))
def test_the_books_balance_whatever_happens(chance: random.Random) -> None:
    level = a_level(5, queues=8, hand=3, length=6)
    alive: list[Ticket] = []
    now = 1.0
    for _ in range(120):
        now += chance.random() / 100
        step = chance.randrange(4)
        if step == 0 or not alive:
            ticket = ask(level, chance.choice("abcdef"), now, seats=chance.choice([1, 1, 2, 7]))
            alive += [ticket] if ticket is not None else []
        elif step == 1:
            running = [ticket for ticket in alive if ticket.started]
            if running:
                done = chance.choice(running)
                alive.remove(done)
                level.finish(done, now)
        elif step == 2:
            level.next(now)
        else:
            waiting = [ticket for ticket in alive if not ticket.started]
            if waiting:
                gone = chance.choice(waiting)
                alive.remove(gone)
                assert level.give_up(gone, now)
        level.check()
    while alive:
        while level.next(now) is not None:
            pass
        done = next(ticket for ticket in alive if ticket.started)
        alive.remove(done)
        level.finish(done, now)
    assert level.is_idle
    assert level.seats_in_use == 0


@given(st.integers(0, 2**64 - 1), st.integers(1, 100), st.integers(1, 8))
def test_a_hand_has_different_cards_of_the_deck(value: int, deck: int, hand: int) -> None:
    hand = min(hand, deck)

    cards = deal(value, deck, hand)

    assert len(set(cards)) == hand
    assert all(0 <= card < deck for card in cards)


def test_seats_are_divided_by_shares() -> None:
    one, two = a_level(0), a_level(0)
    one.shares, two.shares, two.lendable_percent, two.borrowing_percent = 10, 30, 50, 10

    set_nominal([one, two], 100)

    assert (one.nominal, one.seats_min, one.seats_max) == (25, 25, 125)
    assert (two.nominal, two.seats_min, two.seats_max) == (75, 37, 83)


def test_an_idle_level_lends_its_seats_to_a_busy_one() -> None:
    idle, busy = a_level(0), a_level(0)
    idle.name, busy.name, idle.lendable_percent = "idle", "busy", 90
    set_nominal([idle, busy], 100)
    for second in range(10):
        busy.demand.set(200 - second % 2, float(second + 1))
    for level in (idle, busy):
        level.demand.settle(11.0)

    lend([idle, busy])

    assert idle.limit == idle.seats_min
    assert idle.limit + busy.limit == 100


claims = st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 100)).map(
    lambda found: Claim(found[0], found[0] + found[1], max(found[0], found[2]))
)


@given(st.lists(claims, min_size=1, max_size=6), st.integers(1, 400))
def test_what_is_divided_adds_up_and_respects_the_bounds(found: list[Claim], total: int) -> None:
    parts, _ = divide(total, found)

    for part, claim in zip(parts, found, strict=True):
        assert claim.low - 1e-6 <= part <= claim.high + 1e-6
    wanted = min(max(total, sum(c.low for c in found)), sum(c.high for c in found))
    assert abs(sum(parts) - wanted) < 1e-3


def test_the_advice_when_to_try_again_grows_with_the_drops_and_shrinks_when_they_end() -> None:
    dropped = DroppedRequests()
    advice = []
    for second in range(100, 130):
        for _ in range(200):
            dropped.record(second)
        advice.append(dropped.retry_after_seconds)
    for second in range(200, 240):
        dropped.record(second * 10)

    assert max(advice) >= 8
    assert sorted(advice) == advice
    assert dropped.retry_after_seconds == 1
