"""Which media type an answer has, from the Accept header; which one a body has, from Content-Type.

Source: the behaviour of k8s.io/apiserver's negotiation package (over goautoneg), and of go-restful, which judges Accept
first on the routes of built-in resources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from haven.apimachinery import meta
from haven.apimachinery.apierrors import NotAcceptable, UnsupportedMediaType

__all__ = [
    "DOCUMENTS",
    "JSON",
    "JSON_ONLY",
    "PROTOBUF",
    "RESOURCES",
    "RESOURCES_UNSTRUCTURED",
    "STREAM_SUFFIX",
    "YAML",
    "Answer",
    "Offer",
    "accepted_types",
    "body_media_type",
    "check_route",
    "has_route",
    "is_pretty",
    "negotiate",
    "negotiate_stream",
]

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
STREAM_SUFFIX = ";stream=watch"

_META_VERSIONS = ("meta.k8s.io/v1", "meta.k8s.io/v1beta1")
_STREAMABLE = (JSON, PROTOBUF)


@dataclass(frozen=True, slots=True)
class Offer:
    """What an endpoint can answer: media types in order of preference, and whether objects can be shown otherwise.

    `transformed` are the media types of Tables and partial metadata, which a custom resource can send as protobuf
    although it has no protobuf form itself.
    """

    media_types: tuple[str, ...]
    transformed: tuple[str, ...] = ()
    tables: bool = True
    conversions: tuple[tuple[str, str], ...] = ()
    """Further (kind, group/version) that answers can be shown as."""
    only_as: tuple[str, ...] = ()
    """Those media types that are sent for conversions alone; the others then have none."""


RESOURCES = Offer((JSON, YAML, PROTOBUF), (JSON, YAML, PROTOBUF))
RESOURCES_UNSTRUCTURED = Offer((JSON, YAML), (JSON, YAML, PROTOBUF))
DOCUMENTS = Offer((JSON, YAML, PROTOBUF))
JSON_ONLY = Offer((JSON,))


@dataclass(frozen=True, slots=True)
class Answer:
    """The form of an answer: its media type, and what the object is to be shown as.

    `kind` is "" for the object itself, else Table, PartialObjectMetadata or PartialObjectMetadataList, at
    `group_version`. `pretty` asks for JSON with line breaks.
    """

    media_type: str
    kind: str = ""
    group_version: str = ""
    pretty: bool = False
    stream: str = ""

    @property
    def is_plain_json(self) -> bool:
        """Whether stored bytes can be sent as they are."""
        return self.media_type == JSON and not self.kind and not self.pretty


@dataclass(frozen=True, slots=True)
class _Clause:
    main: str
    sub: str
    quality: float
    parameters: Mapping[str, str]

    def goes_before(self, other: _Clause) -> bool:
        return (
            self.quality > other.quality
            or (self.main != "*" and other.main == "*")
            or (self.sub != "*" and other.sub == "*")
        )


@lru_cache(maxsize=1024)
def _clauses(accept: str) -> tuple[_Clause, ...]:
    result: list[_Clause] = []
    for part in accept.split(","):
        media, *rest = part.strip(" ").split(";")
        names = [name.strip(" ") for name in media.split("/")]
        if names == ["*"]:
            names = ["*", "*"]
        if len(names) != 2 or not names[1]:
            continue
        quality = 1.0
        parameters: dict[str, str] = {}
        for item in rest:
            pair = item.split("=")
            if len(pair) != 2 or not pair[1]:
                continue
            name = pair[0].strip(" ")
            if name == "q":
                quality = _quality(pair[1])
            else:
                parameters[name] = pair[1].strip(" ")
        clause = _Clause(names[0], names[1], quality, parameters)
        # Insertion sort, as Go's does for short lists: the comparison is no order, so the algorithm matters.
        place = len(result)
        while place and clause.goes_before(result[place - 1]):
            place -= 1
        result.insert(place, clause)
    return tuple(result)


def accepted_types(accept: str) -> list[tuple[str, str]]:
    """Return what a client accepts as (type, subtype), the most wanted first."""
    return [(clause.main, clause.sub) for clause in _clauses(accept)]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _match(clause: _Clause, media_type: str) -> bool:
    main, _, sub = media_type.partition("/")
    if clause.sub == "*":
        return clause.main in ("*", main)
    return clause.main == main and clause.sub == sub


def _accept(clause: _Clause, media_type: str, offer: Offer) -> Answer | None:
    """Return the answer if a clause's parameters can be met in this media type."""
    parameters = clause.parameters
    stream = parameters.get("stream", "")
    if stream and (stream != "watch" or media_type not in _STREAMABLE):
        return None
    if parameters.get("sv") and not (offer.transformed and parameters["sv"] == "v1"):
        return None
    pretty = parameters.get("pretty") == "1"
    if not any(name in parameters for name in ("as", "g", "v")):
        if media_type not in offer.media_types or media_type in offer.only_as:
            return None
        return Answer(media_type, pretty=pretty, stream=stream)
    kind = parameters.get("as", "")
    group_version = f"{parameters.get('g', '')}/{parameters.get('v', '')}"
    if (kind, group_version) in offer.conversions and media_type in (offer.only_as or offer.media_types):
        return Answer(media_type, kind, group_version, pretty, stream)
    if group_version not in _META_VERSIONS or media_type not in offer.transformed:
        return None
    if kind == "Table":
        if not offer.tables or media_type == PROTOBUF:
            return None
    elif kind not in ("PartialObjectMetadata", "PartialObjectMetadataList"):
        return None
    return Answer(media_type, kind, group_version, pretty, stream)


