"""Salsa20 and HSalsa20, all blocks of a message side by side. Pure.

Source: https://cr.yp.to/snuffle/spec.pdf and https://cr.yp.to/snuffle/xsalsa-20110204.pdf
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["keystream", "subkey"]

_Words = NDArray[np.uint32]
_CONSTANTS = np.frombuffer(b"expand 32-byte k", dtype="<u4")
_COLUMNS = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))
_DOUBLE_ROUNDS = 10


def keystream(key: bytes, nonce: bytes, length: int) -> bytes:
    """Return `length` bytes of Salsa20's stream for a key of 32 bytes and a nonce of 8."""
    blocks = -(-length // 64)
    state = np.empty((16, blocks), dtype=np.uint32)
    state[:] = _start(key, np.frombuffer(nonce + bytes(8), dtype="<u4"))[:, None]
    counter = np.arange(blocks, dtype=np.uint64)
    state[8] = (counter & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    state[9] = (counter >> np.uint64(32)).astype(np.uint32)
    mixed = _rounds(state.copy()) + state
    return mixed.T.astype("<u4").tobytes()[:length]


def subkey(key: bytes, nonce: bytes) -> bytes:
    """Return HSalsa20: a new key of 32 bytes, from a key and the first 16 bytes of a long nonce."""
    mixed = _rounds(_start(key, np.frombuffer(nonce, dtype="<u4"))[:, None].copy())
    chosen: _Words = mixed[[0, 5, 10, 15, 6, 7, 8, 9], 0]
    return chosen.astype("<u4").tobytes()


def _start(key: bytes, middle: _Words) -> _Words:
    words = np.frombuffer(key, dtype="<u4")
    state = np.empty(16, dtype=np.uint32)
    state[[0, 5, 10, 15]] = _CONSTANTS
    state[1:5], state[6:10], state[11:15] = words[:4], middle, words[4:]
    return state


def _rounds(x: _Words) -> _Words:
    for _ in range(_DOUBLE_ROUNDS):
        for a, b, c, d in (*_COLUMNS, *_ROWS):
            x[b] ^= _turned(x[a] + x[d], 7)
            x[c] ^= _turned(x[b] + x[a], 9)
            x[d] ^= _turned(x[c] + x[b], 13)
            x[a] ^= _turned(x[d] + x[c], 18)
    return x


def _turned(words: _Words, bits: int) -> _Words:
    left: _Words = (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))
    return left
