"""Available memory, and allocation of large tables."""

import contextlib
import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from torch import Tensor

from dqn_exp.config.problems import ConfigError, Problem

_CGROUP_FILES = (  # (limit, in use): version 2, then version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available_bytes(device: torch.device) -> int:
    """Free bytes on a device; on the host, within the limit of this process's container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = psutil.virtual_memory().available
    for limit, usage in _CGROUP_FILES:
        if Path(limit).is_file() and (text := Path(limit).read_text().strip()).isdigit():
            available = min(available, int(text) - int(Path(usage).read_text()))
    return available


def require_memory(n_bytes: int, device: torch.device, key: str, value: object) -> None:
    """Check that a device has enough free memory.

    Raises:
        ConfigError: it has not; `key` and `value` are those of the config that need them.
    """
    if n_bytes > (available := available_bytes(device)):
        needed, free = format_bytes(n_bytes), format_bytes(available)
        raise ConfigError([Problem(key, f"needs {needed}, but {device} has {free} available", value)])


def allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros whose memory is committed now, not page by page hours later.

    In huge pages where the system has them (Linux): in pages of 4 kB, the address of nearly every
    random row of a large table has to be looked up in memory first.
    """
    if device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(*shape, dtype=dtype, device=device).zero_()
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(*shape).zero_()


def format_bytes(n_bytes: float) -> str:
    """A size for people: '3.1 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} TB"
