"""Files of a run folder, which may come from anybody: only regular files are opened, links are not followed."""

import errno
import os
import stat
from pathlib import Path

ODD = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)  # a link, a pipe, a folder, a file as folder


class OddFileError(RuntimeError):
    """Something other than a regular file, or than a folder, where the program has its own."""


def opener(path: str | Path, flags: int) -> int:
    """For `open(path, mode, opener=opener)`; what is written may have no second name (a hard link).

    Raises:
        OddFileError: it is no regular file.
    """
    try:
        # Without O_NONBLOCK, a pipe would be waited for.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in ODD:
            raise OddFileError(f"{path}: not a regular file") from error
        raise
    found = os.fstat(descriptor)
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    if not stat.S_ISREG(found.st_mode) or (writes and found.st_nlink > 1):
        os.close(descriptor)
        raise OddFileError(f"{path}: not a regular file, or a hard link")
    return descriptor


def read(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        most: bytes that it may have.

    Raises:
        OddFileError: it is none, or larger.
        OSError: it is absent, or cannot be read.
    """
    with open(path, "rb", opener=opener) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OddFileError(f"{path}: larger than {most:,} bytes")
        return file.read(most)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; a link to one is none."""
    return path.is_dir() and not path.is_symlink()
