"""Reading the small files that records point to: vocabularies, lists, feature arrays."""

import os
import zipfile
from collections.abc import Mapping

import numpy as np

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import PathManager, expand_path

from .func_feats import boxes_to_locfeats


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a UTF-8 text file, stripped.

    Raises:
        UserError: The file is missing or is no UTF-8 text.
    """
    path = expand_path(path)
    try:
        with PathManager.open(path, "r", encoding="utf-8") as file:
            return [line.strip() for line in file]
    except FileNotFoundError:
        raise UserError(f"File '{path}' does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"File '{path}' is not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise UserError(f"File '{path}' cannot be read: {error.strerror or error}") from None


def read_lines_set(path: str | os.PathLike[str]) -> set[str]:
    """The different lines of a UTF-8 text file, stripped."""
    return set(read_lines(path))


def load_vocab(path: str | os.PathLike[str]) -> list[str] | None:
    """The words of a vocabulary file: line k (from 1) is the word of id k.

    Args:
        path: The file; '' means there is none.

    Returns:
        The word of each id, id 0 (begin and end of sentence) shown as '.'; None for ''.
    """
    if not os.fspath(path):
        return None
    return [".", *read_lines(path)]


def read_np(path: str | os.PathLike[str]) -> Mapping[str, np.ndarray]:
    """The arrays of a feature file.

    Args:
        path: ``.npy``, or ``.npz``.

    Returns:
        ``{"features": array}`` for a ``.npy`` and for an archive of one array, whatever its
        name there; otherwise the arrays by name.

    Raises:
        UserError: The file is missing, truncated, or holds pickled objects.
    """
    path = expand_path(path)
    try:
        with PathManager.open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"features": content}
            with content:
                arrays = {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise UserError(f"Feature file '{path}' does not exist") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"Feature file '{path}' cannot be read: {error}") from None
    if len(arrays) == 1:
        return {"features": next(iter(arrays.values()))}
    return arrays


def read_np_bbox(
    path: str | os.PathLike[str], max_feat_num: int, use_global_v: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Region features and their locations.

    Args:
        path: ``.npz`` with ``features`` (n, D), ``boxes`` (n, 4), ``image_w``, ``image_h``.
        max_feat_num: Greatest number of rows, the mean row included; <= 0 keeps all.
        use_global_v: Whether the mean of the kept regions, located over the whole image, is put
            in front.

    Returns:
        (m, D) float32 features and (m, 5) float32 locations (see :func:`boxes_to_locfeats`).

    Raises:
        UserError: The file is unreadable or lacks one of the arrays.
    """
    content = read_np(path)
    missing = [key for key in ("features", "boxes", "image_w", "image_h") if key not in content]
    if missing:
        raise UserError(f"Feature file '{path}' lacks {', '.join(missing)}")
    kept = max_feat_num - 1 if max_feat_num > 0 else None
    features = np.asarray(content["features"][:kept], dtype=np.float32)
    width, height = (float(np.ravel(content[key])[0]) for key in ("image_w", "image_h"))
    locations = boxes_to_locfeats(content["boxes"][:kept], width, height)
    if use_global_v:
        features = np.concatenate([features.mean(axis=0, keepdims=True), features])
        whole = np.array([[0, 0, 1, 1, 1]], dtype=np.float32)
        locations = np.concatenate([whole, locations])
    return features, locations
