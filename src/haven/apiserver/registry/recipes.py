"""Objects that are made in the same way: the way is gone once, and then only repeated.

What becomes of a new object (its fields checked, defaults, owners of fields, admission, its kind's rules, its JSON) is
a function of its body, of who sends it to which path, of stored objects that admission plugins read, and of the time.
A kind declares which values of a body nothing of that depends on (haven.api.likeness). Bodies that differ in these
alone give objects that differ in these alone, and in identity, time and names that are made up. So the JSON of one of
them, with gaps for all of these, is the recipe of all others.

The second of a kind teaches the recipe. The third goes the long way too and is compared with what the recipe gives;
only a recipe that was right is used. It is used as long as every stored object that was read while it was taught is
still the newest, and no admission plugin that looks at more has anything to say about such a request. Objects that
gave a complaint or a warning teach nothing. What is remembered is bounded in number and size.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Final, Protocol

import orjson

from haven.api.likeness import Likeness
from haven.apimachinery import serialization
from haven.apimachinery.codecs.negotiate import JSON, body_media_type
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import IGNORE, WriteParameters
from haven.apiserver.registry.outlines import Outline, Path, Plan, Strings, take_apart
from haven.apiserver.registry.storage import Storage
from haven.apiserver.request import Request
from haven.apiserver.watchcache import Draft, Entry, WatchCache, strip_revision
from haven.metrics.families import Value

__all__ = ["Lesson", "Read", "ReadAll", "Readings", "Recipe", "Recipes"]

BODY_BYTES_MAX = 32 << 10
RECIPES_MAX = 512
OUTLINES_MAX = 512

_UNFIT: Final = object()
_holds = methodcaller("holds")
_MARK = "gap-%s-%d-"
_MARKED = re.compile(rb"gap-[0-9a-f]{32}-(\d+)-")


class Read:
    """A stored object that was looked at, or found missing."""

    __slots__ = ("_entry", "_name", "_namespace", "_storage")

    def __init__(self, storage: Storage, namespace: str, name: str, entry: Entry | None) -> None:
        self._storage = storage
        self._namespace = namespace
        self._name = name
        self._entry = entry

    @property
    def place(self) -> tuple[Any, ...]:
        """What was looked at."""
        return (self._storage, self._namespace, self._name)

    def holds(self) -> bool:
        """Tell whether a look now would find the same."""
        return self._storage.get(self._namespace, self._name) is self._entry


class ReadAll:
    """All objects of a kind in a namespace, or everywhere."""

    __slots__ = ("_cache", "_entries", "_namespace", "_newest")

    def __init__(self, cache: WatchCache, namespace: str) -> None:
        self._cache = cache
        self._namespace = namespace
        self._entries = tuple(cache.entries(namespace))
        self._newest = cache.newest

    @property
    def place(self) -> tuple[Any, ...]:
        """What was looked at."""
        return (self._cache, self._namespace)

    def holds(self) -> bool:
        """Tell whether a look now would find the same."""
        newest = self._cache.newest
        if newest == self._newest:
            return True
        if self._entries != tuple(self._cache.entries(self._namespace)):
            return False
        self._newest = newest
        return True


class Readings(Protocol):
    """Notes what admission plugins read."""

    def start(self) -> list[Read | ReadAll | None]:
        """Return a list to which every look at stored objects is added from now on; None is a write."""
        ...

    def stop(self, readings: list[Read | ReadAll | None]) -> None:
        """Add to that list no more."""
        ...


class _NotAlike(Exception):
    """An object cannot be a recipe."""


class _SaysNothing(Exception):
    """One object more is needed to tell."""


NAME, UID, NOW, MADE_UP = -1, -2, -3, -4
"""What fills a gap; what is not negative is a string of the body."""


class Recipe:
    """How the stored form of objects is put together."""

    __slots__ = (
        "_gaps", "_labels", "_parts", "_taught_by", "annotations", "counts", "fields", "generate_name", "is_proven",
        "made_up", "reads",
    )  # fmt: skip

    def __init__(
        self, entry: Entry, strings: Strings, plan: Plan, held: Sequence[tuple[int, bytes]], likeness: Likeness
    ) -> None:
        """Learn from an object that was just made of a body; raise _NotAlike or _SaysNothing."""
        value = strip_revision(entry.data)
        tree = orjson.loads(value)
        if orjson.dumps(tree) != value:
            raise _NotAlike
        marks = _Marks()
        kept = {place for place, _ in held}
        for place in plan.free:
            if place not in kept:
                marks.put(tree, plan.paths[place], orjson.loads(b'"%b"' % strings[place]), place)
        metadata = tree["metadata"]
        if plan.name is None:
            marks.put(tree, ("metadata", "name"), entry.name, NAME)
        self.generate_name = metadata.get("generateName", "")
        now = metadata["creationTimestamp"]
        if any(item.get("time") != now for item in metadata.get("managedFields", ())):
            raise _SaysNothing  # The second changed meanwhile.
        everywhere = {entry.uid: UID, now: NOW}
        self.made_up = _made_up(tree, likeness.made_up)
        if self.made_up:
            everywhere[self.made_up] = MADE_UP
        fixed = {*plan.fixed(strings), *(value for _, value in held)}
        if any(text.encode() in fixed for text in everywhere):
            raise _NotAlike
        for path in list(_places(tree, (), everywhere)):
            text = _at(tree, path)
            marks.put(tree, path, text, everywhere[text])
        data = orjson.dumps(tree)
        pieces = _MARKED.split(data)
        self._parts = pieces
        """Texts at even places, gaps at odd ones."""
        self._gaps = tuple((place, marks.meanings[int(pieces[place])]) for place in range(1, len(pieces), 2))
        self._labels = {
            key: marks.meaning_of(text) if marks.is_mark(text) else text
            for key, text in metadata.get("labels", {}).items()
        }
        self.fields = _fixed_fields(entry, data, marks)
        self.annotations: Mapping[str, str] = {}
        self.counts: tuple[Value, ...] = ()
        """What counts each object that is made in this way."""
        self.reads: tuple[Read | ReadAll, ...] = ()
        self.is_proven = False
        self._taught_by = (entry.name, self.made_up)

    @property
    def holds(self) -> bool:
        """Whether everything that was read is still the newest."""
        return all(map(_holds, self.reads))

    def count(self) -> None:
        """Count an object, for the plugins that have not seen it."""
        for value in self.counts:
            value.value += 1

    def make(self, strings: Strings, name: str, uid: str, now: str, made_up: str) -> bytes:
        """Return the JSON of the object that a body becomes, as it is stored."""
        parts = self._parts.copy()
        others = (made_up.encode(), now.encode(), uid.encode(), name.encode())
        for place, meaning in self._gaps:
            parts[place] = strings[meaning] if meaning >= 0 else others[meaning]
        return b"".join(parts)

    def draft(self, strings: Strings, value: bytes, uid: str) -> Draft:
        """Return what the watch cache wants to know of the object."""
        labels = {
            key: strings[known].decode() if isinstance(known, int) else known for key, known in self._labels.items()
        }
        return Draft(value, uid, labels, self.fields)

    def prove(self, entry: Entry, strings: Strings, likeness: Likeness) -> None:
        """Compare with an object that went the long way; raise _NotAlike if the recipe is wrong, or _SaysNothing."""
        value = strip_revision(entry.data)
        tree = orjson.loads(value)
        made_up = _made_up(tree, likeness.made_up)
        if entry.name == self._taught_by[0] or (made_up and made_up == self._taught_by[1]):
            raise _SaysNothing
        now = tree["metadata"]["creationTimestamp"]
        if any(item.get("time") != now for item in tree["metadata"].get("managedFields", ())):
            raise _SaysNothing
        if self.make(strings, entry.name, entry.uid, now, made_up) != value:
            raise _NotAlike
        self.is_proven = True


@dataclass(slots=True)
class Lesson:
    """A body that is like others, and what is known of these."""

    key: tuple[Any, ...]
    plan: Plan
    strings: Strings
    held: tuple[tuple[int, bytes], ...]
    likeness: Likeness
    recipe: Recipe | None

    @property
    def is_learned(self) -> bool:
        """Whether there is a recipe that was proven right."""
        return self.recipe is not None and self.recipe.is_proven

    @property
    def name(self) -> str:
        """The name in the body, "" if there is none."""
        place = self.plan.name
        return "" if place is None else self.strings[place].decode()


class Recipes:
    """What was learned."""

    def __init__(self, *, recipes_max: int = RECIPES_MAX, outlines_max: int = OUTLINES_MAX) -> None:
        self._recipes_max = recipes_max
        self._outlines_max = outlines_max
        self._outlines: OrderedDict[tuple[str, str, str, bytes], Outline] = OrderedDict()
        self._recipes: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def look(self, request: Request, endpoint: Endpoint, parameters: WriteParameters, manager: str) -> Lesson | None:
        """Return what there is to learn or to repeat with a request for a new object; None if there is nothing."""
        likeness = endpoint.strategy.likeness
        if likeness is None or parameters.dry_run or parameters.field_validation == IGNORE:
            return None
        body = _body(request)
        if body is None or not endpoint.conversion.is_identity:
            return None
        info, user = request.info, request.user
        text, strings = take_apart(body)
        place = (info.group, info.version, info.resource, text)
        outline = self._outlines.get(place)
        if outline is None:
            outline = self._outlines[place] = Outline(text)
            if len(self._outlines) > self._outlines_max:
                self._outlines.popitem(last=False)
        else:
            self._outlines.move_to_end(place)
        plan = outline.plan(strings, likeness)
        if plan is None:
            return None
        held = plan.held(strings)
        if plan.name is not None and any(place == plan.name for place, _ in held):
            return None
        key = (
            plan, plan.fixed(strings), held, info.namespace, manager, parameters.field_validation, user.name,
            user.groups, request.object is None,
        )  # fmt: skip
        recipes = self._recipes
        try:
            recipe = recipes[key]
        except KeyError:
            recipes[key] = None
            if len(recipes) > self._recipes_max:
                recipes.popitem(last=False)
            return None
        recipes.move_to_end(key)
        if recipe is _UNFIT:
            return None
        if recipe is not None and recipe.is_proven and not recipe.holds:
            recipe = recipes[key] = None
        return Lesson(key, plan, strings, held, likeness, recipe)

    def learn(
        self,
        lesson: Lesson,
        entry: Entry,
        reads: Sequence[Read | ReadAll | None],
        annotations: Mapping[str, str],
        counts: tuple[Value, ...] = (),
    ) -> None:
        """Take in an object that went the long way without a complaint or a warning."""
        try:
            if None in reads:
                raise _NotAlike
            # Requests that were under way at the same time may have looked at the same, and at more: no harm is done.
            found = [read for read in reads if read is not None]
            known = tuple({read.place: read for read in found}.values())
            if entry.revision != entry.created or not all(read.holds() for read in found):
                return  # Somebody was quick to change the object, or what was read for it.
            recipe = lesson.recipe
            if recipe is None or not recipe.holds:
                recipe = Recipe(entry, lesson.strings, lesson.plan, lesson.held, lesson.likeness)
                recipe.reads, recipe.annotations, recipe.counts = known, annotations, counts
                self._recipes[lesson.key] = recipe
            elif recipe.annotations != annotations:
                raise _NotAlike
            else:
                recipe.prove(entry, lesson.strings, lesson.likeness)
        except _NotAlike:
            self._recipes[lesson.key] = _UNFIT
        except _SaysNothing:
            return


def _body(request: Request) -> bytes | None:
    """Return a body in JSON; None if it is in another form, or not worth remembering."""
    if request.object is not None:
        body = serialization.encode(request.object)
    elif body_media_type(request.headers.get("content-type", "")) == JSON:
        body = request.body
    else:
        return None
    if len(body) > BODY_BYTES_MAX or b"\0" in body:
        return None
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            return None
    return body


class _Marks:
    """Texts that stand in gaps, each another, and none of them anywhere else."""

    def __init__(self) -> None:
        import secrets

        self._token = secrets.token_hex(16)
        self.meanings: list[int] = []

    def put(self, tree: Any, path: Path, expected: str, meaning: int) -> None:
        """Put a mark in place of a text; raise _NotAlike if it is not there."""
        at = _at(tree, path[:-1])
        try:
            if at[path[-1]] != expected:
                raise _NotAlike
        except (KeyError, IndexError, TypeError):
            raise _NotAlike from None
        at[path[-1]] = _MARK % (self._token, len(self.meanings))
        self.meanings.append(meaning)

    def is_mark(self, text: str) -> bool:
        return self._token in text

    def meaning_of(self, mark: str) -> int:
        return self.meanings[int(mark.split("-")[2])]


def _at(tree: Any, path: Path) -> Any:
    try:
        for step in path:
            tree = tree[step]
    except (KeyError, IndexError, TypeError):
        raise _NotAlike from None
    return tree


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    else:
        for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
            yield from _strings(item)


def _places(tree: Any, path: Path, wanted: Mapping[str, int]) -> Iterator[Path]:
    """Yield where any of some texts stands as a value."""
    if isinstance(tree, str):
        if tree in wanted:
            yield path
    elif isinstance(tree, dict):
        for name, item in tree.items():
            yield from _places(item, (*path, name), wanted)
    elif isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from _places(item, (*path, index), wanted)


def _made_up(tree: Any, pattern: re.Pattern[str] | None) -> str:
    """Return the name that admission made up, "" if it made up none; raise _NotAlike if there are several."""
    if pattern is None:
        return ""
    found = {text for text in _strings(tree) if pattern.fullmatch(text)}
    if len(found) > 1:
        raise _NotAlike
    return next(iter(found), "")


def _fixed_fields(entry: Entry, data: bytes, marks: _Marks) -> tuple[str, ...] | None:
    """Return the selectable fields that all objects have alike; None if they differ."""
    kind = entry.kind
    obj = kind.decode(data)
    fields = tuple([read(obj) for read in kind.fields.values()])
    return None if any(map(marks.is_mark, fields)) else fields
