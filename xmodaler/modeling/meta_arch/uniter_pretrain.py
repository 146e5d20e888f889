"""Pre-training of single-stream models."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.losses.scored_rows import R_SELECTED, U_SELECTED, V_SELECTED, SelectedRows
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError, did_you_mean

from ..layers.grouping import repeat_rows
from ..layers.head_positions import HeadPositions
from ..predictor import (
    PREDICTOR_REGISTRY,
    build_predictor_with_name,
    build_v_predictor,
)
from ..selection import add_class_config, chosen_name
from .batches import Batch, without_internal
from .build import META_ARCH_REGISTRY
from .encoder_only import EncoderOnlyModel, first_words

_HEADS = {
    "itm": ("itm_predictor", "MODEL.ITM_PREDICTOR"),
    "mlm": ("predictor", "MODEL.PREDICTOR"),
    "mrfr": ("v_regressor", "MODEL.V_REGRESSOR"),
    "mrc-kl": ("v_predictor", "MODEL.V_PREDICTOR"),
}
"""The tasks: attribute of the head, and the setting that names its class."""


@META_ARCH_REGISTRY.register()
class UniterPretrain(EncoderOnlyModel):
    """An encoder of words and regions that learns one task a step (Chen et al., ECCV 2020).

    * ``itm``, image-text matching: do the text and the picture belong together?
    * ``mlm``, masked language modelling: which words are masked?
    * ``mrfr``, masked region feature regression: which features had the masked regions?
    * ``mrc-kl``, masked region classification: which class probabilities?

    Only one side is masked at a time (section 3.2), and pairs that do not belong together teach
    matching alone. The task of a step is drawn from ``sampling_pool`` with python's random number
    generator, whose state is part of checkpoints; all processes take what rank 0 draws.

    Args:
        itm_predictor: Head of ``itm``, or None where that task is not drawn.
        v_regressor: Head of ``mrfr``, tied to the visual embedding, or None.
        v_predictor: Head of ``mrc-kl``, or None.
        pretrain_tasks: Names of tasks.
        mix_ratio: How often each is drawn, relative to the others.
        **parts: As for :class:`BaseEncoderDecoder`; ``predictor`` is the head of ``mlm``.

    Attributes:
        sampling_pool: Every task as often as its ratio says.
    """

    @configurable
    def __init__(
        self,
        *,
        itm_predictor: nn.Module | None,
        v_regressor: nn.Module | None,
        v_predictor: nn.Module | None,
        pretrain_tasks: Sequence[str],
        mix_ratio: Sequence[int],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.v_predictor = v_predictor
        self.v_regressor = v_regressor
        self.itm_predictor = itm_predictor
        if v_regressor is not None:
            v_regressor.tie(self.visual_embed.embeddings.weight)
        self.sampling_pool = _pool(pretrain_tasks, mix_ratio)
        for task in dict.fromkeys(self.sampling_pool):
            attribute, setting = _HEADS[task]
            if getattr(self, attribute) is None:
                raise UserError(f"the pre-training task '{task}' needs a head; {setting} is ''")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        if cfg.MODEL.V_PREDICTOR and cfg.MODEL.BERT.V_TARGET_SIZE <= 0:
            raise UserError(
                "MODEL.BERT.V_TARGET_SIZE must be the number of region classes, above 0, but is "
                f"{cfg.MODEL.BERT.V_TARGET_SIZE}"
            )
        return {
            **super().from_config(cfg),
            "v_predictor": build_v_predictor(cfg),
            "v_regressor": build_predictor_with_name(cfg, cfg.MODEL.V_REGRESSOR),
            "itm_predictor": build_predictor_with_name(cfg, cfg.MODEL.ITM_PREDICTOR),
            "pretrain_tasks": cfg.MODEL.PRETRAIN_TASKS,
            "mix_ratio": cfg.MODEL.PRETRAIN_TASKS_MIX_RATIO,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode, tmp_cfg: CfgNode) -> None:
        """Creates the names of two heads, and PRETRAIN_TASKS with their MIX_RATIO."""
        cfg.MODEL.V_REGRESSOR = ""
        cfg.MODEL.ITM_PREDICTOR = ""
        cfg.MODEL.PRETRAIN_TASKS = list(_HEADS)
        cfg.MODEL.PRETRAIN_TASKS_MIX_RATIO = [1] * len(_HEADS)
        super().add_config(cfg, tmp_cfg)
        for key in ("MODEL.V_PREDICTOR", "MODEL.V_REGRESSOR", "MODEL.ITM_PREDICTOR"):
            add_class_config(PREDICTOR_REGISTRY, chosen_name(cfg, tmp_cfg, key), cfg)

    @torch.compiler.disable
    def draw_task(self) -> str:
        """The task of this step."""
        task = random.choice(self.sampling_pool)
        # Every rank draws, so that their generators stay as far; evaluation may be uneven.
        return comm.all_gather(task)[0] if self.training else task

    def _forward(self, batched_inputs: Batch) -> Batch:
        """The logits of one task.

        In training, logits of words and regions are computed where there is a target alone, and
        handed to losses as SelectedRows.

        Args:
            batched_inputs: The masked U_TOKENS_IDS (R, T) with U_TARGET_IDS, the masked ATT_FEATS
                (B, N, F) with V_TARGET_LABELS (B, N) and V_TARGET (B, N, K), both unmasked as
                U_TOKENS_IDS_WO_MASK and ATT_FEATS_WO_MASK, and ITM_NEG_LABEL (R,).

        Returns:
            ITM_LOGITS (R, 2), U_LOGITS (R, T, V), V_REGRESS (R, N, F) or V_LOGITS (R, N, K), and
            the targets without those of pairs that do not belong together.
        """
        task = self.draw_task()
        batch = self._embed(_inputs_of(batched_inputs, task))
        getattr(self, f"_{task.split('-')[0]}")(batch)
        return without_internal(batch)

    def _itm(self, batch: Batch) -> None:
        selected = self._encode_pairs(batch, first_words(batch, self.itm_predictor))
        batch.update(self.itm_predictor(batch))
        if selected:
            del batch[kfg.U_HIDDEN_STATES], batch[kfg.ATT_FEATS]

    def _mlm(self, batch: Batch) -> None:
        targets = batch[kfg.U_TARGET_IDS]
        self._predict(batch, self.predictor, U_SELECTED, targets, words=targets >= 0)

    def _mrfr(self, batch: Batch) -> None:
        batch[kfg.V_TARGET] = batch[kfg.ATT_FEATS_WO_MASK]
        chosen = batch[kfg.V_TARGET_LABELS] > 0
        self._predict(batch, self.v_regressor, R_SELECTED, batch[kfg.V_TARGET], regions=chosen)

    def _mrc(self, batch: Batch) -> None:
        chosen = batch[kfg.V_TARGET_LABELS] > 0
        self._predict(batch, self.v_predictor, V_SELECTED, batch[kfg.V_TARGET], regions=chosen)

    def _predict(
        self, batch: Batch, head: nn.Module, key: str, targets: Tensor, **chosen: Tensor
    ) -> None:
        """Encode, and predict words or regions; updates ``batch``, which is the model's own.

        Args:
            batch: The embedded batch.
            head: Gives one output.
            key: Where the chosen rows go when no others are computed.
            targets: (R, T, ...).
            chosen: Bool (R, T), which to predict, as ``words`` or ``regions``.
        """
        positions = HeadPositions.where(**chosen) if self._is_lean(batch) else None
        selected = self._encode_pairs(batch, positions)
        produced = head({state: batch[state] for state in (kfg.U_HIDDEN_STATES, kfg.ATT_FEATS)})
        if not selected:
            batch.update(produced)
            return
        (logits,) = produced.values()
        index = positions.regions if positions.words is None else positions.words
        batch[key] = SelectedRows.of(logits, targets, index)
        del batch[kfg.U_HIDDEN_STATES], batch[kfg.ATT_FEATS]


def _pool(tasks: Sequence[str], ratios: Sequence[int]) -> list[str]:
    if len(tasks) != len(ratios):
        raise UserError(
            f"MODEL.PRETRAIN_TASKS names {len(tasks)} tasks but MODEL.PRETRAIN_TASKS_MIX_RATIO has "
            f"{len(ratios)} numbers; every task needs one"
        )
    for task in tasks:
        if task not in _HEADS:
            raise UserError(
                f"MODEL.PRETRAIN_TASKS names '{task}'{did_you_mean(task, _HEADS)}; "
                f"known are {', '.join(_HEADS)}"
            )
    pool = [task for task, ratio in zip(tasks, ratios, strict=True) for _ in range(ratio)]
    if not pool:
        raise UserError("MODEL.PRETRAIN_TASKS_MIX_RATIO draws no task; one number must be above 0")
    return pool


def _inputs_of(batched_inputs: Batch, task: str) -> Batch:
    """What a task sees and has to tell."""
    batch = dict(batched_inputs)
    if task != "mlm":
        batch[kfg.U_TOKENS_IDS] = _needed(batch, kfg.U_TOKENS_IDS_WO_MASK, task)
    # Pictures have no regions that could be masked.
    from_pixels = kfg.IMAGES in batch and task in ("itm", "mlm")
    if task in ("itm", "mlm") and not from_pixels:
        batch[kfg.ATT_FEATS] = _needed(batch, kfg.ATT_FEATS_WO_MASK, task)
    mismatched = _needed(batch, kfg.ITM_NEG_LABEL, task) > 0
    if task == "itm":
        return batch
    rows = len(mismatched)
    words = _needed(batch, kfg.U_TARGET_IDS, task)
    # Id 0 is padding, which nobody has to predict.
    batch[kfg.U_TARGET_IDS] = words.masked_fill(mismatched.view(-1, 1) | (words == 0), -1)
    if task == "mlm":
        return batch
    regions = repeat_rows(_needed(batch, kfg.V_TARGET_LABELS, task), rows)
    batch[kfg.V_TARGET_LABELS] = regions.masked_fill(mismatched.view(-1, 1), -1)
    targets = kfg.V_TARGET if task == "mrc-kl" else kfg.ATT_FEATS_WO_MASK
    batch[targets] = repeat_rows(_needed(batch, targets, task), rows)
    return batch


def _needed(batch: Batch, key: str, task: str) -> Tensor:
    if key not in batch:
        raise UserError(
            f"the batch has no {key}, which the pre-training task '{task}' needs; "
            "ConceptualCaptionsDatasetForSingleStream makes such batches"
        )
    return batch[key]
