"""What a batch of transactions does, given what is there: pure.

Transactions of a batch see each other's writes, in order. One whose expectation fails does nothing and disturbs
nobody; one that changes nothing takes no revision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from haven.apimachinery.names import Revision
from haven.store.expiry import Expiry
from haven.store.interface import Change, Expectation, Operation, Put, Record, StoreError, TransactionFailed

__all__ = ["OPERATIONS_MAX", "Expire", "Outcome", "Transaction", "apply_batch", "check_operations"]

OPERATIONS_MAX = 1 << 15  # Per transaction; a row's place within its transaction has 15 bits.


@dataclass(frozen=True, slots=True)
class Expire:
    """Delete a key if it is still at this revision; the store's own operation."""

    key: bytes
    revision: Revision


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is to be written together."""

    operations: Sequence[Operation | Expire]
    expectations: Sequence[Expectation] = ()


@dataclass(slots=True)
class Outcome:
    """What a batch does: an answer per transaction, and all changes in revision order.

    `records` is what each touched key holds afterwards, None if nothing.
    """

    newest: Revision
    answers: list[Revision | StoreError] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    expiries: dict[bytes, Expiry] = field(default_factory=dict)
    records: dict[bytes, Record | None] = field(default_factory=dict)
    written_bytes: int = 0


def check_operations(operations: Sequence[Operation]) -> None:
    """Raise ValueError unless a transaction may consist of these."""
    count = len(operations)
    if count > 1 and (count > OPERATIONS_MAX or len({operation.key for operation in operations}) < count):
        raise ValueError(f"a transaction has at most {OPERATIONS_MAX} operations, each on another key")


def apply_batch(
    batch: Sequence[Transaction], find: Callable[[bytes], Record | None], newest: Revision, now_seconds: float
) -> Outcome:
    """Return what the batch does to a store whose newest revision is `newest` and whose records `find` returns."""
    outcome = Outcome(newest)
    records = outcome.records
    for transaction in batch:
        for operation in (*transaction.expectations, *transaction.operations):
            if operation.key not in records:
                records[operation.key] = find(operation.key)
        failure = _first_failure(transaction.expectations, records)
        if failure is not None:
            outcome.answers.append(failure)
            continue
        _apply(transaction.operations, outcome, now_seconds)
        outcome.answers.append(outcome.newest)
    return outcome


def _first_failure(
    expectations: Sequence[Expectation], records: dict[bytes, Record | None]
) -> TransactionFailed | None:
    for expectation in expectations:
        current = records[expectation.key]
        if (current.modified if current is not None else 0) != expectation.modified:
            return TransactionFailed(expectation.key, current)
    return None


def _apply(operations: Sequence[Operation | Expire], outcome: Outcome, now_seconds: float) -> None:
    revision = Revision(outcome.newest + 1)
    for operation in operations:
        key = operation.key
        previous = outcome.records[key]
        if isinstance(operation, Put):
            value = operation.value
            created = previous.created if previous is not None else revision
            outcome.records[key] = Record(key, value, created, revision)
            if operation.ttl_seconds > 0:  # A second more than asked for: never early.
                outcome.expiries[key] = Expiry(int(now_seconds + operation.ttl_seconds) + 1, key, revision)
            else:
                outcome.expiries.pop(key, None)
            outcome.written_bytes += len(value) + len(key)
            outcome.changes.append(Change(key, value, previous, revision, created))
        elif previous is not None and (not isinstance(operation, Expire) or previous.modified == operation.revision):
            outcome.records[key] = None
            outcome.expiries.pop(key, None)
            outcome.written_bytes += len(key)
            outcome.changes.append(Change(key, None, previous, revision, previous.created))
        else:
            continue
        outcome.newest = revision
