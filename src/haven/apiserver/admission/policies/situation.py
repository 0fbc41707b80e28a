"""What expressions see of one request, and their evaluation within a budget.

Questions to the authorizer are answered from memory where it can; where somebody outside has to be asked, evaluation
stops with `Unanswered` and is begun again once the answer is there.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from haven.api import scheme
from haven.api.admissionregistration import v1
from haven.api.admissionregistration.expressions import Expressions, Unusable, Uses
from haven.api.core import v1 as core
from haven.api.scheme import Resource, subresource_kind
from haven.apimachinery import apierrors, serialization
from haven.apimachinery.cel.environment import PER_CALL_LIMIT, Program
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.library.authorization import Answer, AuthorizerValue, Question, ResourceCheck
from haven.apimachinery.cel.types import Type
from haven.apimachinery.cel.values import Host
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.interface import AdmissionRequest, Objects
from haven.apiserver.authorization.interface import Attributes, Authorizer, RemoteAuthorizer, Verdict, decide
from haven.apiserver.request import UserInfo

__all__ = [
    "BUDGET", "CONDITIONS_BUDGET", "Compiled", "OutOfBudget", "Questions", "Result", "Situation", "Tree",
    "compiled_one", "defined", "namespace_of",
]  # fmt: skip

T = TypeVar("T")
Tree = dict[str, Any]
BUDGET = 10_000_000
"""What all expressions of a policy may cost for one binding and parameter."""
CONDITIONS_BUDGET = 2_500_000
_NAMESPACES = scheme.resource_of(core.Namespace)


class OutOfBudget(Exception):
    """No further expression is evaluated."""

    def __init__(self) -> None:
        super().__init__("validation failed due to running out of cost budget, no further validation rules will be run")


class Unanswered(Exception):
    """An expression asks the authorizer what is not known yet."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.question = question


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression, and its program or why there is none."""

    expression: str
    program: Program | None
    failure: str = ""

    @classmethod
    def of(cls, expression: str, compile_: Callable[[], Program]) -> Compiled:
        try:
            return cls(expression, compile_())
        except Unusable as error:
            return cls(expression, None, str(error))


def defined(expressions: Expressions, variable: v1.Variable, uses: Uses) -> Compiled:
    """Return a policy's variable, which the expressions compiled after it know."""
    return Compiled.of(variable.expression, lambda: expressions.define(variable.name, variable.expression, uses))


def compiled_one(expressions: Expressions, text: str, uses: Uses, returns: tuple[Type, ...]) -> Compiled:
    """Return an expression that must come to one of these types."""
    return Compiled.of(text, lambda: expressions.compile(text, uses, returns))


@dataclass(frozen=True, slots=True)
class Result:
    """What one expression came to: a value, or a failure."""

    value: Any = None
    failure: str | None = None


@dataclass(slots=True)
class Questions:
    """Asks the authorizer on behalf of a request's user, each question once."""

    authorizer: Authorizer
    user: UserInfo
    answers: dict[Question, Answer] = field(default_factory=dict)

    def ask(self, question: Question) -> Answer:
        known = self.answers.get(question)
        if known is None:
            if isinstance(self.authorizer, RemoteAuthorizer):
                raise Unanswered(question)
            known = self.answers[question] = _answer(self.authorizer.authorize(self._attributes(question)))
        return known

    async def settled(self, work: Callable[[], T]) -> T:
        """Return what the work comes to, all its questions answered."""
        while True:
            try:
                return work()
            except Unanswered as pending:
                decision = await decide(self.authorizer, self._attributes(pending.question))
                self.answers[pending.question] = _answer(decision)

    def _attributes(self, question: Question) -> Attributes:
        user = self.user
        if question.service_account is not None:
            namespace, name = question.service_account
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            user = UserInfo(name=f"system:serviceaccount:{namespace}:{name}", groups=groups[:2])
        if not question.is_resource:
            return Attributes(user=user, verb=question.verb, is_resource=False, path=question.path)
        return Attributes(
            user=user, verb=question.verb, namespace=question.namespace, group=question.group, version="*",
            resource=question.resource, subresource=question.subresource, name=question.name,
            label_selector=question.label_selector, field_selector=question.field_selector,
        )  # fmt: skip


def _answer(decision: Any) -> Answer:
    return Answer(decision.verdict is Verdict.ALLOW, decision.reason, decision.error)


def namespace_of(request: AdmissionRequest, objects: Objects) -> core.Namespace | None:
    """Return the namespace a request is in, None for what is in none; raise NotFound."""
    if not request.namespace or request.is_for("", "namespaces"):
        return None
    namespace = objects.get(_NAMESPACES, "", request.namespace)
    if namespace is None:
        raise apierrors.NotFound.of(_NAMESPACES.group_resource, request.namespace)
    return namespace


