"""Kubeconfig files: where the cluster is, and who asks.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import yaml

from haven.cluster.certificates import Pair

__all__ = ["certificate_in", "kubeconfig"]

_CERTIFICATE = re.compile(r"^ *client-certificate-data: (\S+)$", re.MULTILINE)


def kubeconfig(*, cluster: str, server: str, authority: bytes, user: str, pair: Pair) -> str:
    """Return a kubeconfig with everything embedded, so that the one file is enough."""
    context = f"{user}@{cluster}"
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": _encode(authority)}}
        ],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "preferences": {},
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _encode(pair.certificate),
                    "client-key-data": _encode(pair.key),
                },
            }
        ],
    }
    return yaml.safe_dump(document, sort_keys=False)


def certificate_in(text: str) -> bytes | None:
    """Return the client certificate, PEM, of a file that `kubeconfig` wrote; None if there is none."""
    match = _CERTIFICATE.search(text)
    if match is None:
        return None
    try:
        return base64.b64decode(match[1], validate=True)
    except binascii.Error:
        return None


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
