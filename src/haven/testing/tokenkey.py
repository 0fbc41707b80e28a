"""The key by which the clusters of this process sign tokens of service accounts.

To find its primes takes up to half a second, and nobody needs it before there is a token: it is made in a thread,
beside the imports and the start of the first cluster.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future

from haven.cluster.certificates import new_token_key

__all__ = ["token_key"]


@functools.cache
def token_key() -> Future[bytes]:
    """Return the key in PEM, now or later; it begins to be made at the first call."""
    found: Future[bytes] = Future()
    threading.Thread(target=_make, args=(found,), name="haven-token-key", daemon=True).start()
    return found


def _make(found: Future[bytes]) -> None:
    try:
        found.set_result(new_token_key()[0])
    except BaseException as error:
        found.set_exception(error)
