"""What programs are told of a cluster by their environment, so that they find it and reach it.

A proxy for the rest of the world, as companies have one, must not stand between a test and its own machine: most
clients ask HTTPS_PROXY for 127.0.0.1 too unless NO_PROXY says otherwise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["changed_environment", "proxy_exceptions"]

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_EXCEPTIONS = ("NO_PROXY", "no_proxy")


def proxy_exceptions(environment: Mapping[str, str], host: str) -> dict[str, str]:
    """Return the variables that keep requests to a host away from the proxies of an environment, if it has any."""
    if not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return {}
    said = next((environment[name] for name in _EXCEPTIONS if environment.get(name)), "")
    there = [item.strip() for item in said.split(",") if item.strip()]
    if host not in there and "*" not in there:
        there.append(host)
    return dict.fromkeys(_EXCEPTIONS, ",".join(there))


@contextlib.contextmanager
def changed_environment(values: Mapping[str, str], hidden: Sequence[str] = ()) -> Iterator[None]:
    """Set variables of this process for a while, and hide others."""
    before = {name: os.environ.get(name) for name in (*values, *hidden)}
    for name in hidden:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
