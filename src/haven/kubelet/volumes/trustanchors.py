"""The authorities that a projected volume shows from ClusterTrustBundles. Pure.

Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/#clustertrustbundle
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from haven.api.certificates.v1beta1 import ClusterTrustBundle
from haven.api.core.v1 import ClusterTrustBundleProjection
from haven.apimachinery.selectors import SelectorError, from_label_selector

__all__ = ["NoAnchors", "trust_anchors"]

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
_LINE = 64


class NoAnchors(Exception):
    """The projection cannot be shown; the message says why."""


def trust_anchors(projection: ClusterTrustBundleProjection, bundles: Sequence[ClusterTrustBundle]) -> bytes:
    """Return the certificates that a projection chooses, each once, as PEM; raise NoAnchors."""
    if projection.name is not None:
        chosen = [one for one in bundles if one.metadata.name == projection.name]
        missing = (
            f'while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io "{projection.name}" not found'
        )
    elif projection.signer_name is not None:
        try:
            selector = from_label_selector(projection.label_selector)
        except SelectorError as error:
            raise NoAnchors(f"while parsing label selector: {error}") from None
        chosen = [
            one
            for one in bundles
            if one.spec.signer_name == projection.signer_name and selector.matches(one.metadata.labels)
        ]
        missing = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    else:
        raise NoAnchors("ClusterTrustBundle projection requires either name or signerName to be set")
    if not chosen and not projection.optional:
        raise NoAnchors(missing)
    found = {"".join(block.split()) for one in chosen for block in _BLOCK.findall(one.spec.trust_bundle)}
    # Upstream shuffles, so that nobody relies on an order; sorted, the files change only when the content does.
    return "".join(map(_pem, sorted(found))).encode()


def _pem(body: str) -> str:
    lines = [body[start : start + _LINE] for start in range(0, len(body), _LINE)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
