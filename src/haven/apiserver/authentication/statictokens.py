"""Tokens from a file: lines of token,user,uid,"group1,group2".

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file
"""

from __future__ import annotations

import csv
from collections.abc import Mapping

from haven.apiserver.authentication.interface import TokenIdentity
from haven.apiserver.request import UserInfo

__all__ = ["MalformedTokenFile", "StaticTokens", "parse_token_file"]


class MalformedTokenFile(ValueError):
    """A line of the token file is not one; the message says which."""


class StaticTokens:
    """Knows a fixed set of tokens, good for every audience."""

    def __init__(self, users: Mapping[str, UserInfo]) -> None:
        self._users = dict(users)

    def authenticate_token(self, token: str, audiences: tuple[str, ...]) -> TokenIdentity | None:
        user = self._users.get(token)
        return None if user is None else TokenIdentity(user, audiences)


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
