"""Atomic writes, paths and path managers."""

import errno
import os
import stat

import pytest

from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import PathHandler, PathManager, expand_path


def test_a_good_block_replaces_the_file(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_write(path, "w") as file:
        file.write("ü")
    with atomic_write(str(path)) as file:
        file.write(b"new")
        assert path.read_text(encoding="utf-8") == "ü"
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failing_block_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    for error in (RuntimeError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), atomic_write(path) as file:
            file.write(b"half")
            raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path, code):
    path = tmp_path / "model.pth"
    path.write_bytes(b"good")
    message = r"disk is full .*model\.pth' .*is unchanged"
    with pytest.raises(UserError, match=message), atomic_write(path):
        try:
            raise OSError(code, os.strerror(code))
        except OSError as error:
            # torch.save wraps what the operating system says.
            raise RuntimeError("writer failed") from error
    assert path.read_bytes() == b"good" and os.listdir(tmp_path) == ["model.pth"]


def test_a_real_size_limit_is_a_clear_error(tmp_path):
    resource = pytest.importorskip("resource")
    import signal

    path = tmp_path / "a.bin"
    path.write_bytes(b"good")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(UserError, match="size limit"), atomic_write(path) as file:
            file.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"good" and os.listdir(tmp_path) == ["a.bin"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.bin", "/proc/nowhere/a.bin", tmp_path):
        with pytest.raises(UserError, match="Cannot write"), atomic_write(path):
            pass


def test_other_errors_of_the_block_are_not_disguised(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a") as file:
        file.write((tmp_path / "missing").read_bytes())
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "a", "r"):
        pass


def test_the_result_has_ordinary_permissions(tmp_path):
    with atomic_write(tmp_path / "a") as file:
        file.write(b"")
    (tmp_path / "b").write_bytes(b"")
    mode = stat.S_IMODE(os.stat(tmp_path / "a").st_mode)
    assert mode == stat.S_IMODE(os.stat(tmp_path / "b").st_mode)


def test_paths_are_expanded_by_one_rule(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("UNSET", raising=False)
    for path, expanded in {
        "~/a": "/home/me/a",
        "$DATA/a": "/data/a",
        "${DATA}x/a": "/datax/a",
        "${DATA:-other}/a": "/data/a",
        "${UNSET:-other/place}/a": "other/place/a",
        "${UNSET:-}a": "a",
        "$UNSET/a": "$UNSET/a",
        "plain/a": "plain/a",
        "cost$5.png": "cost$5.png",
        "": "",
    }.items():
        assert expand_path(path) == expanded


def test_the_path_manager_opens_files_and_takes_handlers(tmp_path):
    class MemoryHandler(PathHandler):
        def _get_supported_prefixes(self):
            return ["memory://"]

        def _get_local_path(self, path, force=False, **kwargs):
            return str(tmp_path / path[len("memory://") :])

        def _open(self, path, mode="r", buffering=-1, **kwargs):
            return open(self._get_local_path(path), mode)

    with PathManager.open(str(tmp_path / "a.txt"), "w") as file:
        file.write("hello")
    PathManager.register_handler(MemoryHandler(), allow_override=True)
    with PathManager.open("memory://a.txt") as file:
        assert file.read() == "hello"
    assert PathManager.get_local_path("memory://a.txt") == str(tmp_path / "a.txt")
