"""Memory limits, read from real files and from the machine at hand."""

import re
from pathlib import Path

import psutil
import pytest
import torch

from dqn_exp.buffers import memory

CPU = torch.device("cpu")


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the files of one cgroup per (limit, in use), and has the module read only those."""

    def write(*groups: tuple[str, str]) -> None:
        files = []
        for number, texts in enumerate(groups):
            pair = [tmp_path / f"{number}.{name}" for name in ("limit", "usage")]
            for path, text in zip(pair, texts, strict=True):
                path.write_text(text)
            files.append(tuple(map(str, pair)))
        monkeypatch.setattr(memory, "_CGROUP_FILES", tuple(files))

    return write


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (3_100_000, "3.1 MB"),
        (42_000_000_000, "42 GB"),
        (5_600_000_000_000, "5.6 TB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),  # not '1e+03 kB'
    ],
)
def test_bytes_are_written_with_three_digits_and_a_unit(n_bytes: int, text: str):
    assert memory.format_bytes(n_bytes) == text


def test_available_bytes_are_positive_and_no_more_than_the_machine_has():
    assert 0 < memory.available_bytes(CPU) <= psutil.virtual_memory().total


def test_a_container_limit_leaves_what_is_not_in_use(cgroups):
    cgroups(("2000000\n", "500000\n"))
    assert memory.available_bytes(CPU) == 1_500_000


def test_the_tightest_of_several_limits_holds(cgroups):
    cgroups(("2000000\n", "500000\n"), ("3000000\n", "2900000\n"))
    assert memory.available_bytes(CPU) == 100_000


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n"])
def test_a_container_without_a_limit_leaves_what_the_machine_has(cgroups, limit: str):
    cgroups((limit, "500000\n"))
    machine = psutil.virtual_memory()
    assert 0.5 * machine.available < memory.available_bytes(CPU) <= machine.total


def test_no_cgroup_files_leave_what_the_machine_has(tmp_path: Path, monkeypatch):
    absent = (str(tmp_path / "limit"), str(tmp_path / "usage"))
    monkeypatch.setattr(memory, "_CGROUP_FILES", (absent,))
    machine = psutil.virtual_memory()
    assert 0.5 * machine.available < memory.available_bytes(CPU) <= machine.total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_tables_are_zeros_in_memory_of_their_own(dtype: torch.dtype):
    first, second = (memory.allocate((3, 4, 5), dtype, CPU) for _ in range(2))
    assert torch.equal(first, torch.zeros(3, 4, 5, dtype=dtype))
    first.fill_(1)
    assert not second.any()


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has no huge pages"
)
def test_large_tables_ask_for_huge_pages_and_are_there_at_once():
    before = psutil.Process().memory_info().rss
    table = memory.allocate((64, 2**20), torch.uint8, CPU)
    assert psutil.Process().memory_info().rss - before > 0.9 * table.nbytes
    # The last mapping that begins at or before the table, with the lines about it.
    mappings = re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.M)[1:]
    own = [m for m in mappings if int(m.partition("-")[0], 16) <= table.data_ptr()][-1]
    assert re.search(r"^VmFlags:.* hg\b", own, flags=re.M)