@lru_cache(maxsize=1024)
def _negotiate(accept: str, offer: Offer) -> Answer | None:
    if not accept:
        return Answer(offer.media_types[0])
    candidates = dict.fromkeys((*offer.media_types, *offer.transformed))
    for clause in _clauses(accept):
        for media_type in candidates:
            if _match(clause, media_type):
                answer = _accept(clause, media_type, offer)
                if answer is not None:
                    return answer
    return None


def negotiate(accept: str, offer: Offer = RESOURCES) -> Answer:
    """Return the form of an answer; raise NotAcceptable."""
    answer = _negotiate(accept, offer)
    if answer is None:
        named = dict.fromkeys((*offer.media_types, *offer.transformed))
        raise NotAcceptable(f"only the following media types are accepted: {', '.join(named)}")
    return answer


def negotiate_stream(accept: str, offer: Offer = RESOURCES) -> Answer:
    """Return the form of a watch's events, JSON or protobuf; raise NotAcceptable."""
    answer = _negotiate(accept, offer)
    if answer is None or answer.media_type not in _STREAMABLE:
        streams = [media_type + STREAM_SUFFIX for media_type in offer.media_types if media_type in _STREAMABLE]
        raise NotAcceptable(f"only the following media types are accepted: {', '.join(streams)}")
    return answer


def check_route(accept: str, offer: Offer = RESOURCES, *, streams: bool = False) -> None:
    """Raise NotAcceptable if none of the types that a client names is among those of a built-in resource's route.

    Parameters play no part, and `*/*` is the only wildcard. `streams` tells that the route also watches, as those of
    lists do.
    """
    produced = offer.media_types
    if streams:
        produced += tuple(media_type + STREAM_SUFFIX for media_type in produced if media_type in _STREAMABLE)
    if not _route_accepts(accept, produced):
        text = f"406: Not Acceptable\n\nAvailable representations: {', '.join(produced)}"
        raise NotAcceptable(text, meta.StatusDetails())


def has_route(accept: str, offer: Offer = RESOURCES) -> bool:
    """Tell whether one of the types that a client names is among those of a built-in resource's route."""
    return _route_accepts(accept, offer.media_types)


@lru_cache(maxsize=1024)
def _route_accepts(accept: str, produced: tuple[str, ...]) -> bool:
    if not accept:
        return True
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip(" ")
        if media_type == "*/*" or media_type in produced:
            return True
    return False


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_media_type = re.compile(
    rf'\s*({_TOKEN}(?:/{_TOKEN})?)\s*(?:;\s*{_TOKEN}\s*=\s*(?:{_TOKEN}|"(?:[^"\\]|\\.)*")\s*)*;?\s*', re.ASCII
)


def body_media_type(content_type: str, accepted: Sequence[str] = (JSON, YAML, PROTOBUF)) -> str:
    """Return the media type of a body; none means the first of those accepted. Raise UnsupportedMediaType."""
    if not content_type:
        return accepted[0]
    if content_type in accepted:
        return content_type
    found = _media_type.fullmatch(content_type)
    media_type = found.group(1).lower() if found else ""
    if media_type not in accepted:
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
        )
    return media_type


_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_HUMANS = ("curl", "Wget", "Mozilla/5.0")


def is_pretty(parameter: str, user_agent: str) -> bool:
    """Tell whether JSON is to be sent with line breaks: the query parameter decides, else humans' tools get it so."""
    if parameter:
        return parameter in _TRUE
    return user_agent.startswith(_HUMANS)
