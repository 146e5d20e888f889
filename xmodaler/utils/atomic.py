"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from .errors import UserError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNWRITABLE = frozenset({errno.EROFS, errno.EIO})


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes ``path`` when the block ends well.

    The temporary file lies in the same folder, is flushed to the disk and then renamed, so that
    ``path`` holds either its old content or all of the new one, whenever the process dies. When
    the block raises, the temporary file is removed and the old file stays.

    Args:
        path: The file to write; missing parent folders are made.
        mode: ``"wb"`` or ``"w"`` (UTF-8 text).

    Raises:
        UserError: The folder cannot be written or the disk is full.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write opens files in mode 'w' or 'wb', not '{mode}'")
    path = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    except OSError as error:
        raise UserError(f"Cannot write '{path}': {error.strerror or error}") from error
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give the result the permissions a plain open() would.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        codes = _error_codes(error)
        if codes & _FULL:
            raise UserError(
                f"The disk is full or a size limit is reached: '{path}' could not be written "
                "and is unchanged"
            ) from error
        if codes & _UNWRITABLE:
            raise UserError(f"Cannot write '{path}', which is unchanged: {error}") from error
        raise
    _sync_folder(folder)


def _error_codes(error: BaseException | None) -> set[int]:
    """Codes of the operating system's errors behind an error."""
    codes = set()
    # Writers such as torch.save wrap the operating system's error in one of their own.
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            codes.add(error.errno)
        error = error.__cause__ or error.__context__
    return codes


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: str) -> None:
    # Makes the rename itself survive a power cut; not every platform can open a folder.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
