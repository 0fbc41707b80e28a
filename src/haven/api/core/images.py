"""Which tag an image's name has, for the default of imagePullPolicy.

Source: https://kubernetes.io/docs/concepts/containers/images/#imagepullpolicy-defaulting and the grammar of
github.com/distribution/reference.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["image_tag"]

_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>{_DOMAIN}/{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_NAME_BYTES_MAX = 255


@lru_cache(4096)
def image_tag(image: str) -> str:
    """Return the tag, "latest" if neither tag nor digest is given, and "" for a digest alone or a malformed name."""
    if _IDENTIFIER.fullmatch(image):
        return ""
    domain, slash, rest = image.partition("/")
    if not slash or not ("." in domain or ":" in domain or domain == "localhost" or domain.lower() != domain):
        domain, rest = "docker.io", image
    if domain in ("docker.io", "index.docker.io"):
        domain = "docker.io"
        if "/" not in rest:
            rest = f"library/{rest}"
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None or len(match["name"].partition("/")[2]) > _NAME_BYTES_MAX:
        return ""
    if match["tag"]:
        return str(match["tag"])
    return "" if match["digest"] else "latest"
