"""The libraries of functions that Kubernetes adds to the language, as v1.36 offers them.

Source: https://kubernetes.io/docs/reference/using-api/cel/#cel-options-language-features-and-libraries.
"""

from haven.apimachinery.cel.declarations import Library
from haven.apimachinery.cel.library import authorization, formats, lists, network, quantities, semvers, strings, urls

__all__ = ["kubernetes_library"]


def kubernetes_library() -> list[Library]:
    """Return Kubernetes' libraries, in the order that overloads of one name are tried."""
    return [
        urls.library(),
        lists.library(),
        authorization.library(),
        quantities.library(),
        strings.library(),
        network.library(),
        formats.library(),
        semvers.library(),
    ]
