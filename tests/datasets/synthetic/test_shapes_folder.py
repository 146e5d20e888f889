"""Where a data set is written: nothing of the user is deleted, nothing half is left."""

import os
import shutil
from pathlib import Path

import pytest

from xmodaler.datasets.synthetic import is_made_with, make_shapes, writer
from xmodaler.utils.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "set"
    make_shapes(str(folder), size=10, seed=1, videos=10)
    return folder


@pytest.fixture
def out(old, tmp_path):
    """An older data set in a folder that holds nothing else."""
    return Path(shutil.copytree(old, tmp_path / "set"))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"size": 9}, "size is 9"),
        ({"size": 500_001}, "size is 500001"),
        ({"videos": 9}, "videos is 9; it must be 0 or 10 to"),
        ({"videos": -1}, "videos is -1"),
        ({"videos": 500_001}, "videos is 500001"),
        ({"image_size": 63}, "image_size is 63; it must be 64 to 96"),
        ({"image_size": 97}, "image_size is 97"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        make_shapes(str(tmp_path / "set"), **{"size": 10, **wrong})
    assert not names(tmp_path)


def test_an_older_set_is_replaced(out, tmp_path):
    make_shapes(str(out), size=12, seed=2)
    assert is_made_with(str(out), size=12, seed=2, videos=0)
    assert not (out / "videos").exists() and names(tmp_path) == ["set"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_new_nested_and_empty_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "a/b"):
        make_shapes(str(tmp_path / name), size=10)
        assert is_made_with(str(tmp_path / name), size=10)


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "images/mine.png", "images/train/holiday.jpg", "extra/deep/file"]
)
def test_foreign_files_in_an_old_set_are_kept(out, foreign):
    (out / foreign).parent.mkdir(parents=True, exist_ok=True)
    (out / foreign).write_text("mine")
    with pytest.raises(UserError, match=foreign.split("/")[0]):
        make_shapes(str(out), size=10)
    assert (out / foreign).read_text() == "mine" and is_made_with(str(out), seed=1)
    assert names(out.parent) == ["set"]


def test_files_that_come_while_it_generates_are_kept(out, monkeypatch):
    render = writer.render

    def meanwhile(*arguments):
        (out / "mine.txt").write_text("mine")
        return render(*arguments)

    monkeypatch.setattr(writer, "render", meanwhile)
    with pytest.raises(UserError, match=r"mine\.txt"):
        make_shapes(str(out), size=10)
    assert (out / "mine.txt").read_text() == "mine" and names(out.parent) == ["set"]


def test_other_folders_and_files_are_refused(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "captions_train.json").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        make_shapes(str(tmp_path / "home"), size=10)
    with pytest.raises(UserError, match="is a file"):
        make_shapes(str(tmp_path / "file"), size=10)
    with pytest.raises(UserError, match="cannot be written"):
        make_shapes(str(tmp_path / "file" / "set"), size=10)
    assert names(tmp_path) == ["file", "home"] and names(tmp_path / "home") == [
        "captions_train.json"
    ]


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="current folder"):
        make_shapes(".", size=10)
    make_shapes("set", size=10)
    assert is_made_with("set", size=10)


def test_a_link_to_a_set_stays_a_link(out, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(out)
    make_shapes(str(link), size=10, seed=2)
    assert link.is_symlink() and is_made_with(str(out), seed=2)
    (tmp_path / "dangling").symlink_to(tmp_path / "target")
    make_shapes(str(tmp_path / "dangling"), size=10)
    assert is_made_with(str(tmp_path / "target"), size=10)


def test_a_link_inside_a_set_is_foreign(out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (out / "features").rename(elsewhere)
    (out / "features").symlink_to(elsewhere)
    with pytest.raises(UserError, match="features"):
        make_shapes(str(out), size=10)
    assert len(names(elsewhere)) == 10


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, OSError(28, "full")])
def test_an_interruption_leaves_the_old_set(out, tmp_path, monkeypatch, interruption):
    def interrupt(*_):
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(writer, "render_video", interrupt)
        for name in ("set", "new"):
            expected = UserError if isinstance(interruption, OSError) else interruption
            with pytest.raises(expected):
                make_shapes(str(tmp_path / name), size=10, seed=2, videos=10)
    assert names(tmp_path) == ["set"] and is_made_with(str(out), seed=1)
    make_shapes(str(out), size=10, seed=2)
    assert is_made_with(str(out), seed=2)


def test_what_a_killed_process_leaves_is_in_nobodys_way(out, tmp_path):
    left = tmp_path / "set.partial-killed"
    (left / "new" / "images").mkdir(parents=True)
    make_shapes(str(out), size=10, seed=2)
    assert is_made_with(str(out), seed=2) and left.exists()


@pytest.mark.parametrize("undone", [True, False])
def test_a_failed_swap_loses_nothing(out, tmp_path, monkeypatch, undone):
    rename = Path.rename

    def failing(self, target):
        if self.name == "new" or (self.name == "old" and not undone):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(UserError, match="Input/output error"):
            make_shapes(str(out), size=10, seed=2)
    if undone:
        assert names(tmp_path) == ["set"] and is_made_with(str(out), seed=1)
    else:
        (kept,) = tmp_path.iterdir()
        assert is_made_with(str(kept / "old"), seed=1) and is_made_with(str(kept / "new"), seed=2)


def test_a_marker_that_is_no_marker(tmp_path):
    assert not is_made_with(str(tmp_path), size=10)
    for content in ("[]", "{", "7"):
        (tmp_path / "shapes.json").write_text(content)
        assert not is_made_with(str(tmp_path), size=10)
