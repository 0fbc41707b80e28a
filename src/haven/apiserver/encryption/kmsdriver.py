"""Speaks to a KMS plugin over its unix socket: gRPC, service v2.KeyManagementService.

Calls block their thread. gRPC is only loaded when a plugin is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from haven.apiserver.encryption.kms import Encrypted, KmsFailed, Status
from haven.apiserver.encryption.transformers import OK
from haven.apiserver.encryption.wire import annotations_of, bytes_of, decode, encode, text_of

__all__ = ["KmsPlugin"]

_SERVICE = "/v2.KeyManagementService/"


class KmsPlugin:
    """A KeyService behind a socket (unix:///path, or unix:@name for an abstract one)."""

    def __init__(
        self, endpoint: str, timeout_seconds: float, count: Callable[[str, float, str], None] | None = None
    ) -> None:
        """`count` is told of each call: its method, how long it took, and its status."""
        import grpc

        path = endpoint[len("unix:") :].removeprefix("//")
        if path.startswith("/@"):
            path = path[1:]
        address = f"unix-abstract:{path[1:]}" if path.startswith("@") else f"unix:{path}"
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._count = count
        self._failure: type[Exception] = grpc.RpcError
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])

    def status(self) -> Status:
        fields = self._call("Status", b"")
        return Status(text_of(fields, 1), text_of(fields, 2), text_of(fields, 3))

    def encrypt(self, plaintext: bytes, uid: str) -> Encrypted:
        fields = self._call("Encrypt", encode({1: plaintext, 2: uid}))
        return Encrypted(bytes_of(fields, 1), text_of(fields, 2), annotations_of(fields, 3))

    def decrypt(self, ciphertext: bytes, uid: str, key_id: str, annotations: Mapping[str, bytes]) -> bytes:
        fields = self._call("Decrypt", encode({1: ciphertext, 2: uid, 3: key_id, 4: dict(annotations)}))
        return bytes_of(fields, 1)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _call(self, method: str, body: bytes) -> dict[int, list[bytes | int]]:
        call = self._channel.unary_unary(_SERVICE + method)
        began, status = perf_counter(), OK
        try:
            answer: bytes = call(body, timeout=self._timeout_seconds, wait_for_ready=True)
        except self._failure as error:
            status = _status(error)
            raise KmsFailed(f"rpc error: {_describe(error)}", status) from None
        finally:
            if self._count is not None:
                self._count(_SERVICE + method, perf_counter() - began, status)
        return decode(answer)


def _status(error: Any) -> str:
    """Return the code of a call that failed, as Go writes it."""
    name = str(error.code().name)
    return "Canceled" if name == "CANCELLED" else "".join(part.title() for part in name.split("_"))


def _describe(error: Any) -> str:
    name = error.code().name
    code = "Canceled" if name == "CANCELLED" else name.title().replace("_", "")
    text = "context deadline exceeded" if code == "DeadlineExceeded" else error.details()
    return f"code = {code} desc = {text}"
