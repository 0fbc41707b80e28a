"""Which resolvers this host really uses, behind stubs such as systemd-resolved's 127.0.0.53.

Source: resolv.conf(5), https://www.freedesktop.org/software/systemd/man/systemd-resolved.service.html
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ResolvConf", "find_resolvers", "parse"]

CANDIDATES = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
RESOLVERS_MAX = 3


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The parts of a resolv.conf that Pods inherit."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> ResolvConf:
    """Read a resolv.conf; the last search line counts, as in the resolver library."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["search" | "domain", *domains]:
                search = tuple(domains)
            case ["options", *more]:
                options += more
    return ResolvConf(tuple(nameservers), search, tuple(options))


def find_resolvers(
    own_addresses: Collection[str], candidates: Sequence[Path] = CANDIDATES
) -> tuple[tuple[str, ...], str]:
    """Return resolvers that can be forwarded to, and why there are none (""  if there are).

    Loopback addresses are stubs on this host, and our own address would be a loop: neither is forwarded to.
    """
    seen: list[str] = []
    for path in candidates:
        try:
            conf = parse(path.read_text())
        except OSError:
            continue
        usable = [address for address in conf.nameservers if _usable(address, own_addresses)]
        if usable:
            return tuple(dict.fromkeys(usable))[:RESOLVERS_MAX], ""
        seen += conf.nameservers
    if seen:
        return (
            (),
            f"the host's only resolvers are stubs or this one ({', '.join(seen)}): name a real one in /etc/resolv.conf",
        )
    return (), "the host has no resolver: name one in /etc/resolv.conf"


def _usable(address: str, own_addresses: Collection[str]) -> bool:
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    return not parsed.is_loopback and address not in own_addresses
