"""A CSV file that a run appends to, whatever happens to the disk or to the file."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dqn_exp import files

log = logging.getLogger(__name__)

LONGEST_ROW = 1 << 16  # bytes


class CsvFile:
    """Appends whole rows. While they cannot be written, they wait in memory.

    Args:
        path: of the file; nothing is read or written before `begin` or `resume`.
        columns: names, the first row.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self._path, self._columns = path, columns
        self._size = 0  # bytes of whole rows on the disk
        self._waiting: list[bytes] = []  # rows, oldest first
        self._failing = False

    def begin(self) -> None:
        """Begin a new file in the place of an old one."""
        self._size = 0
        self.write([self._columns])

    def resume(self, n_bytes: int) -> None:
        """Continue after the first `n_bytes`, which a checkpoint knows; what follows is deleted.

        If the file has lost its end since, it continues after its last whole row; if it is not such a
        file any more, it begins again. Both with a warning.
        """
        self._size = self._whole_rows(n_bytes) if self._path.exists() else 0
        if self._size < n_bytes:
            lost = n_bytes - self._size
            log.warning("%s has lost its last %d bytes: rows are missing", self._path.name, lost)
        self.write([] if self._size else [self._columns])

    def _whole_rows(self, n_bytes: int) -> int:
        """Bytes of the whole rows among the first `n_bytes`; 0 without the columns at their head."""
        with open(self._path, "rb", opener=files.opener) as file:
            if file.readline(LONGEST_ROW) != _csv([self._columns]):
                return 0
            end = min(n_bytes, os.fstat(file.fileno()).st_size)
            begin = file.seek(max(0, end - LONGEST_ROW))
            return begin + file.read(end - begin).rfind(b"\n") + 1

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append rows, after those that wait; the log says when rows begin and cease to wait."""
        self._waiting.append(_csv(rows))
        try:
            self._append(b"".join(self._waiting))
        except OSError as error:
            if not self._failing:
                log.error("%s: rows wait until they can be written: %s", self._path.name, error)
            self._failing = True
            return
        self._waiting.clear()
        if self._failing:
            log.info("%s: all rows are written again", self._path.name)
        self._failing = False

    def synchronise(self) -> int:
        """Make the file safe on disk; returns its size in bytes.

        Raises:
            OSError: rows still cannot be written.
        """
        self.write([])
        if self._waiting:
            raise OSError(f"{self._path.name} has rows that cannot be written")
        with open(self._path, "rb", opener=files.opener) as file:
            os.fsync(file.fileno())
        return self._size

    @property
    def missing_rows(self) -> int:
        """Rows that have not been written."""
        return sum(rows.count(b"\n") for rows in self._waiting)

    def _append(self, data: bytes) -> None:
        """Write after the whole rows; a part of a row that an earlier attempt left is overwritten."""
        with open(self._path, "ab", opener=files.opener) as file:
            self._size = min(self._size, file.tell())
            file.truncate(self._size)
            file.write(data)
        self._size += len(data)


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
