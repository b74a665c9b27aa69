"""Files of a run folder, which anybody may have changed.

Only regular files are opened: no links, pipes, devices or folders. Opening one never waits.
"""

import errno
import os
import stat
from pathlib import Path

# What the system says of a link, a pipe that nobody reads, a folder, and a file used as a folder.
ODD = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)


class OddFileError(RuntimeError):
    """Something other than a regular file, where the program has one of its own."""


def opener(path: str | Path, flags: int) -> int:
    """An opener for `open` that follows no link; a file to write may have no second name (hard link).

    Raises:
        OddFileError: it is not such a file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its other end.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in ODD:
            raise OddFileError(f"{path}: not a regular file") from error
        raise
    found, writes = os.fstat(descriptor), flags & (os.O_WRONLY | os.O_RDWR)
    if not stat.S_ISREG(found.st_mode) or (writes and found.st_nlink > 1):
        os.close(descriptor)
        raise OddFileError(f"{path}: not a regular file, or a hard link")
    return descriptor


def read(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        most: bytes that it may have.

    Raises:
        OddFileError: it is not a regular file, or it is larger.
        OSError: it is absent, or cannot be read.
    """
    with open(path, "rb", opener=opener) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OddFileError(f"{path}: larger than {most:,} bytes")
        return file.read(most)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()
