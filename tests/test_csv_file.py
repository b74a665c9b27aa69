"""Rows of CSV files are whole, and wait while they cannot be written."""

import errno
import os
from pathlib import Path

import pytest

from dqn_exp.run.csv_file import CsvFile

COLUMNS = ["a", "b"]


def made(path: Path) -> CsvFile:
    file = CsvFile(path, COLUMNS)
    file.begin()
    return file


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_rows_are_appended_to_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    file = made(path)
    file.write([[1, "x,y"], [2.5, None]])
    assert lines(path) == ["a,b", '1,"x,y"', "2.5,"]
    assert file.synchronise() == path.stat().st_size


@pytest.mark.parametrize(
    ("damage", "expected", "lost"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes() + b"4,4\n5"),
            ["a,b", "1,1", "2,2", "9,9"],
            False,
        ),
        (lambda path: os.truncate(path, path.stat().st_size - 2), ["a,b", "1,1", "9,9"], True),
        (lambda path: os.truncate(path, 2), ["a,b", "9,9"], True),
        (lambda path: os.truncate(path, 0), ["a,b", "9,9"], True),
        (Path.unlink, ["a,b", "9,9"], True),
        (lambda path: path.write_text("x\n" * 1000), ["a,b", "9,9"], True),
    ],
)
def test_a_resumed_file_has_whole_rows_whatever_has_become_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage, expected: list[str], lost: bool
) -> None:
    path = tmp_path / "x.csv"
    file = made(path)
    file.write([[1, 1], [2, 2]])
    size = file.synchronise()
    damage(path)
    resumed = CsvFile(path, COLUMNS)
    resumed.resume(size)
    resumed.write([[9, 9]])
    assert lines(path) == expected
    assert ("rows are missing" in caplog.text) == lost


def test_rows_wait_while_the_disk_is_full_and_are_then_written_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "x.csv"
    file = made(path)

    def half(own: CsvFile, data: bytes) -> None:
        """Write a part of the data, as a full disk does."""
        with path.open("ab") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(CsvFile, "_append", half)
        file.write([[1, 1]])
        file.write([[2, 2], [3, 3]])
        assert file.missing_rows == 3
        with pytest.raises(OSError, match="cannot be written"):
            file.synchronise()
    file.write([[4, 4]])
    assert file.missing_rows == 0
    assert lines(path) == ["a,b", "1,1", "2,2", "3,3", "4,4"]
    assert caplog.text.count("rows wait") == 1
    assert caplog.text.count("written again") == 1
