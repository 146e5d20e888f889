"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from .errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}


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
    temporary = None
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give the result the permissions a plain open() would.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if _is_full(error):
            raise UserError(
                f"The disk is full: '{path}' could not be written and is unchanged"
            ) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise UserError(f"Cannot write '{path}': {error.strerror}") from error
        raise
    _sync_folder(folder)


def _is_full(error: BaseException | None) -> bool:
    # Writers such as torch.save wrap the operating system's error in one of their own.
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


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
