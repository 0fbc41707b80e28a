"""Tokens from a file: lines of token,user,uid,"group1,group2".

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

from haven.apiserver.authentication.interface import TokenIdentity
from haven.apiserver.request import UserInfo

__all__ = ["MalformedTokenFile", "StaticTokens", "parse_token_file"]


class MalformedTokenFile(ValueError):
    """A line of the token file is not one; the message says which."""


class StaticTokens:
    """Knows a fixed set of tokens, which are good for the server's own audiences."""

    def __init__(self, users: Mapping[str, UserInfo], api_audiences: Sequence[str]) -> None:
        self._users = dict(users)
        self._api_audiences = tuple(api_audiences)

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        user = self._users.get(token)
        meant_for = tuple(audience for audience in audiences if audience in self._api_audiences)
        return TokenIdentity(user, meant_for) if user is not None and meant_for else None


def parse_token_file(text: str) -> dict[str, UserInfo]:
    """Return the users of a token file by token; raise MalformedTokenFile."""
    users: dict[str, UserInfo] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), start=1):
        if not row:
            continue
        if len(row) < 3:
            raise MalformedTokenFile(f"line {number}: want at least 3 columns (token, user, uid), got {len(row)}")
        token, name, uid = (column.strip() for column in row[:3])
        if not token:
            raise MalformedTokenFile(f"line {number}: the token is empty")
        groups = tuple(group.strip() for group in row[3].split(",")) if len(row) > 3 and row[3].strip() else ()
        users[token] = UserInfo(name=name, uid=uid, groups=groups)
    return users
