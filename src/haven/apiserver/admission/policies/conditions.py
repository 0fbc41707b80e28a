"""Match conditions: expressions that all must hold for a webhook or policy to care about a request.

Source:
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-matchconditions
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

from haven.api.admissionregistration import v1
from haven.api.admissionregistration.expressions import BOOL, Expressions, Uses
from haven.api.scheme import Resource
from haven.apiserver.admission.interface import AdmissionRequest, forbidden
from haven.apiserver.admission.policies.situation import (
    CONDITIONS_BUDGET,
    Compiled,
    OutOfBudget,
    Questions,
    Situation,
    Tree,
)
from haven.apiserver.authorization.interface import Authorizer

__all__ = ["ConditionFailure", "HookConditions", "hold"]

Told = Callable[[float, int], None]


class ConditionFailure(Exception):
    """A condition could not be evaluated, and none of the others is false."""


def hold(
    conditions: Sequence[Compiled],
    variables: Mapping[str, Compiled],
    situation: Situation,
    params: Tree | None,
    *,
    fails_open: bool,
    told: Told | None = None,
) -> bool:
    """Tell whether all conditions hold; raise ConditionFailure, unless that is to count as false.

    What does not simply hold is told: how many seconds that took, and how many conditions failed.
    """
    began = perf_counter()

    def tell(failed: int) -> None:
        if told is not None:
            told(perf_counter() - began, failed)

    try:
        results, _ = situation.evaluate(conditions, variables, params, CONDITIONS_BUDGET)
    except OutOfBudget as error:
        tell(0)
        if fails_open:
            return False
        raise ConditionFailure(str(error)) from None
    failed = 0
    for result in results:
        if result.failure is not None:
            failed += 1
        elif result.value is False:
            tell(failed)
            return False
    failures = list(dict.fromkeys(result.failure for result in results if result.failure is not None))
    if not failures:
        return True
    tell(failed)
    if fails_open:
        return False
    raise ConditionFailure(failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")


class HookConditions:
    """Evaluates the match conditions of webhooks."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._expressions = Expressions(composed=False)

    async def match(
        self,
        conditions: Sequence[v1.MatchCondition],
        request: AdmissionRequest,
        resource: Resource[Any],
        obj: Any,
        old: Any,
        *,
        fails_open: bool,
        told: Told | None = None,
    ) -> bool:
        """Tell whether all conditions hold for the objects as `resource` shows them; raise ApiError."""
        compiled = [self._compiled(condition.expression) for condition in conditions]
        questions = Questions(self._authorizer, request.user)
        situation = Situation(request, request.resource, obj, old, None, questions, shown_as=resource)
        try:
            return await questions.settled(
                lambda: hold(compiled, {}, situation, None, fails_open=fails_open, told=told)
            )
        except ConditionFailure as error:
            raise forbidden(request, str(error)) from None

    @lru_cache(maxsize=1024)  # noqa: B019 - one instance per server
    def _compiled(self, expression: str) -> Compiled:
        return Compiled.of(expression, lambda: self._expressions.compile(expression, Uses(), BOOL))
