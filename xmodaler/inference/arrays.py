"""From stored or given arrays (features, relations, attributes, ...) to the samples of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, kfg
from xmodaler.datasets import DATASETS_REGISTRY, MSCoCoCOSNetDataset, MSCoCoDataset, SampleError
from xmodaler.datasets.features import expected_width, kept_regions
from xmodaler.datasets.images.mscoco_cosnet import grid_sample
from xmodaler.datasets.images.understanding import UnderstandingDataset
from xmodaler.datasets.visual_source import RegionSource
from xmodaler.utils.errors import UserError

__all__ = ["ArrayReader", "run_dataset"]

#: Names under which a file or mapping may hold what comes beside the regions, the usual first.
SIDE_NAMES = {
    kfg.RELATION: ("relations", "relation"),
    kfg.ATTRIBUTE: ("attributes", "attribute"),
    kfg.GLOBAL_FEATS: ("global_features", "global_feats", "gv_feat", "g_feature"),
    kfg.SEMANTICS_IDS: ("semantics_ids", "semantics", "attr_pred"),
}
_FILES = {
    kfg.RELATION: "RELATION_FILE",
    kfg.ATTRIBUTE: "ATTRIBUTE_FILE",
    kfg.GLOBAL_FEATS: "GV_FEAT_FILE",
}


def run_dataset(cfg: CfgNode) -> type:
    """The data set class on which a run tests its model; MSCoCoDataset where it is unknown here."""
    for stage in ("TEST", "VAL", "TRAIN"):
        name = cfg.DATASETS[stage]
        if name:
            try:
                return DATASETS_REGISTRY.get(name)
            except UserError:  # a class of the user's own, which captioning does not need
                continue
    return MSCoCoDataset


class ArrayReader:
    """Turns the arrays of one image or clip into what the model's test data hold for it.

    Features become ATT_FEATS as the data set of the run makes them: same choice of regions or
    frames, same mean region. What the model reads beside them must be there as well: in the same
    arrays (see ``SIDE_NAMES``) or, for a file, in the run's own RELATION_FILE, ATTRIBUTE_FILE or
    GV_FEAT_FILE under the name of the file.

    Args:
        cfg: The config of the run.
    """

    def __init__(self, cfg: CfgNode) -> None:
        loader = cfg.DATALOADER
        self.needs = needed_keys(cfg)
        # Data of understanding keep all regions in one source.
        self._regions: RegionSource | None = None
        if _is_understanding(run_dataset(cfg)):
            self.width = expected_width(cfg)
            self.without_regions = False
            self._regions = RegionSource("", loader.MAX_FEAT_NUM, loader.USE_GLOBAL_V, self.width)
            return
        self._mapper = _mapper(cfg)
        self._mapper.expect(cfg)
        self.width = self._mapper.feats_width
        self._is_grid = cfg.MODEL.VISUAL_EMBED.NAME == "VisualGridEmbedding"
        # Such a model has seen a placeholder in training.
        self.without_regions = "LSTMA" in cfg.MODEL and not cfg.DATALOADER.FEATS_FOLDER

    def __call__(self, arrays: Mapping[str, np.ndarray], name: str, path: str) -> dict[str, Any]:
        """The visual keys of a sample.

        Args:
            arrays: By name.
            name: What to call their source in messages.
            path: The file they came from, or ''.

        Raises:
            UserError: They lack something, or something does not fit the model.
        """
        if self._regions is not None:
            return self._regions.sample_of_arrays(arrays, name)
        if self.without_regions:
            sample, regions = self._mapper.no_features(), None
        else:
            sample = self._features(arrays, name)
            regions = kept_regions(arrays, sample)
        found = {}
        for key in self.needs:
            value = next((arrays[n] for n in SIDE_NAMES[key] if n in arrays), None)
            if value is None and key not in sample:
                value = self._of_run(key, path)
                if value is None:
                    raise UserError(_lacking(key, name))
            if value is not None:
                found[key] = value
        words = found.pop(kfg.SEMANTICS_IDS, None)
        sample.update(self._mapper.checked_side(found, name, regions))
        if words is not None:
            sample[kfg.SEMANTICS_IDS] = self._mapper.semantic_words(words, name)
        return sample

    def _features(self, arrays: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
        if self._is_grid and not isinstance(self._mapper, MSCoCoCOSNetDataset):
            return grid_sample(arrays, name, self._mapper.max_feat_num, self.width)
        return self._mapper.features(arrays, name)

    def _of_run(self, key: str, path: str) -> Any:
        """The entry of the run's side file for a file, or None."""
        side_file = self._mapper.side_files.get(key)
        if not (path and side_file and os.path.isfile(side_file.path)):
            return None
        try:
            return side_file.get(os.path.splitext(os.path.basename(path))[0])
        except SampleError:
            return None


def needed_keys(cfg: CfgNode) -> list[str]:
    """What the model of a run reads beside features."""
    model, loader = cfg.MODEL, cfg.DATALOADER
    needed = {key for key, setting in _FILES.items() if loader[setting]}
    if "GCN" in model:
        needed.add(kfg.RELATION)
    if "LSTMA" in model:
        needed |= {kfg.ATTRIBUTE, kfg.GLOBAL_FEATS}
    if model.VISUAL_EMBED.NAME == "VisualGridEmbedding" and model.VISUAL_EMBED.G_IN_DIM > 0:
        needed.add(kfg.GLOBAL_FEATS)
    if model.ENCODER == "COSNetEncoder":
        needed.add(kfg.SEMANTICS_IDS)
    return [key for key in SIDE_NAMES if key in needed]


def _is_understanding(dataset: Any) -> bool:
    return isinstance(dataset, type) and issubclass(dataset, UnderstandingDataset)


def _mapper(cfg: CfgNode) -> MSCoCoDataset:
    least = MSCoCoCOSNetDataset if cfg.MODEL.ENCODER == "COSNetEncoder" else MSCoCoDataset
    dataset = run_dataset(cfg)
    if not (isinstance(dataset, type) and issubclass(dataset, least)):
        dataset = least
    try:
        return dataset(cfg, "test")
    except (UserError, TypeError):  # it asks for what only training has
        return least(cfg, "test")


def _lacking(key: str, name: str) -> str:
    usual, *others = SIDE_NAMES[key]
    also = f" (or {', '.join(others)})" if others else ""
    return (
        f"{name} has no '{usual}'{also}, which this model reads as {key}; give a .npz file or a "
        f"mapping that holds it beside the features"
    )
