"""Making objects as others like them were made (recipes), and learning how that is done."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from haven.apimachinery.names import Revision
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import AdmissionRequest
from haven.apiserver.registry import systemfields
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import WriteParameters
from haven.apiserver.registry.recipes import Lesson, Readings, Recipes
from haven.apiserver.registry.results import GENERATED_NAME_ATTEMPTS, Result, already_exists, ttl_seconds
from haven.apiserver.registry.storage import Storages, Write
from haven.apiserver.request import Request
from haven.store.interface import TransactionFailed

__all__ = ["Learned", "Repeating"]


@dataclass(slots=True)
class Learned:
    """What became of an object that others may be like."""

    result: Result | None = None


class Repeating:
    """Creates objects whose recipe is known."""

    def __init__(
        self,
        storages: Storages,
        admission: AdmissionChain,
        readings: Readings,
        now: Callable[[], str],
        chance: random.Random,
        *,
        event_ttl_seconds: int,
    ) -> None:
        self._storages = storages
        self._admission = admission
        self._readings = readings
        self._now = now
        self._chance = chance
        self._event_ttl_seconds = event_ttl_seconds
        self._recipes = Recipes()

    def look(self, request: Request, endpoint: Endpoint, parameters: WriteParameters, manager: str) -> Lesson | None:
        """Return what there is to learn or to repeat with a request for a new object; None if there is nothing."""
        return self._recipes.look(request, endpoint, parameters, manager)

    @contextmanager
    def learning(self, request: Request, endpoint: Endpoint, lesson: Lesson) -> Iterator[Learned]:
        """Learn from what is done inside."""
        warnings, before = len(request.warnings), set(request.audit_annotations)
        readings = self._readings.start()
        learned = Learned()
        try:
            yield learned
        finally:
            self._readings.stop(readings)
        entry = learned.result.entry if learned.result is not None else None
        if entry is not None and len(request.warnings) == warnings and not request.audit_details:
            written = {key: text for key, text in request.audit_annotations.items() if key not in before}
            counts = self._admission.counts(endpoint.resource.group_resource, written)
            self._recipes.learn(lesson, entry, readings, written, counts)

    async def again(
        self, request: Request, endpoint: Endpoint, admission: AdmissionRequest, lesson: Lesson
    ) -> Result | None:
        """Create an object as others like it were; None if that cannot be done just now."""
        recipe = lesson.recipe
        assert recipe is not None
        judges = self._admission.not_repeatable(admission)
        if judges is None:
            return None
        strings, storage = lesson.strings, endpoint.storage
        namespace = admission.namespace if endpoint.resource.namespaced else ""
        name, now = lesson.name, self._now()
        generated = not name
        request.audit_annotations.update(recipe.annotations)
        for attempt in range(GENERATED_NAME_ATTEMPTS if generated else 1):
            if generated:
                name = systemfields.generate_name(recipe.generate_name, self._chance)
            uid = systemfields.new_uid()
            value = recipe.make(strings, name, uid, now, systemfields.another_name(recipe.made_up, self._chance))
            if judges:
                admission.name, admission.object = name, storage.kind.decode(value)
                for judge in judges:
                    await judge(admission)
            existing = storage.holder(namespace, name)
            if existing is None:
                write = Write(
                    storage,
                    storage.key(namespace, name),
                    recipe.draft(strings, value, uid),
                    expected=Revision(0),
                    ttl_seconds=ttl_seconds(storage, self._event_ttl_seconds),
                )
                try:
                    await self._storages.commit([write])
                except TransactionFailed:
                    existing = storage.holder(namespace, name)
                    if existing is None:  # It came and went.
                        return None
                else:
                    recipe.count()
                    entry = storage.get(namespace, name)
                    if entry is None or entry.uid != uid:  # Deleted again before we looked.
                        return Result(object=storage.kind.decode(value), created=True)
                    return Result(entry=entry, created=True)
            if not generated or attempt == GENERATED_NAME_ATTEMPTS - 1:
                recipe.count()
                raise already_exists(endpoint, existing, generated=generated)
        raise AssertionError("unreachable")
