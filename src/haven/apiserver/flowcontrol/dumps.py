"""/debug/api_priority_and_fairness/…: tables of levels, queues and requests, for people who wonder who is in the way.

Source: https://kubernetes.io/docs/reference/debug-cluster/flow-control/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime

from haven.apiserver.flowcontrol.levels import Level, Ticket
from haven.apiserver.flowcontrol.runner import FlowControl
from haven.apiserver.request import Request, Response
from haven.clock import Clock

__all__ = ["dump_paths"]

_PREFIX = "/debug/api_priority_and_fairness/"
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_CELL_CHARACTERS_MIN = 8
_LEVEL_COLUMNS = (
    "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
    "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests",
)  # fmt: skip
_QUEUE_COLUMNS = (
    "PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
    "InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum",
)  # fmt: skip
_REQUEST_COLUMNS = (
    "PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
    "InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime",
)  # fmt: skip
_DETAIL_COLUMNS = ("UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")


def dump_paths(flows: FlowControl, clock: Clock) -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """Return the handlers by path."""

    async def levels(_: Request) -> Response:
        return _table(_LEVEL_COLUMNS, map(_level_row, _sorted(flows)))

    async def queues(_: Request) -> Response:
        return _table(_QUEUE_COLUMNS, (row for level in _sorted(flows) for row in _queue_rows(level)))

    async def requests(request: Request) -> Response:
        details = bool(request.get("includeRequestDetails"))
        columns = (*_REQUEST_COLUMNS, *_DETAIL_COLUMNS) if details else _REQUEST_COLUMNS
        offset = clock.now_seconds() - clock.monotonic_seconds()
        rows = (row for level in _sorted(flows) for row in _request_rows(level, offset, details=details))
        return _table(columns, rows)

    return {
        f"{_PREFIX}dump_priority_levels": levels,
        f"{_PREFIX}dump_queues": queues,
        f"{_PREFIX}dump_requests": requests,
    }


def _sorted(flows: FlowControl) -> list[Level]:
    return [flows.levels[name] for name in sorted(flows.levels)]


def _level_row(level: Level) -> tuple[str, ...]:
    active = sum(1 for queue in level.queues if queue.waiting)
    flags = (str(level.is_idle).lower(), str(level.leaving).lower())
    numbers = (level.waiting, level.executing, level.dispatched, level.rejected, 0, level.cancelled)
    return (level.name, str(active), *flags, *map(str, numbers))


def _queue_rows(level: Level) -> Iterator[tuple[str, ...]]:
    for queue in level.queues:
        seats = sum(ticket.seats for ticket in queue.waiting)
        widest = sum(ticket.seats_held for ticket in queue.waiting)
        counts = (queue.index, len(queue.waiting), queue.executing, queue.seats_in_use)
        yield (
            level.name,
            *map(str, counts),
            f"{queue.place:.8f}ss",
            str(seats),
            str(widest),
            f"{queue.work:.8f}ss",
        )


def _request_rows(level: Level, offset: float, *, details: bool) -> Iterator[tuple[str, ...]]:
    position = 0
    last = -1
    for queue, ticket in level.tickets_waiting():
        position = position + 1 if queue.index == last else 0
        last = queue.index
        yield _request_row(ticket, queue.index, position, offset, details=details)
    for ticket in level.running:
        yield _request_row(ticket, ticket.queue.index if ticket.queue else -1, -1, offset, details=details)


def _request_row(ticket: Ticket, queue: int, position: int, offset: float, *, details: bool) -> tuple[str, ...]:
    row = (
        ticket.level.name,
        ticket.schema,
        str(queue),
        str(position),
        ticket.flow,
        _moment(ticket.arrived + offset),
        str(ticket.seats),
        str(ticket.final_seats),
        f"{ticket.linger_seconds * 1000:g}ms" if ticket.linger_seconds else "0s",
        _moment(ticket.started + offset) if ticket.started else "0001-01-01T00:00:00Z",
    )
    if not details or ticket.request is None:
        return row
    info = ticket.request.info
    version = f"{info.group}/{info.version}" if info.group else info.version
    names = (info.namespace, info.name, version, info.resource, info.subresource)
    return (*row, ticket.request.user.name, info.verb, info.path, *names)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Response:
    """Return lines whose cells are separated by a comma and lined up."""
    lines = [columns, *rows]
    widths = [_CELL_CHARACTERS_MIN - 1] * len(columns)
    for line in lines:
        for index, cell in enumerate(line[:-1]):
            widths[index] = max(widths[index], len(cell) + 1)
    text = "".join(
        " ".join([*(f"{cell},".ljust(widths[index]) for index, cell in enumerate(line[:-1])), line[-1]]) + "\n"
        for line in lines
    )
    return Response(200, dict(_TEXT), text.encode())
