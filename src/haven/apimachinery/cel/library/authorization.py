"""Ask from an expression what a user may do:
authorizer.group('apps').resource('deployments').check('create').allowed().

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from haven.apimachinery.cel import values
from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.types import BOOL, STRING, Type, object_type
from haven.apimachinery.validation.names import dns1123_label_errors, dns1123_subdomain_errors

__all__ = ["AUTHORIZER", "RESOURCE_CHECK", "Answer", "AuthorizerValue", "Question", "ResourceCheck", "library"]

AUTHORIZER = object_type("kubernetes.authorization.Authorizer")
_PATH_CHECK = object_type("kubernetes.authorization.PathCheck")
_GROUP_CHECK = object_type("kubernetes.authorization.GroupCheck")
RESOURCE_CHECK = object_type("kubernetes.authorization.ResourceCheck")
_DECISION = object_type("kubernetes.authorization.Decision")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `service_account` is (namespace, name) if it is about another user than the one at hand."""

    verb: str
    service_account: tuple[str, str] | None = None
    is_resource: bool = True
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the authorizer says; `error` is what it could not evaluate."""

    allowed: bool
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class AuthorizerValue(values.Opaque):
    """`authorizer` in expressions: questions about one user, answered by the program around."""

    type: ClassVar[Type] = AUTHORIZER  # type: ignore[misc]
    ask: Callable[[Question], Answer]
    service_account: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PathCheck(values.Opaque):
    """A question about a path that is no resource."""

    type: ClassVar[Type] = _PATH_CHECK  # type: ignore[misc]
    authorizer: AuthorizerValue
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class GroupCheck(values.Opaque):
    """The beginning of a question about a resource."""

    type: ClassVar[Type] = _GROUP_CHECK  # type: ignore[misc]
    authorizer: AuthorizerValue
    group: str


@dataclass(frozen=True, slots=True, eq=False)
class ResourceCheck(values.Opaque):
    """A question about a resource."""

    type: ClassVar[Type] = RESOURCE_CHECK  # type: ignore[misc]
    authorizer: AuthorizerValue
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Decision(values.Opaque):
    """The answer."""

    type: ClassVar[Type] = _DECISION  # type: ignore[misc]
    answer: Answer


def _path(authorizer: AuthorizerValue, path: str) -> PathCheck:
    if not path.strip():
        raise CelError("path must not be empty")
    return PathCheck(authorizer, path)


def _service_account(authorizer: AuthorizerValue, namespace: str, name: str) -> AuthorizerValue:
    if dns1123_subdomain_errors(name):
        raise CelError("Invalid service account name")
    if dns1123_label_errors(namespace):
        raise CelError("Invalid service account namespace")
    return replace(authorizer, service_account=(namespace, name))


def _resource(group: GroupCheck, resource: str) -> ResourceCheck:
    if not resource.strip():
        raise CelError("resource must not be empty")
    return ResourceCheck(group.authorizer, group.group, resource)


def _asked(authorizer: AuthorizerValue, question: Question) -> Decision:
    return Decision(authorizer.ask(question))


def _check_path(check: PathCheck, verb: str) -> Decision:
    authorizer = check.authorizer
    return _asked(authorizer, Question(verb, authorizer.service_account, is_resource=False, path=check.path))


def _check_resource(check: ResourceCheck, verb: str) -> Decision:
    authorizer = check.authorizer
    question = Question(
        verb, authorizer.service_account, group=check.group, resource=check.resource, subresource=check.subresource,
        namespace=check.namespace, name=check.name, field_selector=check.field_selector,
        label_selector=check.label_selector,
    )  # fmt: skip
    return _asked(authorizer, question)


def _with(field: str) -> Any:
    return lambda check, value: replace(check, **{field: value})


def library() -> Library:
    lib = Library()
    declare = lib.declare
    check = RESOURCE_CHECK
    declare("path", ("authorizer_path", (AUTHORIZER, STRING), _PATH_CHECK, _path), member=True)
    declare("group", ("authorizer_group", (AUTHORIZER, STRING), _GROUP_CHECK, GroupCheck), member=True)
    declare(
        "serviceAccount",
        ("authorizer_serviceaccount", (AUTHORIZER, STRING, STRING), AUTHORIZER, _service_account),
        member=True,
    )
    declare("resource", ("groupcheck_resource", (_GROUP_CHECK, STRING), check, _resource), member=True)
    for name, overload, field in (
        ("subresource", "resourcecheck_subresource", "subresource"),
        ("namespace", "resourcecheck_namespace", "namespace"),
        ("name", "resourcecheck_name", "name"),
        ("fieldSelector", "authorizer_fieldselector", "field_selector"),
        ("labelSelector", "authorizer_labelselector", "label_selector"),
    ):
        declare(name, (overload, (check, STRING), check, _with(field)), member=True)
    declare(
        "check", ("pathcheck_check", (_PATH_CHECK, STRING), _DECISION, _check_path),
        ("resourcecheck_check", (check, STRING), _DECISION, _check_resource), member=True,
    )  # fmt: skip
    declare(
        "errored", ("decision_errored", (_DECISION,), BOOL, lambda decision: bool(decision.answer.error)), member=True
    )
    declare("error", ("decision_error", (_DECISION,), STRING, lambda decision: decision.answer.error), member=True)
    declare(
        "allowed",
        ("decision_allowed", (_DECISION,), BOOL, lambda decision: decision.answer.allowed),
        member=True,
    )
    declare("reason", ("decision_reason", (_DECISION,), STRING, lambda decision: decision.answer.reason), member=True)
    return lib
