"""The floor: the least that a durable API over TLS can be, in Python on this machine.

A bare aiohttp TLS handler with one dictionary and a group-committing SQLite (synchronous=FULL); no checks at all, no
watches. `python -m bench.floor FOLDER PORT` serves it.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import ssl
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

__all__ = ["serve"]


class Floor:
    """A dictionary, and SQLite with one sync for all that wait."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._path = folder / "floor.db"
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            database.execute("BEGIN")
            database.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", [(key, data) for key, data, _ in batch])
            database.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._answer, [future for _, _, future in batch])

    @staticmethod
    def _answer(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    async def handle(self, request: Any) -> Any:
        """Answer."""
        from aiohttp import web

        path = request.raw_path
        if request.method == "POST":
            data = await request.read()
            name = json.loads(data)["metadata"]["name"]
            future: asyncio.Future[None] = self._loop.create_future()
            self._queue.put((f"{path}/{name}", data, future))
            await future
            self.objects.setdefault(path, {})[name] = data
            return web.Response(status=201, body=data, content_type="application/json")
        if path == "/readyz":
            return web.Response(body=b"ok")
        if path in self.objects:
            body = b'{"kind":"List","items":[' + b",".join(self.objects[path].values()) + b"]}"
            return web.Response(body=body, content_type="application/json")
        collection, _, name = path.rpartition("/")
        found = self.objects.get(collection, {}).get(name)
        return web.Response(status=200 if found else 404, body=found or b"", content_type="application/json")


async def serve(folder: Path, port: int) -> None:
    """Serve the floor until killed."""
    from aiohttp import web

    from haven.apiserver.devpki import serving_files

    certificate, key, _ = serving_files(folder, ["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    floor = Floor(folder)
    await asyncio.get_running_loop().create_server(web.Server(floor.handle), "127.0.0.1", port, ssl=tls)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
