"""GET of objects and lists, from the watch cache; pages at an older revision from the store.

resourceVersion semantics: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
The cache shows every acknowledged write, so reads of "the newest" and "any" are the same here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from haven.apimachinery import apierrors, meta
from haven.apimachinery.fielderrors import Path, invalid
from haven.apimachinery.names import Revision
from haven.apimachinery.selectors import FieldRequirement, FieldSelector, SelectorError
from haven.apiserver.damage import Unreadable, not_listed
from haven.apiserver.registry import continuation
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.fieldlabels import convert_field_labels
from haven.apiserver.registry.options import ListParameters, list_parameters, parse_revision
from haven.apiserver.registry.output import answer_form, entry_response, list_response
from haven.apiserver.registry.storemeter import StoreMeter
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import Entry, Selection
from haven.clock import Clock
from haven.store.interface import Compacted, RevisionInFuture, Store

__all__ = ["Page", "Reading", "check_not_newer", "selection_of"]

_FRESH_WAIT_SECONDS = 3.0
_PAGE = 500


class Page:
    """The objects of a list and what a client needs to go on."""

    __slots__ = ("continue_", "entries", "remaining", "revision")

    def __init__(self, entries: Sequence[Entry], revision: int, continue_: str = "", remaining: int | None = None):
        self.entries = entries
        self.revision = revision
        self.continue_ = continue_
        self.remaining = remaining


class InvalidResourceVersion(apierrors.ApiError):
    """A resource version that is no number; upstream answers 500 without a reason."""

    code, reason = 500, ""


def checked_revision(text: str) -> int:
    """Return a resource version as a number; raise what upstream raises when it is none."""
    try:
        return parse_revision(text)
    except ValueError as error:
        raise InvalidResourceVersion(str(invalid(Path("resourceVersion"), text, str(error)))) from None


def too_new(wanted: int, current: int, *, retry_after_seconds: int = 1) -> apierrors.Timeout:
    """Return the refusal of a revision that does not exist yet."""
    causes = [meta.StatusCause(reason="ResourceVersionTooLarge", message="Too large resource version")]
    details = meta.StatusDetails(causes=causes, retry_after_seconds=retry_after_seconds)
    return apierrors.Timeout(f"Timeout: Too large resource version: {wanted}, current: {current}", details)


async def check_not_newer(wanted: int, store: Store, clock: Clock) -> None:
    """Return once a revision exists; raise Timeout if it does not come soon."""
    if wanted <= store.revision:
        return
    deadline = clock.monotonic_seconds() + _FRESH_WAIT_SECONDS
    while clock.monotonic_seconds() < deadline:
        await clock.sleep(0.05)
        if wanted <= store.revision:
            return
    raise too_new(wanted, store.revision)


def selection_of(endpoint: Endpoint, parameters: ListParameters, namespace: str, name: str) -> Selection:
    """Return which objects a list or watch wants; raise BadRequest for fields that cannot be selected by.

    `name` is that of a watch of one object (or a field selector's metadata.name).
    """
    fields = parameters.fields
    if fields is not None:
        try:
            fields = convert_field_labels(endpoint.resource, fields, endpoint.strategy.selectable_fields)
        except SelectorError as error:
            raise apierrors.BadRequest(str(error)) from None
    if name:
        selected = fields.exact("metadata.name") if fields is not None else None
        if fields is None:
            fields = FieldSelector([FieldRequirement("metadata.name", "=", name)])
        elif selected != name:
            raise apierrors.BadRequest("fieldSelector metadata.name doesn't match requested name")
    if not endpoint.resource.namespaced:
        namespace = ""
    elif not namespace and fields is not None:
        namespace = fields.exact("metadata.namespace") or ""
    return Selection(namespace, parameters.labels, fields)


def _refuse_export(request: Request) -> None:
    values = request.query.get("export")
    if not values:
        return
    if values[0].lower() not in ("false", "0", "f"):
        raise apierrors.BadRequest("the export parameter, deprecated since v1.14, is no longer supported")


class Reading:
    """GET of stored resources."""

    def __init__(self, store: Store, clock: Clock, meter: StoreMeter | None = None) -> None:
        self._meter = meter
        self._store = store
        self._clock = clock

    async def get(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer with one object."""
        info = request.info
        form = answer_form(request, endpoint)
        if request.query:
            _refuse_export(request)
            wanted = checked_revision(request.get("resourceVersion"))
            if wanted > self._store.revision:
                await check_not_newer(wanted, self._store, self._clock)
        entry = endpoint.storage.get(info.namespace, info.name)
        if entry is None:
            raise endpoint.not_found(info.name)
        return entry_response(request, endpoint, form, await endpoint.show(entry))

    async def list(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer with a list."""
        info = request.info
        form = answer_form(request, endpoint, streams=True)
        parameters = list_parameters(request.query)
        page = await self.page(endpoint, parameters, info.namespace, info.name)
        return list_response(
            request,
            endpoint,
            form,
            page.entries,
            revision=page.revision,
            continue_=page.continue_,
            remaining=page.remaining,
        )

    async def page(self, endpoint: Endpoint, parameters: ListParameters, namespace: str, name: str = "") -> Page:
        """Return the objects that a list asks for."""
        selection = selection_of(endpoint, parameters, namespace, name)
        cache = endpoint.storage.cache
        newest = self._store.revision
        after, revision = "", newest
        if parameters.continue_:
            position = continuation.decode(parameters.continue_)
            if parameters.resource_version not in ("", "0"):
                raise apierrors.BadRequest("specifying resource version is not allowed when using continue")
            after = position.after
            revision = Revision(position.revision) if position.revision > 0 else newest
        elif parameters.resource_version:
            try:
                wanted = parse_revision(parameters.resource_version)
            except ValueError as error:
                complaint = invalid(Path("resourceVersion"), parameters.resource_version, str(error))
                raise apierrors.BadRequest(f"invalid resource version: {complaint}") from None
            match = parameters.resource_version_match
            exact = match == "Exact" or (match == "" and parameters.limit > 0 and wanted > 0)
            if wanted > newest:
                if exact:
                    raise too_new(wanted, newest, retry_after_seconds=0)
                await check_not_newer(wanted, self._store, self._clock)
                newest = self._store.revision
                revision = newest
            if exact:
                revision = Revision(wanted)
        limit = parameters.limit if parameters.resource_version != "0" else 0
        if parameters.continue_ and revision < self._store.compacted:
            raise continuation.expired(after)  # Even if the cache could tell: tokens are promised no longer than this.
        if revision >= cache.newest:
            if cache.damaged and parameters.resource_version and not parameters.continue_:
                raise endpoint.storage.not_watched()
            found = await self._page_from_cache(endpoint, selection, after, limit, revision)
            if cache.damaged:
                _refuse_damaged(endpoint, selection, after, found)
            if self._meter is not None:
                looked_at = cache.count(selection.namespace) if not selection.is_everything else len(found.entries)
                newest_wanted = not parameters.resource_version and not parameters.continue_
                self._meter.listed_from_cache(
                    endpoint.resource, fetched=looked_at, returned=len(found.entries), consistent=newest_wanted
                )
            return found
        try:
            found = await self._page_from_store(endpoint, selection, after, limit, revision)
            if self._meter is not None:
                entries = len(found.entries)
                self._meter.listed(endpoint.resource, fetched=entries, returned=entries)
            return found
        except Unreadable as error:
            raise not_listed(endpoint.resource, [error.damage], gated=endpoint.storage.is_gated) from None
        except Compacted:
            if parameters.continue_:
                raise continuation.expired(after) from None
            raise apierrors.Expired("The resourceVersion for the provided list is too old.") from None
        except RevisionInFuture as error:
            raise too_new(revision, error.newest) from None

    async def _page_from_cache(
        self, endpoint: Endpoint, selection: Selection, after: str, limit: int, revision: Revision
    ) -> Page:
        cache = endpoint.storage.cache
        name = selection.fields.exact("metadata.name") if selection.fields is not None else None
        if name is not None and (selection.namespace or not endpoint.resource.namespaced):
            one = cache.get(selection.namespace, name)
            if one is not None:
                one = await endpoint.show(one)
            return Page([one] if one is not None and selection.matches(one) else [], revision)
        start = _after(endpoint, after, selection.namespace)
        found = cache.entries(selection.namespace, after=start)
        if not selection.is_everything:
            if endpoint.view is not None:
                found = iter(await endpoint.show_all(list(found)))
            found = filter(selection.matches, found)
        if not limit or limit < 0:
            return Page(await endpoint.show_all(list(found)), revision)
        entries = list(islice(found, limit + 1))
        if len(entries) <= limit:
            return Page(await endpoint.show_all(entries), revision)
        del entries[limit:]
        remaining = None
        if selection.is_everything:
            remaining = sum(1 for _ in cache.entries(selection.namespace, after=start)) - limit
        token = continuation.encode(_relative(endpoint, entries[-1], selection), revision)
        return Page(await endpoint.show_all(entries), revision, token, remaining)

    async def _page_from_store(
        self, endpoint: Endpoint, selection: Selection, after: str, limit: int, revision: Revision
    ) -> Page:
        storage = endpoint.storage
        prefix = storage.prefix
        if selection.namespace and endpoint.resource.namespaced:
            prefix += selection.namespace.encode() + b"/"
        last = prefix + after.encode() if after else b""
        entries: list[Entry] = []
        while True:
            size = limit - len(entries) if limit > 0 and selection.is_everything else _PAGE
            chunk = await self._store.range(prefix, after=last, limit=size, revision=revision)
            read = [
                storage.entry(record.key, record.value, record.modified, record.created) for record in chunk.records
            ]
            for index, entry in enumerate(await endpoint.show_all(read)):
                if selection.matches(entry):
                    entries.append(entry)
                if limit > 0 and len(entries) == limit:
                    rest = len(chunk.records) - index - 1
                    if not rest and not chunk.more:
                        return Page(entries, revision)
                    remaining = rest + chunk.remaining if selection.is_everything else None
                    token = continuation.encode(_relative(endpoint, entry, selection), revision)
                    return Page(entries, revision, token, remaining)
            if not chunk.more:
                return Page(entries, revision)
            last = chunk.records[-1].key


def _refuse_damaged(endpoint: Endpoint, selection: Selection, after: str, page: Page) -> None:
    """Raise ApiError if something that cannot be read would be on a page, or might be."""
    last = page.entries[-1] if page.continue_ else None
    endpoint.storage.refuse_list(
        selection.namespace,
        selection.fields.exact("metadata.name") if selection.fields is not None else None,
        _after(endpoint, after, selection.namespace),
        (last.namespace, last.name) if last is not None else None,
    )


def _relative(endpoint: Endpoint, entry: Entry, selection: Selection) -> str:
    """Return an object's key below the prefix that was listed."""
    if endpoint.resource.namespaced and not selection.namespace:
        return f"{entry.namespace}/{entry.name}"
    return entry.name


def _after(endpoint: Endpoint, after: str, namespace: str) -> tuple[str, str] | None:
    if not after:
        return None
    if endpoint.resource.namespaced and not namespace:
        space, _, name = after.partition("/")
        return space, name
    return namespace, after
