"""Carries ConversionReviews to webhooks."""

from __future__ import annotations

from typing import Any

from haven.api.apiextensions import v1
from haven.apimachinery import serialization
from haven.apiserver.customresources.conversion import WebhookFailure
from haven.apiserver.webhooks.answers import NoAnswer, conversion_review
from haven.apiserver.webhooks.caller import CallFailed, WebhookCaller
from haven.apiserver.webhooks.target import Target

__all__ = ["WebhookReviews"]

Tree = dict[str, Any]
_TIMEOUT_SECONDS = 30.0


class WebhookReviews:
    """Sends reviews through the server's caller of webhooks."""

    def __init__(self, caller: WebhookCaller) -> None:
        self._caller = caller

    async def send(self, name: str, client: v1.WebhookClientConfig, review: Tree) -> Tree:
        """Return the answer; raise WebhookFailure."""
        try:
            target = Target.of(client)
            data = await self._caller.post(target, serialization.encode_tree(review), timeout_seconds=_TIMEOUT_SECONDS)
        except ValueError as error:
            raise WebhookFailure(f"{name}: {error}") from None
        except CallFailed as error:
            raise WebhookFailure(str(error)) from None
        try:
            return conversion_review(data, review["apiVersion"])
        except NoAnswer as error:
            raise WebhookFailure(str(error)) from None
