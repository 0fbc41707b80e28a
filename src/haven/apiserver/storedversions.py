"""In which version each built-in resource is stored, and which versions of it can be read and are served."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from haven.api import scheme
from haven.api.apiserverinternal.encodings import Stored
from haven.api.retired import is_retired
from haven.apiserver.discovery import stored_as, version_order
from haven.apiserver.registry.endpoint import Endpoint

__all__ = ["stored_versions"]

_VERSIONS = tuple(chain(("v1", "v2"), (f"v1{stage}{number}" for stage in ("alpha", "beta") for number in (1, 2, 3))))


def stored_versions(endpoints: Iterable[Endpoint]) -> list[Stored]:
    """Return how a server with these endpoints stores its resources, in order of their names."""
    served: dict[tuple[str, str, str], list[str]] = {}
    for endpoint in endpoints:
        resource = endpoint.resource
        if endpoint.view is None and "watch" in resource.verbs:
            served.setdefault((resource.group, resource.plural, resource.kind), []).append(resource.version)
    served.pop(("events.k8s.io", "events", "Event"), None)  # They are the core group's.
    found = [_stored(group, plural, kind, versions) for (group, plural, kind), versions in served.items()]
    return sorted(found, key=lambda one: one.name)


def _stored(group: str, plural: str, kind: str, versions: list[str]) -> Stored:
    known = sorted((version for version in _VERSIONS if _is_known(group, version, kind)), key=version_order)
    encoding_group, encoding = stored_as(group, max(versions, key=lambda one: -known.index(one)), kind)
    decodable = [_in(group, version) for version in known]
    if (group, kind) == ("", "Event"):
        decodable.append("events.k8s.io/v1")
    in_order = tuple(_in(group, version) for version in sorted(versions))
    return Stored(group, plural, _in(encoding_group, encoding), tuple(decodable), in_order)


def _is_known(group: str, version: str, kind: str) -> bool:
    if is_retired(group, version, kind):
        return True
    try:
        scheme.kind_type(group, version, kind)
    except KeyError:
        return False
    return True


def _in(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version
