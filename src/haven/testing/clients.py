"""Clients of other projects, ready to use with a cluster: each is imported only when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["CLIENTS", "close_client", "make_client", "note_kubeconfig"]


def _kubernetes(kubeconfig: Path) -> Any:
    return import_module("kubernetes.config").new_client_from_config(config_file=str(kubeconfig))


def _dynamic(kubeconfig: Path) -> Any:
    return import_module("kubernetes.dynamic").DynamicClient(_kubernetes(kubeconfig))


async def _kubernetes_asyncio(kubeconfig: Path) -> Any:
    return await import_module("kubernetes_asyncio.config").new_client_from_config(config_file=str(kubeconfig))


def _kr8s(kubeconfig: Path) -> Any:
    return import_module("kr8s").api(kubeconfig=str(kubeconfig))


async def _kr8s_async(kubeconfig: Path) -> Any:
    return await import_module("kr8s.asyncio").api(kubeconfig=str(kubeconfig))


def _lightkube(kubeconfig: Path) -> Any:
    lightkube = import_module("lightkube")
    return lightkube.Client(config=lightkube.KubeConfig.from_file(str(kubeconfig)))


def _lightkube_async(kubeconfig: Path) -> Any:
    lightkube = import_module("lightkube")
    return lightkube.AsyncClient(config=lightkube.KubeConfig.from_file(str(kubeconfig)))


CLIENTS: Mapping[str, Callable[[Path], Any]] = {
    "kubernetes": _kubernetes,
    "kubernetes.dynamic": _dynamic,
    "kubernetes_asyncio": _kubernetes_asyncio,
    "kr8s": _kr8s,
    "kr8s.asyncio": _kr8s_async,
    "lightkube": _lightkube,
    "lightkube.async": _lightkube_async,
}


def make_client(library: str, kubeconfig: Path) -> Any:
    """Return a library's client (to be awaited for kubernetes_asyncio and kr8s.asyncio)."""
    make = CLIENTS.get(library)
    if make is None:
        raise ValueError(f"there is no client {library!r}: {', '.join(CLIENTS)}")
    return make(kubeconfig)


def note_kubeconfig(kubeconfig: Path) -> None:
    """Tell libraries that read KUBECONFIG only once: when they are imported, or at their first use."""
    for name in ("kubernetes.config.kube_config", "kubernetes_asyncio.config.kube_config"):
        module = sys.modules.get(name)
        if module is not None:
            vars(module)["KUBE_CONFIG_DEFAULT_LOCATION"] = str(kubeconfig)
    kr8s = sys.modules.get("kr8s._api")
    if kr8s is not None:  # It would go on with the first cluster that it has found, as its own tests know too.
        kr8s.Api._instances.clear()


def close_client(client: Any) -> None:
    """Close the connections of a synchronous client; asynchronous ones are their test's own to close."""
    kind = type(client).__module__.partition(".")[0]
    if kind == "kubernetes":
        api = getattr(client, "client", client)  # The dynamic client wraps an ApiClient.
        api.rest_client.pool_manager.clear()
        api.close()
    elif kind == "lightkube" and type(client).__name__ == "Client":
        client._client._client.close()  # It has no close of its own.
