"""The losses of pre-training on pictures and captions."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils import comm

from .batch_triplet import batch_triplet
from .build import LOSSES_REGISTRY
from .scored_rows import R_SELECTED, V_SELECTED, SelectedRows
from .token_loss import present_heads, token_cross_entropy

_TOKEN_LOSSES = {"U": "Masked Language Modeling", "G": "Masked Sentence Generation"}


@LOSSES_REGISTRY.register()
class PretrainLosses(nn.Module):
    """One term for every head whose output is there (Li et al., AAAI 2021; Chen et al., ECCV 2020).

    * ``BatchTriplet Loss`` of OUTPUT (B, B): :func:`batch_triplet` divided by B.
    * ``Image Text Matching`` of ITM_LOGITS (B, 2): cross-entropy with ITM_NEG_LABEL.
    * ``Masked Object Feature Regression`` of V_REGRESS: squared error of the selected regions,
      mean over regions and dimensions.
    * ``Masked Object Classification`` of V_LOGITS: ``KL(V_TARGET || softmax)``, mean over the
      selected regions.
    * ``Masked Language Modeling`` of U_LOGITS, ``Masked Sentence Generation`` of G_LOGITS:
      cross-entropy, mean over the positions with a target.

    A region is selected where V_TARGET_LABELS is above 0. A head that has nothing to predict is
    left out; when no head has, the terms are zeros that can be back-propagated. With
    several processes means are over all of them, and every head keeps its term, so that all
    processes have the same ones.

    Args:
        margin: Of the triplet loss.
        max_violation: Of the triplet loss: count the hardest mismatch alone.
    """

    @configurable
    def __init__(self, *, margin: float, max_violation: bool) -> None:
        super().__init__()
        self.margin, self.max_violation = margin, max_violation

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"margin": cfg.LOSSES.MARGIN, "max_violation": cfg.LOSSES.MAX_VIOLATION}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """The terms by name, scalars in float32."""
        present: dict[str, Tensor] = {}
        empty: dict[str, Tensor] = {}
        present.update(self._matching(outputs_dict))
        for name, value, something in (*_regions(outputs_dict), *_tokens(outputs_dict)):
            (present if something else empty)[name] = value
        return present or empty

    def _matching(self, outputs: dict[str, Any]) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        similarities = outputs.get(kfg.OUTPUT)
        # In evaluation OUTPUT holds the vectors of images and texts and not their products.
        if isinstance(similarities, Tensor):
            ids = outputs[kfg.IDS]
            loss = batch_triplet(similarities, ids, self.margin, self.max_violation)
            terms["BatchTriplet Loss"] = loss / len(ids)
        if kfg.ITM_LOGITS in outputs:
            logits, labels = outputs[kfg.ITM_LOGITS].float(), outputs[kfg.ITM_NEG_LABEL]
            terms["Image Text Matching"] = F.cross_entropy(logits, labels.reshape(-1))
        return terms


def _tokens(outputs: dict[str, Any]) -> list[tuple[str, Tensor, bool]]:
    """Name, value, and whether there was anything to predict, of the word losses."""
    heads = {letter: pair for letter, *pair in present_heads(outputs)}
    return [
        (name, token_cross_entropy(*heads[letter]), _is_kept(heads[letter][1]))
        for letter, name in _TOKEN_LOSSES.items()
        if letter in heads
    ]


def _regions(outputs: dict[str, Any]) -> list[tuple[str, Tensor, bool]]:
    terms = []
    regressed = _selected(outputs, R_SELECTED, kfg.V_REGRESS)
    if regressed is not None:
        predicted, targets = regressed.logits.float(), regressed.targets.float()
        errors = (predicted - targets).square().sum() / max(1, predicted.shape[-1])
        terms.append(("Masked Object Feature Regression", errors, regressed))
    classified = _selected(outputs, V_SELECTED, kfg.V_LOGITS)
    if classified is not None:
        log_probs = F.log_softmax(classified.logits.float(), dim=-1)
        divergence = F.kl_div(log_probs, classified.targets.float(), reduction="sum")
        terms.append(("Masked Object Classification", divergence, classified))
    return [
        (name, _over_regions(total, rows), _is_kept(rows.targets)) for name, total, rows in terms
    ]


def _selected(outputs: dict[str, Any], selected: str, whole: str) -> SelectedRows | None:
    """The selected regions of a head: as the model gives them, or gathered from all regions."""
    if selected in outputs or whole not in outputs:
        return outputs.get(selected)
    predicted, targets = outputs[whole], outputs[kfg.V_TARGET]
    # Row 0 may be the mean of the regions, of which nothing is predicted.
    predicted = predicted[:, predicted.shape[1] - targets.shape[1] :]
    labels = outputs[kfg.V_TARGET_LABELS][:, : targets.shape[1]]
    positions = (labels.reshape(-1) > 0).nonzero().squeeze(1)
    logits = predicted.flatten(0, 1).index_select(0, positions)
    return SelectedRows.of(logits, targets, positions)


def _over_regions(total: Tensor, rows: SelectedRows) -> Tensor:
    number = comm.mean_over_ranks(total.new_tensor(float(len(rows.logits))))
    return total / number.where(number > 0, 1.0)


def _is_kept(targets: Tensor) -> bool:
    """Whether a head has something to predict; with several processes, always.

    ``targets`` are those of selected rows, or (R, T) words, negative where there is none.
    """
    if comm.get_world_size() > 1:
        return True
    is_whole = targets.ndim == 2 and not targets.is_floating_point()
    return bool((targets >= 0).any()) if is_whole else len(targets) > 0
