"""Acting as somebody else: the Impersonate-… headers, and whether the asker may use them.

Since v1.36 there are five ways, tried in turn: four constrained ones, each with verbs of its own (impersonate:MODE on
the identity and impersonate-on:MODE:VERB on the request itself), then the old verb `impersonate`. The way that was the
right one for a user's last such request is tried first. If none allows it, the answer is the first refusal.
Source: https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple

from haven.apimachinery.apierrors import BadRequest, Forbidden
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.goformat import quote
from haven.apimachinery.validation.names import validate_domain_prefixed_path
from haven.apiserver.authentication.interface import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, MASTERS
from haven.apiserver.authentication.serviceaccounts import NODE_NAME, groups, split_username
from haven.apiserver.authentication.x509 import unescaped
from haven.apiserver.authorization.interface import Attributes, Authorizer, Verdict, decide, refusal
from haven.apiserver.decisions import Decisions
from haven.apiserver.request import Request, UserInfo

__all__ = ["Impersonation", "NobodyNamed", "wanted_user"]

_USER, _UID, _GROUP, _EXTRA = "impersonate-user", "impersonate-uid", "impersonate-group", "impersonate-extra-"
_NODE = re.compile(r"system:node:((?:[a-z0-9](?:[-a-z0-9]*[a-z0-9])?\.)*[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)", re.ASCII)
_REMEMBERED_MAX = 10_000
MANY = 4
"""From so many groups or extras on, one question with * is asked first."""


class NobodyNamed(BadRequest):
    """Headers say in whose groups, but not as whom to act."""


def wanted_user(request: Request) -> UserInfo | None:
    """Return whom the headers name, None if there are no such headers; raise BadRequest if the name is missing."""
    headers = request.headers
    name, uid = headers.get(_USER, ""), headers.get(_UID, "")
    wanted_groups = tuple(_values(request, _GROUP)) if _GROUP in headers else ()
    extra: dict[str, tuple[str, ...]] = {}
    for header in headers:
        if header.startswith(_EXTRA):
            key = unescaped(header.removeprefix(_EXTRA))
            extra[key] = (*extra.get(key, ()), *_values(request, header))
    if name:
        return UserInfo(name, uid, wanted_groups, extra)
    if uid or wanted_groups or extra:
        shown = _go_syntax(uid, wanted_groups, extra)
        raise NobodyNamed(f"requested {shown} without impersonating a user name")
    return None


def _values(request: Request, header: str) -> Sequence[str]:
    return request.repeated_headers.get(header) or (request.headers[header],)


def _go_syntax(uid: str, wanted_groups: Sequence[str], extra: Mapping[str, Sequence[str]]) -> str:
    shown_groups = f"{{{', '.join(map(quote, wanted_groups))}}}" if wanted_groups else "(nil)"
    items = (f"{quote(key)}:[]string{{{', '.join(map(quote, extra[key]))}}}" for key in sorted(extra))
    shown_extra = f"{{{', '.join(items)}}}" if extra else "(nil)"
    return (
        f'&user.DefaultInfo{{Name:"", UID:{quote(uid)}, Groups:[]string{shown_groups},'
        f" Extra:map[string][]string{shown_extra}}}"
    )


@dataclass(frozen=True, slots=True)
class _Mode:
    """One way of impersonating; the old one has no name."""

    name: str

    @property
    def verb(self) -> str:
        return f"impersonate:{self.name}" if self.name else "impersonate"

    @property
    def group(self) -> str:
        """The API group of users and groups in questions to authorizers."""
        return "authentication.k8s.io" if self.name else ""


_ASSOCIATED_NODE, _ARBITRARY_NODE = _Mode("associated-node"), _Mode("arbitrary-node")
_SERVICE_ACCOUNT, _USER_INFO, _LEGACY = _Mode("serviceaccount"), _Mode("user-info"), _Mode("")


class Impersonated(NamedTuple):
    """Whom a request acts as. `constraint` is the constrained way that allowed it; "" for the old one."""

    user: UserInfo
    constraint: str


class Impersonation:
    """Decides who a request counts as, after authentication and before authorization."""

    def __init__(self, authorizer: Authorizer, decisions: Decisions | None = None) -> None:
        self._authorizer = authorizer
        self._decisions = decisions or Decisions()
        self._last: OrderedDict[str, _Mode] = OrderedDict()

    async def apply(self, request: Request) -> Impersonated | None:
        """Return whom to act as, None if there is no impersonation; raise BadRequest or Forbidden.

        On success the headers are taken out of the request, so that nobody behind reads them again.
        """
        headers = request.headers
        for header in headers:  # Of every request: a generator would cost as much as the rest of this.
            if header.startswith("impersonate-"):
                break
        else:
            return None
        wanted = wanted_user(request)
        if wanted is None:
            return None
        began = perf_counter()
        try:
            user = await self._decide(wanted, Attributes.of(request.user, request.info))
        except Forbidden:
            self._decisions.impersonated("", perf_counter() - began, allowed=False)
            raise
        mode = user.constraint.removeprefix("impersonate:") or "legacy"
        self._decisions.impersonated(mode, perf_counter() - began, allowed=True)
        request.headers = {
            header: value
            for header, value in headers.items()
            if header not in (_USER, _UID, _GROUP) and not header.startswith(_EXTRA)
        }
        return user

    async def _decide(self, wanted: UserInfo, asked: Attributes) -> Impersonated:
        first: Forbidden | None = None
        last = self._last.get(asked.user.name)
        modes = list(_modes(wanted, asked.user))
        if last in modes:
            modes.remove(last)
            modes.insert(0, last)
        for mode in modes:
            try:
                found = Impersonated(await self._try(mode, wanted, asked), mode.verb if mode.name else "")
            except Forbidden as error:
                first = first or error
                continue
            self._remember(asked.user.name, mode)
            return found
        assert first is not None, "the old way always has an answer"
        raise first

    def _remember(self, name: str, mode: _Mode) -> None:
        self._last[name] = mode
        self._last.move_to_end(name)
        if len(self._last) > _REMEMBERED_MAX:
            self._last.popitem(last=False)

    async def _try(self, mode: _Mode, wanted: UserInfo, asked: Attributes) -> UserInfo:
        requester = asked.user
        if mode is _ASSOCIATED_NODE:
            keys = tuple(sorted(requester.extra))
            requester = replace(requester, extra={"authentication.kubernetes.io/associated-node-keys": keys})
        if mode is not _LEGACY:
            await self._ask(asked._replace(user=requester, verb=f"impersonate-on:{mode.name}:{asked.verb}"))
        actual_groups = await self._check_name(mode, wanted, requester)
        if wanted.uid:
            uid = Attributes(requester, mode.verb, group="authentication.k8s.io", version="v1", resource="uids")
            await self._ask(uid._replace(name=wanted.uid))
        await self._check_groups(mode, wanted.groups, requester)
        await self._check_extra(mode, wanted.extra, requester)
        if wanted.name == ANONYMOUS:
            actual_groups = _with(actual_groups, ALL_UNAUTHENTICATED)
        elif ALL_UNAUTHENTICATED not in actual_groups:
            actual_groups = _with(actual_groups, ALL_AUTHENTICATED)
        return replace(wanted, groups=actual_groups)

    async def _ask(self, attributes: Attributes) -> None:
        """Raise Forbidden unless the authorizers allow it."""
        verb, began = attributes.verb, perf_counter()
        decision = await decide(self._authorizer, attributes)
        allowed = decision.verdict is Verdict.ALLOW
        mode = verb.split(":")[1] if ":" in verb else "legacy"
        self._decisions.asked_to_impersonate(mode, perf_counter() - began, allowed=allowed)
        if not allowed:
            raise refusal(attributes, ": ".join(filter(None, (decision.error, decision.reason))))

    async def _check_name(self, mode: _Mode, wanted: UserInfo, requester: UserInfo) -> tuple[str, ...]:
        """Ask for the user; return the groups that it has."""
        question = Attributes(requester, mode.verb, group=mode.group, version="v1", resource="users", name=wanted.name)
        node = _NODE.fullmatch(wanted.name)
        account = split_username(wanted.name)
        given = wanted.groups
        if node is not None and mode is not _LEGACY:
            question = question._replace(resource="nodes", name="*" if mode is _ASSOCIATED_NODE else node[1])
            if given:
                raise refusal(question, f"when impersonating a node, cannot impersonate groups {_list(given)}")
            given = ("system:nodes",)
        if account is not None:
            namespace, name = account
            question = question._replace(resource="serviceaccounts", namespace=namespace, name=name)
            if given and mode is not _LEGACY:
                text = f"when impersonating a service account, cannot impersonate groups {_list(given)}"
                raise refusal(question, text)
            given = given or groups(namespace)
        await self._ask(question)
        return given

    async def _check_groups(self, mode: _Mode, wanted: Sequence[str], requester: UserInfo) -> None:
        if not wanted:
            return
        question = Attributes(requester, mode.verb, group=mode.group, version="v1", resource="groups")
        if mode is not _LEGACY:
            if "" in wanted:
                raise refusal(question, "impersonating the empty string group is not allowed")
            if MASTERS in wanted:
                text = "impersonating the system:masters group is not allowed"
                raise refusal(question._replace(name=MASTERS), text)
            if len(wanted) >= MANY and await self._may(question._replace(name="*")):
                return
        for group in wanted:
            await self._ask(question._replace(name=group))

    async def _check_extra(self, mode: _Mode, wanted: Mapping[str, Sequence[str]], requester: UserInfo) -> None:
        if not wanted:
            return
        question = Attributes(requester, mode.verb, group="authentication.k8s.io", version="v1", resource="userextras")
        if mode is not _LEGACY:
            wrong = _extra_error(wanted)
            if wrong:
                raise refusal(question, wrong)
            many = len(wanted) >= MANY or sum(map(len, wanted.values())) >= MANY
            if many and await self._may(question._replace(subresource="*", name="*")):
                return
        for key, values in wanted.items():
            for value in values:
                await self._ask(question._replace(subresource=key, name=value))

    async def _may(self, attributes: Attributes) -> bool:
        try:
            await self._ask(attributes)
        except Forbidden:
            return False
        return True


def _modes(wanted: UserInfo, requester: UserInfo) -> Iterator[_Mode]:
    only_name = not wanted.uid and not wanted.groups and not wanted.extra
    node = _NODE.fullmatch(wanted.name)
    account = split_username(wanted.name)
    if node is not None and only_name:
        here = requester.extra.get(NODE_NAME, ())
        if split_username(requester.name) is not None and tuple(here) == (node[1],):
            yield _ASSOCIATED_NODE
        yield _ARBITRARY_NODE
    if account is not None and only_name:
        yield _SERVICE_ACCOUNT
    if node is None and account is None:
        yield _USER_INFO
    yield _LEGACY


def _extra_error(extra: Mapping[str, Sequence[str]]) -> str:
    for key, values in extra.items():
        if not key:
            return "impersonating the empty string key in extra is not allowed"
        if errors := validate_domain_prefixed_path(key, Path("extra", "key")):
            texts = list(map(str, errors))
            shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
            return f"impersonating an invalid key in extra is not allowed: {shown}"
        if key != key.lower():
            return f"impersonating a non-lowercase key in extra is not allowed: {quote(key)}"
        if not values:
            return "impersonating empty values in extra is not allowed"
        if "" in values:
            return "impersonating the empty string value in extra is not allowed"
    return ""


def _with(present: tuple[str, ...], group: str) -> tuple[str, ...]:
    return present if group in present else (*present, group)


def _list(values: Sequence[str]) -> str:
    return "[" + " ".join(map(quote, values)) + "]"
