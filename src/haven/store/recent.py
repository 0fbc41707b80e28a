"""The records that were written last, so that overwriting them needs no look into the file.

Only the writer may use it, and only as long as nobody else writes to the file. Bounded by bytes; what was touched
longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from haven.store.interface import Record

__all__ = ["RecentRecords"]

ENTRY_BYTES = 300  # What a record costs beside its value, about.


class RecentRecords:
    """Keys and their newest record; None for keys known to be absent. A key that is not here may be anything."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._records: OrderedDict[bytes, Record | None] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._records

    def get(self, key: bytes) -> Record | None:
        """Return the record of a key that is here."""
        self._records.move_to_end(key)
        return self._records[key]

    def update(self, records: Mapping[bytes, Record | None]) -> None:
        """Remember what keys hold now."""
        for key, record in records.items():
            if key in self._records:
                self._bytes -= _cost(self._records.pop(key))
            self._records[key] = record
            self._bytes += _cost(record)
        while self._bytes > self._bytes_max:
            _, dropped = self._records.popitem(last=False)
            self._bytes -= _cost(dropped)


def _cost(record: Record | None) -> int:
    return ENTRY_BYTES + (len(record.value) if record is not None else 0)
