"""Where the visual keys of a sample come from: stored regions or grids, or pictures."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .feature_store import FeatureStore, open_feature_store
from .features import RegionSet, expected_width, read_grid, read_regions, regions_kept
from .tar_shards import is_shards

MIRRORED = "_mirror"
"""What the name of the features of mirrored pictures ends with."""


class VisualSource(ABC):
    """Gives the visual keys of a record's sample. It travels to worker processes."""

    @abstractmethod
    def check(self) -> None:
        """Fail now rather than at every record.

        Raises:
            UserError: What the config names is not there.
        """

    @abstractmethod
    def sample(self, record: Mapping[str, Any], *, mirror: bool = False) -> dict[str, Any]:
        """ATT_FEATS with ATT_FEATS_LOC, or IMAGES, of one image.

        Args:
            record: Holds ``image_id``, and ``file_name`` where its file has one.
            mirror: Give the picture as in a mirror.

        Raises:
            SampleError: It has none, or none that can be used.
        """

    def can_mirror(self) -> bool:
        """Whether it has mirrored pictures."""
        return False


class RegionSource(VisualSource):
    """Stored features, of regions with boxes or of a grid without.

    Args:
        feats_folder: Folder or packed file; that of mirrored pictures has ``_mirror`` behind its
            name.
        max_feat_num: Most rows of an image, with one place for the mean row, which stays free
            where there is none; all when not positive.
        use_global_v: Put the mean of the kept regions in front of them.
        width: The width that the model takes, or None.
        grid: Rows and columns of features without boxes, which gives them locations; (0, 0) gives
            none. All cells are kept.
    """

    def __init__(
        self,
        feats_folder: str,
        max_feat_num: int,
        use_global_v: bool = True,
        width: int | None = None,
        grid: tuple[int, int] = (0, 0),
    ) -> None:
        if len(grid) != 2 or min(grid) < 0 or (max(grid) > 0) != (min(grid) > 0):
            raise UserError(
                f"DATALOADER.FEATS_GRID is {list(grid)}; give rows and columns, such as [7, 7]"
            )
        self.grid = tuple(grid)
        self.feats_folder = feats_folder
        self.max_feat_num = max_feat_num
        self.use_global_v = use_global_v
        self.width = width
        self._stores: dict[str, FeatureStore] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stores": {}}

    def check(self) -> None:
        if not self.feats_folder:
            raise UserError(
                "DATALOADER.FEATS_FOLDER and IMAGE_FOLDER are both empty; name the region features "
                "or the pictures of the data"
            )
        self.store()

    def store(self, suffix: str = "") -> FeatureStore:
        """The features at the folder's name with a suffix, opened once per process."""
        if suffix not in self._stores:
            self._stores[suffix] = open_feature_store(self.feats_folder.rstrip("/") + suffix)
        return self._stores[suffix]

    def has(self, suffix: str) -> bool:
        """Whether there are features at the folder's name with a suffix."""
        try:
            self.store(suffix)
        except UserError:
            return False
        return True

    def can_mirror(self) -> bool:
        return self.has(MIRRORED)

    def sample(self, record: Mapping[str, Any], *, mirror: bool = False) -> dict[str, Any]:
        regions = self.regions(record, suffix=MIRRORED if mirror else "")
        return regions.sample(self.use_global_v)

    def regions(
        self, record: Mapping[str, Any], *, suffix: str = "", most: int | None = None
    ) -> RegionSet:
        """The regions of a record.

        Args:
            record: As for :meth:`sample`.
            suffix: Behind the folder's name.
            most: How many to keep; by default ``max_feat_num - 1``.

        Raises:
            SampleError: There are none, or they cannot be used.
        """
        store, image_id = self.store(suffix), str(record["image_id"])
        name = f"image '{image_id}'"
        stem = os.path.splitext(os.path.basename(record.get("file_name") or ""))[0]
        known = stem if stem and image_id not in store and stem in store else image_id
        return self.regions_of_arrays(store.get(known), name, most)

    def regions_of_arrays(
        self, arrays: Mapping[str, np.ndarray], name: str, most: int | None = None
    ) -> RegionSet:
        """The regions of arrays as they are stored.

        Args:
            arrays: See :func:`.features.read_regions`.
            name: The record's name in messages.
            most: How many to keep; by default ``max_feat_num - 1``.
        """
        if "boxes" not in arrays and max(self.grid) > 0:
            return read_grid(arrays, name, self.grid, self.width)
        most = regions_kept(self.max_feat_num, name) if most is None else most
        return read_regions(arrays, name, most, self.width, check_boxes=True)

    def sample_of_arrays(self, arrays: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
        """:meth:`sample` of arrays as they are stored."""
        return self.regions_of_arrays(arrays, name).sample(self.use_global_v)


def merged_mean(first: RegionSet, second: RegionSet) -> np.ndarray:
    """The mean row of two sets of regions of one image.

    Each set counts with its number of regions and one more, for its own mean row.

    Returns:
        (D,) float32.
    """
    weights = (len(first) + 1, len(second) + 1)
    means = (first.features.mean(axis=0), second.features.mean(axis=0))
    total = means[0] * weights[0] + means[1] * weights[1]
    return (total / sum(weights)).astype(np.float32)


def build_source(
    cfg: CfgNode, stage: str, feats_folder: str | None = None, use_global_v: bool | None = None
) -> VisualSource:
    """The source that DATALOADER names: features where FEATS_FOLDER is set, else pictures.

    Pictures lie below IMAGE_FOLDER or in the tar shards that the stage's ANNFILE names.

    Args:
        cfg: The config.
        stage: ``"train"``, ``"val"`` or ``"test"``.
        feats_folder: In place of DATALOADER.FEATS_FOLDER.
        use_global_v: In place of DATALOADER.USE_GLOBAL_V.
    """
    loader = cfg.DATALOADER
    folder = loader.FEATS_FOLDER if feats_folder is None else feats_folder
    shards = is_shards(expand_path(loader[f"{stage.upper()}_ANNFILE"]))
    if not folder and (loader.IMAGE_FOLDER or shards):
        from .picture_source import PictureSource

        return PictureSource.from_config(cfg, stage)
    return RegionSource(
        folder,
        loader.MAX_FEAT_NUM,
        loader.USE_GLOBAL_V if use_global_v is None else use_global_v,
        expected_width(cfg),
        tuple(loader.FEATS_GRID),
    )