class Situation:
    """A request as the expressions of one policy see it: its objects as `resource` shows them."""

    def __init__(
        self,
        request: AdmissionRequest,
        resource: Resource[Any],
        obj: Any,
        old: Any,
        namespace: core.Namespace | None,
        questions: Questions,
        *,
        shown_as: Resource[Any] | None = None,
    ) -> None:
        authorizer = AuthorizerValue(questions.ask)
        own = request.resource
        self.operation = request.operation
        self._base: dict[str, Any] = {
            "object": None if obj is None else serialization.to_tree(obj),
            "oldObject": None if old is None else serialization.to_tree(old),
            "request": _request_tree(request, resource, shown_as or resource),
            "namespaceObject": None if namespace is None else _namespace_tree(namespace),
            "authorizer": authorizer,
            "authorizer.requestResource": ResourceCheck(
                authorizer, own.group, own.plural, request.subresource, request.namespace, request.name
            ),
        }

    def evaluate(
        self,
        compiled: Sequence[Compiled | None],
        variables: Mapping[str, Compiled],
        params: Tree | None,
        budget: int,
    ) -> tuple[list[Result], int]:
        """Return the results in order and what is left of the budget; raise OutOfBudget."""
        spent = _Spent()
        activation = {**self._base, "params": params}
        activation["variables"] = _variables(variables, activation, spent)
        results: list[Result] = []
        for one in compiled:
            if one is None:
                results.append(Result())
                continue
            if one.program is None:
                results.append(Result(failure=f"compilation error: {one.failure}"))
                continue
            outcome = one.program.evaluate(activation)
            budget -= spent.take() + outcome.cost
            if budget < 0:
                raise OutOfBudget
            if outcome.failure is None:
                results.append(Result(outcome.value))
            else:
                results.append(Result(failure=f"expression '{one.expression}' resulted in error: {outcome.failure}"))
        return results, budget


class _Spent:
    """What variables cost since it was last looked at."""

    def __init__(self) -> None:
        self._cost = 0

    def add(self, cost: int) -> None:
        self._cost += cost

    def take(self) -> int:
        cost, self._cost = self._cost, 0
        return cost


def _variables(variables: Mapping[str, Compiled], activation: Mapping[str, Any], spent: _Spent) -> Host:
    def maker(name: str, one: Compiled) -> Callable[[], Any]:
        def make() -> Any:
            if one.program is None:
                raise CelError(f"composited variable {quote(name)} fails to compile: {one.failure}")
            outcome = one.program.evaluate(activation, PER_CALL_LIMIT)
            spent.add(outcome.cost)
            if outcome.failure is not None:
                raise CelError(f"composited variable {quote(name)} fails to evaluate: {outcome.failure}")
            return outcome.value

        return make

    return Host({name: maker(name, one) for name, one in variables.items()})


def _request_tree(request: AdmissionRequest, resource: Resource[Any], shown_as: Resource[Any]) -> Tree:
    kind, own_kind, own = subresource_kind(shown_as, request.subresource), request.kind, request.resource
    user: Tree = {"username": request.user.name}
    if request.user.uid:
        user["uid"] = request.user.uid
    if request.user.groups:
        user["groups"] = list(request.user.groups)
    if request.user.extra:
        user["extra"] = {name: list(values) for name, values in request.user.extra.items()}
    tree: Tree = {
        "uid": "",
        "kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "resource": {"group": resource.group, "version": resource.version, "resource": resource.plural},
        "requestKind": {"group": own_kind.group, "version": own_kind.version, "kind": own_kind.kind},
        "requestResource": {"group": own.group, "version": own.version, "resource": own.plural},
        "operation": request.operation,
        "userInfo": user,
        "object": None,
        "oldObject": None,
        "dryRun": request.dry_run,
        "options": dict(request.options) or None,
    }
    for name, value in (
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        ("name", request.name),
        ("namespace", request.namespace),
    ):
        if value:
            tree[name] = value
    return tree


_NAMESPACE_METADATA = (
    "name", "generateName", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds", "labels", "annotations", "finalizers",
)  # fmt: skip


def _namespace_tree(namespace: core.Namespace) -> Tree:
    tree: Tree = serialization.to_tree(namespace)
    metadata = tree["metadata"]
    return {
        "metadata": {name: metadata[name] for name in _NAMESPACE_METADATA if name in metadata},
        "spec": tree.get("spec") or {},
        "status": tree.get("status") or {},
    }
