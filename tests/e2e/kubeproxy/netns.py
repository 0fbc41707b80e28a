"""A network namespace of a test's own, and a way to work inside it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tests.e2e.namespaces import enter_network

__all__ = ["inside", "netns", "run"]

T = TypeVar("T")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def netns(name: str) -> Iterator[str]:
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "netns", "del", name)


def inside(name: str, work: Callable[[], T]) -> T:
    """Run a function in a thread that lives in the namespace (a thread has a network namespace of its own)."""
    result: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
            try:
                enter_network(fd)
            finally:
                os.close(fd)
            result.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]
