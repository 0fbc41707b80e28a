"""Shuffle sharding: a few of many queues for each flow, so that one heavy flow seldom shares all of another's. Pure.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#prioritylevelconfiguration
"""

from __future__ import annotations

__all__ = ["deal"]


def deal(value: int, deck_size: int, hand_size: int) -> list[int]:
    """Return `hand_size` different cards of 0 … deck_size-1, chosen by a hash value; every hand is as likely."""
    remainders: list[int] = []
    for position in range(hand_size):
        value, remainder = divmod(value, deck_size - position)
        remainders.append(remainder)
    hand = []
    for position, card in enumerate(remainders):
        for earlier in reversed(remainders[:position]):
            if card >= earlier:
                card += 1
        hand.append(card)
    return hand
