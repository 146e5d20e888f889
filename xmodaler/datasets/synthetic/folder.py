"""Replacing the folder of an older data set, as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xmodaler.datasets.synthetic.concepts import SPLITS
from xmodaler.utils.errors import UserError

MARKER = "shapes.json"

_SPLIT = f"({'|'.join(SPLITS)})"
_FOLDERS = re.compile(
    rf"(video_)?features|cosnet|(images|videos)(/{_SPLIT})?|understanding(/(vqa|vcr))?"
    r"|understanding/flickr30k(/(images|features))?|understanding/conceptual(/features(_val)?)?"
    r"|understanding/\w+/cache|x2vlm|x2vlm/(frames(/\d{7})?|grounding/images|multilingual/[a-z]{2})"
    r"|x2vlm/(pretrain|retrieval|vqa|grounding|reasoning|video_qa|captions|multilingual)"
)
_FILES = re.compile(
    rf"(images|videos)/{_SPLIT}/\d{{7}}\.png|features/\d{{7}}\.npz"
    rf"|video_features/\d{{7}}\.npy|(video_)?scenes_{_SPLIT}\.jsonl"
    rf"|(captions|instances|video_captions|(mscoco|msvd)_caption_anno)_{_SPLIT}\.json"
    rf"|cosnet/mscoco_caption_anno_clipfilter_fast_{_SPLIT}\.json"
    r"|(relations|attributes|global_features)\.npz|(relations|attributes|vocabulary)\.txt"
    rf"|understanding/(vocab\.txt|images\.json|vqa/[\w.]+\.json|vcr/{_SPLIT}\.jsonl)"
    r"|understanding/flickr30k/(\w+\.jsonline|images/\d{7}\.png|features/\d{7}\.npz)"
    r"|understanding/conceptual/([\w.-]+\.(tsv|txt)|features(_val)?/\d+\.npz)"
    r"|understanding/\w+/cache/[\w.-]+"  # what mappers keep beside annotations
    r"|x2vlm/(vocab\.txt|frames/\d{7}/\d{2}\.png|grounding/images/\d{7}\.png)"
    r"|x2vlm/[a-z_]+/([a-z]{2}/)?\w+\.jsonl?"
    rf"|{re.escape(MARKER)}"
)


@contextlib.contextmanager
def replaced_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder that takes the place of ``out`` when the block ends well.

    It lies in ``<out>.partial-...`` beside ``out``. When the block raises, it is removed and
    ``out`` stays as it is; when the process is killed, it is left behind and never looks like
    ``out``.

    Args:
        out: A new or empty folder, an older data set, or a link to one of these.

    Raises:
        UserError: ``out`` cannot be written or holds anything that the generator does not make.
    """
    folder = Path(os.path.realpath(out))
    try:
        _check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
        new, old = partial / "new", partial / "old"
        try:
            new.mkdir()  # unlike the private `partial`, with the usual permissions
            yield new
            _check_replaceable(folder)
            _swap(folder, new, old)
        finally:
            # Both are there only if the swap was cut short and could not be undone.
            if not (new.exists() and old.exists()):
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"the data set '{folder}' cannot be written: {error.strerror or error}"
        ) from error


def _check_replaceable(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UserError(f"'{folder}' is a file; give a folder to write the data set to")
    if Path.cwd().is_relative_to(folder) or os.path.ismount(folder):
        raise UserError(
            f"'{folder}' is the current folder, around it or a mount point, which cannot be "
            "replaced; give a folder inside"
        )
    if not any(folder.iterdir()):
        return
    if not (folder / MARKER).is_file():
        raise UserError(
            f"'{folder}' holds other files; give a new folder, or one made by this generator"
        )
    if foreign := _first_foreign(folder):
        raise UserError(
            f"'{folder}' holds '{foreign}', which this generator did not make and would delete; "
            "move it elsewhere or give another folder"
        )


def _first_foreign(folder: Path) -> str | None:
    """Name of something in the folder that is not part of a data set; links never are."""
    for place, folders, files in os.walk(folder):
        for names, known in ((folders, _FOLDERS), (files, _FILES)):
            for name in sorted(names):
                path = Path(place, name)
                inside = path.relative_to(folder).as_posix()
                if path.is_symlink() or not known.fullmatch(inside):
                    return inside
    return None


def _swap(folder: Path, new: Path, old: Path) -> None:
    """Move ``new`` to ``folder``, whose old content goes to ``old``."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
