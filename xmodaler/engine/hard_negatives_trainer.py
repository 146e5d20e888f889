"""Training of single-stream retrieval on the captions that the model confuses."""

from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.utils.errors import UserError

from .build import ENGINE_REGISTRY
from .default_trainer import Scalars
from .evaluation import eval_mode
from .pair_evaluation import TEXT_KEYS, VISUAL_KEYS, pair_scores
from .single_stream_retrieval_trainer import SingleStreamRetrievalTrainer

CHUNK = 1024
"""Pairs that are scored at a time while mining."""

_EXCLUDED = -99999.0


@ENGINE_REGISTRY.register()
class SingleStreamRetrievalTrainerHardNegatives(SingleStreamRetrievalTrainer):
    """Ranks every picture's caption against those of the batch that the model scores highest.

    Every batch of B matching pairs is first scored as B x B pairs, without dropout and gradients
    (Chen et al., ECCV 2020, appendix A.3). The ``DATALOADER.NEGATIVE_SIZE`` best wrong captions of
    a picture then are its mismatches. ``DATALOADER.NEGATIVES_OF_OTHER_IMAGES`` leaves out captions
    of the same picture, which are no mismatches, as far as the batch has enough others.

    Args:
        cfg: The complete config.

    Raises:
        UserError: NEGATIVE_SIZE is not between 1 and the batch size less 1.
    """

    def __init__(self, cfg: Any) -> None:
        loader = cfg.DATALOADER
        if not 0 < loader.NEGATIVE_SIZE < loader.TRAIN_BATCH_SIZE:
            raise UserError(
                f"DATALOADER.NEGATIVE_SIZE is {loader.NEGATIVE_SIZE}, but the hard negatives of a "
                f"batch of {loader.TRAIN_BATCH_SIZE} are 1 to {loader.TRAIN_BATCH_SIZE - 1}; set "
                "it, or DATALOADER.TRAIN_BATCH_SIZE, accordingly"
            )
        super().__init__(cfg)

    def compute_losses(self, data: dict[str, Any]) -> Scalars:
        """Find the hard negatives of a batch and evaluate the losses on them.

        Returns:
            Name -> 0-d tensor.
        """
        return super().compute_losses(self.hard_negative_mining(self.clip_inputs(data)))

    @staticmethod
    def clip_inputs(data: dict[str, Any]) -> dict[str, Any]:
        """A batch without the columns that are padding in all rows."""
        clipped = dict(data)
        for mask, keys in (
            (kfg.TOKENS_MASKS, TEXT_KEYS),
            (kfg.ATT_MASKS, (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS)),
        ):
            if mask not in data:
                continue
            longest = int(data[mask].bool().sum(dim=1).max())
            for key in keys:
                if key in data:
                    clipped[key] = data[key][:, :longest]
        return clipped

    @torch.no_grad()
    def hard_negative_mining(self, data: dict[str, Any]) -> dict[str, Any]:
        """The batch with every picture's caption and its mismatches.

        Args:
            data: B pictures and the B captions that match them.

        Returns:
            A new batch: visual keys of B pictures, text keys of B * (NEGATIVE_SIZE + 1) rows, those
            of a picture adjacent and its own caption first, and SAMPLE_PER_SAMPLE.
        """
        scores = self._scores(data)
        negatives = self.cfg.DATALOADER.NEGATIVE_SIZE
        if negatives >= len(scores):
            raise UserError(
                f"DATALOADER.NEGATIVE_SIZE is {negatives}, but the batch has {len(scores)} "
                "captions; it must be smaller"
            )
        own = torch.arange(len(scores), device=scores.device)
        # (picture, caption); what is no mismatch must not be found.
        if self.cfg.DATALOADER.NEGATIVES_OF_OTHER_IMAGES:
            scores.masked_fill_(_same_image(data, scores), _EXCLUDED)
        scores[own, own] = 2 * _EXCLUDED
        hardest = scores.topk(negatives, dim=1).indices
        rows = torch.cat([own[:, None], hardest], dim=1).flatten()
        texts = {key: data[key][rows] for key in TEXT_KEYS if key in data}
        return {**data, **texts, kfg.SAMPLE_PER_SAMPLE: negatives + 1}

    def _scores(self, data: dict[str, Any]) -> Tensor:
        """(picture, caption) scores of a batch, (B, B) float32."""
        images = {key: data[key] for key in VISUAL_KEYS if key in data}
        texts = {key: data[key] for key in TEXT_KEYS if key in data}
        number = len(data[kfg.U_TOKENS_IDS])
        at_once = max(1, CHUNK // number)
        scores = []
        with eval_mode(self.bare_model):
            for start in range(0, number, at_once):
                few = {key: value[start : start + at_once] for key, value in images.items()}
                scores.append(pair_scores(self.bare_model, few, texts).t())
        return torch.cat(scores)


def _same_image(data: dict[str, Any], scores: Tensor) -> Tensor:
    numbers: dict[str, int] = {}
    images = [numbers.setdefault(str(key), len(numbers)) for key in data[kfg.IDS]]
    index = torch.tensor(images, device=scores.device)
    return index[:, None] == index
