"""Sets of indexes as Indexed Jobs write them: "1,3-5,7".

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/ and the behaviour of
pkg/apis/batch/validation.
"""

from __future__ import annotations

from haven.apimachinery.goformat import quote

__all__ = ["MalformedIndexes", "count_indexes", "overlap_complaint"]


class MalformedIndexes(ValueError):
    """The text is no set of indexes; the message says why."""


def count_indexes(text: str, completions: int) -> int:
    """Return how many indexes a text names; raise MalformedIndexes."""
    if not text:
        return 0
    total, last = 0, None
    for interval in text.split(","):
        low, high = _interval(interval, completions)
        if last is not None and last >= low:
            raise MalformedIndexes(f"non-increasing order, previous: {last}, current: {low}")
        total += high - low + 1
        last = high
    return total


def overlap_complaint(completed: str, failed: str, completions: int) -> str:
    """Say at which index completed and failed ones overlap, "" if nowhere; malformed parts are passed over."""
    ones, others = _intervals(completed, completions), _intervals(failed, completions)
    position = other_position = 0
    while position < len(ones) and other_position < len(others):
        (low, high), (other_low, other_high) = ones[position], others[other_position]
        if low <= other_high and other_low <= high:
            return f"failedIndexes and completedIndexes overlap at index: {max(low, other_low)}"
        if low <= other_low:
            position += 1
        else:
            other_position += 1
    return ""


def _intervals(text: str, completions: int) -> list[tuple[int, int]]:
    found = []
    for part in text.split(",") if text else ():
        try:
            found.append(_interval(part, completions))
        except MalformedIndexes:
            continue
    return found


def _interval(text: str, completions: int) -> tuple[int, int]:
    limits = text.split("-")
    if len(limits) > 2:
        words = "violates the requirement that an index interval can have at most two parts separated by '-'"
        raise MalformedIndexes(f"the fragment {quote(text)} {words}")
    low = _index(limits[0], completions)
    if len(limits) == 1:
        return low, low
    high = _index(limits[1], completions)
    if low >= high:
        raise MalformedIndexes(f"non-increasing order, previous: {low}, current: {high}")
    return low, high


def _index(text: str, completions: int) -> int:
    digits = text[1:] if text[:1] == "+" else text
    if not digits.isascii() or not digits.isdigit():
        raise MalformedIndexes(f"cannot convert string to integer for index: {quote(text)}")
    index = int(text)
    if index >= completions:
        raise MalformedIndexes(f"too large index: {quote(text)}")
    return index
