"""What the API server fills into objects of the core group other than Pods.

Source: the behaviour of pkg/apis/core/v1 (defaults, conversion).
"""

from __future__ import annotations

from haven.api.core import v1

__all__ = ["default_namespace", "default_secret"]


def default_secret(secret: v1.Secret) -> None:
    """Give a Secret a type, and make `stringData` part of `data`."""
    if not secret.type:
        secret.type = "Opaque"
    if secret.string_data:
        secret.data = {**secret.data, **{key: text.encode() for key, text in secret.string_data.items()}}
        secret.string_data = {}


def default_namespace(namespace: v1.Namespace) -> None:
    """Give a Namespace its phase and the label with its name."""
    if not namespace.status.phase:
        namespace.status.phase = "Active"
    if namespace.metadata.name:
        namespace.metadata.labels = {
            **namespace.metadata.labels,
            "kubernetes.io/metadata.name": namespace.metadata.name,
        }
