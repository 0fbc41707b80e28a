"""What is particular to one resource when it is written; the registry does the rest alike for all.

The order of a create: default, prepare_for_create, (metadata), admission, validate. Of an update: default,
prepare_for_update, admission, validate_update. Functions change the object they are given (`default`, `prepare_…`)
or return complaints (`validate…`); none does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from haven.api.likeness import Likeness
from haven.api.storedform import forget_empty_lists
from haven.apimachinery import apierrors
from haven.apimachinery.fielderrors import ErrorList
from haven.apimachinery.validation.objectmeta import validate_object_meta, validate_object_meta_update

__all__ = [
    "FieldSelectors",
    "Strategy",
    "Unreadable",
    "create_errors",
    "make_canonical",
    "no_errors",
    "no_errors_update",
    "no_warnings",
    "nothing",
    "update_errors",
]

T = TypeVar("T")

FieldSelectors = Mapping[str, Callable[[Any], str]]
"""Fields that a field selector may name, beyond metadata.name and metadata.namespace, and how to read each."""


class Unreadable(apierrors.BadRequest):
    """An object of the right form that upstream cannot read even so: text somewhere in it is no number."""

    def __init__(self, kind: str, version: str, because: str) -> None:
        super().__init__(f'{kind} in version "{version}" cannot be handled as a {kind}: {because}')
        self.because = because


def nothing(*_objects: Any) -> None:
    """Change nothing."""


def no_errors(_new: Any) -> ErrorList:
    """Complain about nothing."""
    return []


def no_errors_update(_new: Any, _old: Any) -> ErrorList:
    """Complain about nothing."""
    return []


def no_warnings(_new: Any, _old: Any | None) -> list[str]:
    """Warn of nothing."""
    return []


@dataclass(frozen=True)
class Strategy(Generic[T]):
    """The rules of one resource, or of one of its subresources (`status`, …).

    `prepare_for_update(new, old)` restores what this endpoint may not change (status on the main one, spec on
    /status) and raises `metadata.generation` when the spec changed. `validate*` check ObjectMeta too, where, in the
    order and as often as upstream does: the registry must not; it calls `create_errors` and `update_errors`, which add
    what upstream's registry adds. `canonicalize` changes a sound object into its stored form. `complaint_group`
    is the group that an Invalid status names, where that is not the resource's own. `name_errors` returns
    what is wrong with a name (texts), as metadata.name's rule. `likeness` is for kinds that are made by the thousand:
    which values of a new object nothing depends on.
    """

    default: Callable[[T], None] = nothing
    prepare_for_create: Callable[[T], None] = nothing
    validate: Callable[[T], ErrorList] = no_errors
    prepare_for_update: Callable[[T, T], None] = nothing
    validate_update: Callable[[T, T], ErrorList] = no_errors_update
    touch: Callable[[T, T, str], None] | None = None
    """Notes in a changed object when that was: (new, old, now), after `prepare_for_update`."""
    canonicalize: Callable[[T], None] = nothing
    warnings: Callable[[T, T | None], list[str]] = no_warnings
    forgiven: Callable[[], list[str]] | None = None
    """Returns, once, what the last checks of an update let pass because it was so before: clients are warned of it."""
    name_errors: Callable[[str], list[str]] | None = None
    allow_create_on_update: bool = False
    allow_unconditional_update: bool = True
    has_generation: bool = False
    counts_empty: str = ""
    """The field whose generation rises, too, when an update gives something in it as empty."""
    grace_period_seconds: Callable[[T, int | None], int] | None = None
    mark_deleted: Callable[[T], None] | None = None
    """Makes an object that is deleted for the first time wait for its cleanup; its deletionTimestamp is set."""
    complaint_group: str | None = None
    selectable_fields: FieldSelectors = field(default_factory=dict)
    likeness: Likeness | None = None
    subresources: Mapping[str, Strategy[Any]] = field(default_factory=dict)


def create_errors(strategy: Strategy[Any], new: Any, *, namespaced: bool) -> ErrorList:
    """Return every complaint about an object that is created: the kind's own; if there are none, general ones.

    An object without complaints is made canonical, as it is to be stored.
    """
    errors = strategy.validate(new) or validate_object_meta(new.metadata, namespaced=namespaced)
    if not errors:
        make_canonical(strategy, new)
    return errors


def make_canonical(strategy: Strategy[Any], new: Any) -> None:
    """Give a sound object the form in which it is stored."""
    strategy.canonicalize(new)
    forget_empty_lists(new)


def update_errors(strategy: Strategy[Any], new: Any, old: Any, *, namespaced: bool) -> ErrorList:
    """Return every complaint about an object that is changed: general ones, then the kind's own (some twice).

    An object without complaints is made canonical, as it is to be stored.
    """
    errors = (
        validate_object_meta(new.metadata, namespaced=namespaced)
        + validate_object_meta_update(new.metadata, old.metadata)
        + strategy.validate_update(new, old)
    )
    if not errors:
        make_canonical(strategy, new)
    return errors
