"""Sets of completion indexes as Indexed Jobs write them: 0,3-5,7. Pure.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from haven.api.core import v1 as core

__all__ = ["INDEX", "format_indexes", "index_of", "parse_indexes", "pending_indexes", "split_duplicates"]

INDEX = "batch.kubernetes.io/job-completion-index"


def parse_indexes(text: str | None, completions: int) -> set[int]:
    """Return the indexes below `completions` that a text names; parts that make no sense are left out."""
    result: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            continue
        result.update(range(int(first), min(int(last or first), completions - 1) + 1))
    return result


def format_indexes(indexes: Iterable[int]) -> str:
    """Return indexes as text; two neighbours are written one by one, three and more as a range."""
    parts: list[str] = []
    ordered = sorted(indexes)
    start = 0
    for position, index in enumerate(ordered):
        is_last = position + 1 == len(ordered) or ordered[position + 1] != index + 1
        if not is_last:
            continue
        first = ordered[start]
        if index == first:
            parts.append(str(first))
        elif index == first + 1:
            parts.append(f"{first},{index}")
        else:
            parts.append(f"{first}-{index}")
        start = position + 1
    return ",".join(parts)


def index_of(pod: core.Pod) -> int | None:
    """Return a Pod's completion index, None if it has none."""
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdecimal() else None


def pending_indexes(taken: Collection[int], count: int, completions: int) -> list[int]:
    """Return the lowest indexes that nobody works on, at most `count`."""
    result: list[int] = []
    for index in range(completions):
        if len(result) >= count:
            break
        if index not in taken:
            result.append(index)
    return result


def split_duplicates(ordered: Iterable[core.Pod], completions: int) -> tuple[list[core.Pod], list[core.Pod]]:
    """Return the Pods that nobody needs (no index, one too high, or one that another Pod has) and the rest.

    `ordered` has those first that are missed least; of several with one index the last is kept.
    """
    by_index: dict[int | None, list[core.Pod]] = {}
    for pod in ordered:
        by_index.setdefault(index_of(pod), []).append(pod)
    useless: list[core.Pod] = []
    kept: list[core.Pod] = []
    for index, group in by_index.items():
        if index is None or index >= completions:
            useless += group
        else:
            useless += group[:-1]
            kept.append(group[-1])
    return useless, kept
