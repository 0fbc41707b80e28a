"""Decorators that register a test's functions as webhooks of its cluster."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from haven.testing.webhooks import Admission, admission_answer, admission_configuration, conversion_answer

if TYPE_CHECKING:
    from haven.testing.world import World

__all__ = ["HookRegistry"]

F = TypeVar("F", bound=Callable[..., Any])
Tree = dict[str, Any]
_NO_NAME = re.compile(r"[^a-z0-9]+")
OPERATIONS = ("CREATE", "UPDATE")


class HookRegistry:
    """Registers webhooks of one cluster, on its event loop."""

    def __init__(self, world: World) -> None:
        self._world = world

    def rule(self, resource: str, operations: Sequence[str]) -> Tree:
        """Return the rule for a resource, by any of its names, with or without group and subresource."""
        plural, slash, subresource = resource.partition("/")
        if plural == "*":
            group = "*"
        else:
            found = self._world.objects.resource(plural)
            plural, group = found.plural, found.group
        return {
            "apiGroups": [group],
            "apiVersions": ["*"],
            "resources": [f"{plural}{slash}{subresource}"],
            "operations": [item.upper() for item in operations],
            "scope": "*",
        }

    async def admission(
        self,
        function: Callable[[Admission], Any],
        *,
        mutates: bool,
        resources: str | Sequence[str],
        operations: Sequence[str],
        name: str,
        failure_policy: str,
        timeout_seconds: int,
        side_effects: str,
        more: Tree,
    ) -> Tree:
        """Register a function; return the configuration."""
        name = name or _name_of(function)
        kind = "mutate" if mutates else "validate"
        config = await self._world.webhooks.add(
            f"/{kind}/{name}", "AdmissionReview", admission_answer(function, mutates=mutates)
        )
        names = [resources] if isinstance(resources, str) else resources
        wanted = admission_configuration(
            name,
            config,
            mutates=mutates,
            rules=[self.rule(item, operations) for item in names],
            failure_policy=failure_policy,
            timeout_seconds=timeout_seconds,
            side_effects=side_effects,
            more=more,
        )
        return await self._world.apply(wanted)

    async def conversion(self, function: Callable[[Tree, str], Any], definition: str) -> Tree:
        """Let a function convert the objects of a CustomResourceDefinition."""
        config = await self._world.webhooks.add(
            f"/convert/{definition}", "ConversionReview", conversion_answer(function)
        )
        webhook = {"clientConfig": config, "conversionReviewVersions": ["v1"]}
        patch = {"spec": {"conversion": {"strategy": "Webhook", "webhook": webhook}}}
        return await self._world.objects.patch("CustomResourceDefinition", definition, patch, "")


def _name_of(function: Callable[..., Any]) -> str:
    """Return a name that the API takes; functions that have none, such as lambdas, get one of their own each."""
    name = _NO_NAME.sub("-", getattr(function, "__name__", "").lower()).strip("-")
    return name if name and name != "lambda" else f"webhook-{uuid.uuid4().hex[:8]}"
