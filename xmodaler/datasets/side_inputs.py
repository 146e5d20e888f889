"""What comes beside the regions of an image: relations, attributes, a global vector, semantics.

Each is checked against the image it is given for and against the model, since a file made for
other features fits in type and often in shape, and would only make a captioner quietly worse.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xmodaler.config import CfgNode

from .bad_samples import SampleError


@dataclass(frozen=True)
class SideLimits:
    """What the model of a config can take; None where the config does not say.

    Attributes:
        relation_labels: Number of relation labels, "no relation" included.
        attributes: Number of attributes A.
        global_width: Width of the global vector.
        global_setting: The config key that says so.
        cells: Most cells of a grid.
    """

    relation_labels: int | None = None
    attributes: int | None = None
    global_width: int | None = None
    global_setting: str = ""
    cells: int | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "SideLimits":
        """The limits that the nodes of the chosen stages set."""
        gcn, lstma, embedding = cfg.MODEL.get("GCN"), cfg.MODEL.get("LSTMA"), cfg.MODEL.VISUAL_EMBED
        setting, cells = "", None
        if embedding.NAME == "VisualGridEmbedding" and embedding.G_IN_DIM > 0:
            setting, cells = "G_IN_DIM", cfg.DATALOADER.MAX_FEAT_NUM - 1
        elif lstma is not None:
            setting = "IN_DIM"
        return cls(
            relation_labels=None if gcn is None else int(gcn.RELATION_NUM),
            attributes=None if lstma is None else int(lstma.ATTRIBUTE_DIM),
            global_width=int(embedding[setting]) if setting else None,
            global_setting=f"MODEL.VISUAL_EMBED.{setting}",
            cells=cells,
        )


@dataclass(frozen=True)
class Regions:
    """The regions of an image before and after the loader chose among them.

    Attributes:
        stored: How many its file holds.
        kept: How many of them, from the first on, are in ATT_FEATS.
        mean_in_front: Whether the mean of the kept ones comes before them in ATT_FEATS.
    """

    stored: int
    kept: int
    mean_in_front: bool


def relation_matrix(
    value: Any, record: str, regions: Regions | None, labels: int | None = None
) -> np.ndarray:
    """Relation labels for the rows of ATT_FEATS.

    The labels of regions that were cut off are cut off too; the mean region has no relation.

    Args:
        value: Integers (n, n): entry i, j says what region i is to region j; 0 is no relation.
        record: The record's name in messages.
        regions: Of the image; None when there are no features to compare with.
        labels: Number of labels that the model knows, 0 included.

    Returns:
        int64 ``(N, N)`` with N the rows of ATT_FEATS.

    Raises:
        SampleError: Not square, not for as many regions, or not labels of the model.
    """
    matrix = np.asarray(value)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise SampleError(record, f"RELATION has shape {matrix.shape}; (regions, regions) is due")
    if regions is not None and len(matrix) not in (regions.stored, regions.kept):
        raise SampleError(
            record,
            f"RELATION is for {len(matrix)} regions, but the features have {regions.stored}; "
            "use the relation file made from these features",
        )
    top = None if labels is None else labels - 1
    matrix = integer_labels(matrix, "RELATION", record, top, "MODEL.GCN.RELATION_NUM")
    if regions is None:
        return matrix
    matrix = matrix[: regions.kept, : regions.kept]
    return np.pad(matrix, (1, 0)) if regions.mean_in_front else matrix


def integer_labels(
    value: Any, what: str, record: str, top: int | None = None, setting: str = ""
) -> np.ndarray:
    """Labels as int64.

    Args:
        value: Array of labels.
        what: Its name in messages.
        record: The record's name in messages.
        top: The greatest label that the model knows, or None.
        setting: The config key that says so.

    Raises:
        SampleError: Not whole numbers from 0 to ``top``.
    """
    labels = np.asarray(value)
    if not np.issubdtype(labels.dtype, np.integer):
        if labels.size:
            raise SampleError(
                record, f"{what} holds values of type {labels.dtype}; whole numbers are due"
            )
        labels = labels.astype(np.int64)
    if not labels.size:
        return labels.astype(np.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (top is not None and high > top):
        wrong = low if low < 0 else high
        limit = "or more" if top is None else f"to {top}" + (f" ({setting})" if setting else "")
        raise SampleError(record, f"{what} has the label {wrong}; it must be 0 {limit}")
    return labels.astype(np.int64)


def feature_vector(
    value: Any, what: str, record: str, width: int | None = None, setting: str = ""
) -> np.ndarray:
    """One vector per image, such as attribute probabilities or a global feature.

    Args:
        value: Numbers (D,) or (1, D).
        what: Its name in messages.
        record: The record's name in messages.
        width: D that the model expects, or None.
        setting: The config key that says so.

    Returns:
        float32 ``(D,)``.

    Raises:
        SampleError: Another shape or width, or values that are not finite numbers.
    """
    vector = np.asarray(value)
    if not np.issubdtype(vector.dtype, np.number) and vector.dtype != bool:
        raise SampleError(record, f"{what} is of type {vector.dtype}, not numbers")
    if vector.ndim == 2 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim != 1 or not vector.size:
        raise SampleError(record, f"{what} has shape {vector.shape}; one vector (width,) is due")
    if width is not None and len(vector) != width:
        raise SampleError(record, f"{what} has width {len(vector)}, but {setting} is {width}")
    vector = vector.astype(np.float32)
    if not np.isfinite(vector).all():
        raise SampleError(record, f"{what} has NaN or infinity")
    return vector
