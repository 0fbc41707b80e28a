"""What one search for a node consisted of, as it is counted."""

from __future__ import annotations

from collections import Counter

__all__ = ["Course"]


class Course:
    """How long the steps of choosing took, and how often plugins were asked; None of a step that was not gone."""

    __slots__ = ("filter_seconds", "filters", "score_seconds", "scorers")

    def __init__(self) -> None:
        self.filter_seconds: float | None = None
        self.score_seconds: float | None = None
        self.filters: Counter[str] = Counter()
        self.scorers: Counter[str] = Counter()
