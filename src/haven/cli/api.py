"""The API as short commands need it: synchronous, with the admin's certificate, nothing heavy imported."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from typing import Any
from urllib.parse import urlsplit

import yaml

from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings

__all__ = ["Api"]

TIMEOUT_SECONDS = 30.0


class Api:
    """One connection as the cluster's admin."""

    def __init__(self, settings: ClusterSettings) -> None:
        path = settings.places.admin_kubeconfig
        try:
            config = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise Failure("there is no cluster on this machine: haven up makes one") from None
        except PermissionError:
            raise Failure(f"{path} cannot be read: run it as root (sudo haven …)") from None
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile(mode="wb") as pair:  # The ssl module reads certificates from files only.
            pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Return (status, body); raise OSError if the server cannot be reached."""
        connection = http.client.HTTPSConnection(
            self._server.hostname or "", self._server.port, context=self._tls, timeout=TIMEOUT_SECONDS
        )
        try:
            data = json.dumps(body) if body is not None else None
            connection.request(method, path, data, {"Content-Type": content_type, "Accept": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:  # It died in the middle of its answer.
            raise ConnectionError(f"the API server broke off: {error!r}") from error
        finally:
            connection.close()

    def get_json(self, path: str) -> tuple[int, Any]:
        """Return (status, parsed body); status 0 if the server cannot be reached."""
        try:
            status, body = self.request("GET", path)
        except OSError:
            return 0, None
        try:
            return status, json.loads(body)
        except ValueError:
            return status, None

    def apply(self, obj: dict[str, Any], path: str, manager: str) -> Any:
        """Server-side apply an object and return it; raise Failure with the server's message."""
        status, body = self.request(
            "PATCH", f"{path}?fieldManager={manager}&force=true", obj, "application/apply-patch+yaml"
        )
        if status >= 300:
            try:
                message = json.loads(body)["message"]
            except (ValueError, KeyError):
                message = body.decode(errors="replace")[:300]
            raise Failure(f"{path}: {message}")
        return json.loads(body)
