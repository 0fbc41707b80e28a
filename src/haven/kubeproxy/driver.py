"""The kernel's side: transactions through libnftables, and forgetting connections to endpoints that are gone."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import shutil
from collections.abc import Sequence

__all__ = ["Conntrack", "Nftables", "NftablesError"]


class NftablesError(Exception):
    """The kernel refused a transaction; nothing of it was applied."""


class Nftables:
    """libnftables in this process: a transaction costs a call, not a process. Not for several threads at once."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("nftables")
        if name is None:
            raise NftablesError("libnftables is missing: apt-get install nftables")
        library = ctypes.CDLL(name)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for function in ("buffer_output", "buffer_error"):
            getattr(library, f"nft_ctx_{function}").argtypes = [ctypes.c_void_p]
        for function in ("get_output_buffer", "get_error_buffer"):
            getattr(library, f"nft_ctx_{function}").argtypes = [ctypes.c_void_p]
            getattr(library, f"nft_ctx_{function}").restype = ctypes.c_char_p
        self._library = library
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, text: str) -> str:
        """Apply commands as one transaction and return what they print; raise NftablesError."""
        code = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if code != 0:
            raise NftablesError(error.decode(errors="replace").strip()[:2000] or f"error {code}")
        return output.decode(errors="replace")

    async def apply(self, text: str) -> str:
        """`run` in a thread: a large transaction takes the kernel tenths of a second."""
        return await asyncio.to_thread(self.run, text)

    def close(self) -> None:
        """Free the library's context."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


class Conntrack:
    """Forgets UDP flows, which would otherwise go on to an endpoint that is gone for as long as packets come."""

    def __init__(self) -> None:
        self._program = shutil.which("conntrack")

    async def forget(self, flows: Sequence[tuple[str, ...]]) -> None:
        """Delete the entries that match each argument list; none matching is no error."""
        if self._program is None:
            return
        for flow in flows:
            process = await asyncio.create_subprocess_exec(
                self._program, "-D", *flow, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            await process.wait()
