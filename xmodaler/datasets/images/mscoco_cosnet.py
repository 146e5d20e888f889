"""The mapper of COS-Net: grid features, captions and predicted semantic words."""

import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg

from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..features import region_features
from ..side_inputs import feature_vector, integer_labels
from .mscoco import MSCoCoDataset


@DATASETS_REGISTRY.register()
class MSCoCoCOSNetDataset(MSCoCoDataset):
    """:class:`MSCoCoDataset` with a global vector and semantic words (Li et al., CVPR 2022).

    Adds GLOBAL_FEATS (the stored ``g_feature``) and SEMANTICS_IDS (M,); for training the semantic
    keys are lists of one array per caption, each with its own noise: SEMANTICS_IDS (M,),
    SEMANTICS_LABELS (M,) with ``obj_classes`` for a word that is not in the captions, and
    SEMANTICS_MISS_LABELS (obj_classes + 1,), 1 for a class of the captions that was not predicted.

    Args:
        obj_classes: C, number of semantic classes.
        sample_prob: Probability of replacing a predicted word while training.
        stage, anno_file, seq_per_img, max_feat_num, max_seq_len, feats_folder: As in
            :class:`MSCoCoDataset`, like ``relation_file``, ``gv_feat_file``, ``attribute_file``.
    """

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        seq_per_img: int,
        max_feat_num: int,
        max_seq_len: int,
        feats_folder: str,
        relation_file: str = "",
        gv_feat_file: str = "",
        attribute_file: str = "",
        obj_classes: int = 906,
        sample_prob: float = 0.2,
    ) -> None:
        super().__init__(
            stage=stage,
            anno_file=anno_file,
            seq_per_img=seq_per_img,
            max_feat_num=max_feat_num,
            max_seq_len=max_seq_len,
            feats_folder=feats_folder,
            relation_file=relation_file,
            gv_feat_file=gv_feat_file,
            attribute_file=attribute_file,
        )
        self.obj_classes = obj_classes
        self.sample_prob = sample_prob

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Arguments of the parent, and MODEL.COSNET.NUM_CLASSES, DATALOADER.SAMPLE_PROB."""
        name = f"mscoco_caption_anno_clipfilter_fast_{stage}.pkl"
        cosnet = cfg.MODEL.get("COSNET")
        return {
            **super().from_config(cfg, stage),
            "anno_file": os.path.join(cfg.DATALOADER.ANNO_FOLDER, "cosnet", name),
            # Absent when another model, such as the CLIP Transformer, is trained on these data.
            "obj_classes": 906 if cosnet is None else cosnet.NUM_CLASSES,
            "sample_prob": cfg.DATALOADER.SAMPLE_PROB,
        }

    def features(self, arrays: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
        """ATT_FEATS and, where stored, GLOBAL_FEATS."""
        sample = grid_sample(arrays, name, self.max_feat_num, self.feats_width)
        most = self.side_limits.cells
        if most is not None and len(sample[kfg.ATT_FEATS]) > most:
            raise SampleError(
                name,
                f"{len(arrays['features'])} grid cells, but with its global token the model has "
                f"room for {most}; DATALOADER.MAX_FEAT_NUM is the number of cells plus one",
            )
        stored = {key: sample[key] for key in (kfg.GLOBAL_FEATS,) if key in sample}
        return {**sample, **self.checked_side(stored, name)}

    def text(self, record: dict[str, Any]) -> dict[str, Any]:
        """Captions and semantic words."""
        sample = super().text(record)
        name = self.name_of(record)
        if "attr_pred" not in record:
            raise SampleError(name, "no 'attr_pred', the ids of its predicted semantic words")
        predicted = self.semantic_words(record["attr_pred"], name)
        if self.stage != "train":
            return {**sample, kfg.SEMANTICS_IDS: predicted}
        for key in ("attr_labels", "missing_labels"):
            if key not in record:
                raise SampleError(name, f"no '{key}' to train on")
        labels = self._classes(record["attr_labels"], "attr_labels", name, self.obj_classes)
        if labels.shape != predicted.shape:
            raise SampleError(
                name, f"{len(labels)} attr_labels for {len(predicted)} words of attr_pred"
            )
        absent = self._classes(record["missing_labels"], "missing_labels", name)
        missing = np.zeros(self.obj_classes + 1, dtype=np.int64)
        missing[absent] = 1
        rows = [self.sampling(predicted, labels, missing) for _ in sample[kfg.G_TOKENS_IDS]]
        keys = (kfg.SEMANTICS_IDS, kfg.SEMANTICS_LABELS, kfg.SEMANTICS_MISS_LABELS)
        sample.update({key: [row[k] for row in rows] for k, key in enumerate(keys)})
        return sample

    def semantic_words(self, value: Any, name: str) -> np.ndarray:
        """Ids of predicted semantic words, int64 (M,).

        Raises:
            SampleError: They are not, or not classes of the model.
        """
        words = self._classes(value, "attr_pred", name)
        if words.ndim != 1 or not len(words):
            raise SampleError(name, f"attr_pred has shape {words.shape}; (words >= 1,) is due")
        return words

    def _classes(self, value: Any, what: str, name: str, top: int | None = None) -> np.ndarray:
        top = self.obj_classes - 1 if top is None else top
        return integer_labels(value, what, name, top, "MODEL.COSNET.NUM_CLASSES")

    def sampling(
        self, predicted: np.ndarray, labels: np.ndarray, missing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Replace some predicted words by random classes and correct the labels.

        With probability ``sample_prob`` a word becomes a uniform class r. If r is in the ground
        truth its label becomes r and r is no longer missing; otherwise its label becomes C. The
        replaced word is then missing, in the second case only if it is in the ground truth.

        Args:
            predicted: Class ids (M,).
            labels: The class id where it is in the ground truth, else C (M,).
            missing: 1 for a ground-truth class that is not predicted (C + 1,).

        Returns:
            New arrays in the order of the arguments.
        """
        ids, labels, missing = predicted.copy(), labels.copy(), missing.copy()
        truth = set(np.flatnonzero(missing == 1).tolist())
        truth |= set(ids[labels != self.obj_classes].tolist())
        for k, old in enumerate(predicted.tolist()):
            if random.random() >= self.sample_prob:
                continue
            new = int(np.random.randint(0, self.obj_classes))
            ids[k] = new
            if new in truth:
                labels[k], missing[old], missing[new] = new, 1, 0
            else:
                labels[k] = self.obj_classes
                if old in truth:
                    missing[old] = 1
        return ids, labels, missing


def grid_sample(
    arrays: Mapping[str, np.ndarray], name: str, max_feat_num: int, width: int | None
) -> dict[str, Any]:
    """The visual keys of grid features: ATT_FEATS (N, D), and GLOBAL_FEATS (Dg,) where stored."""
    sample = {kfg.ATT_FEATS: region_features(arrays, name, max_feat_num, width)}
    if "g_feature" in arrays:
        vector = np.asarray(arrays["g_feature"]).reshape(-1)
        sample[kfg.GLOBAL_FEATS] = feature_vector(vector, "g_feature", name)
    return sample
