"""Several captioners as one."""

from __future__ import annotations

from collections.abc import Sequence

from xmodaler.config import CfgNode
from xmodaler.inference.loading import LoadedModel
from xmodaler.utils.errors import UserError

__all__ = ["join"]


def join(
    members: Sequence[LoadedModel],
    model_weights: Sequence[float] | None = None,
    cfg: CfgNode | None = None,
) -> LoadedModel:
    """One model that decodes with the average of several models' word distributions.

    Args:
        members: The models; of any architectures, with one vocabulary and the same inputs.
        model_weights: How much each counts, divided by their sum; None: all alike.
        cfg: Says how to decode; None: as the first member's config.

    Returns:
        The :class:`~xmodaler.modeling.meta_arch.Ensemble`; sentences are as long as its shortest
        member allows.

    Raises:
        UserError: The members do not go together, or there is none.
    """
    from xmodaler.modeling.meta_arch import Ensemble

    if not members:
        raise UserError("an ensemble needs at least one model; give their folders or files")
    weights = [1.0] * len(members) if model_weights is None else list(model_weights)
    for other in members[1:]:
        _check_vocabulary(members[0], other)
        _check_inputs(members[0], other)
    joint = (members[0].cfg if cfg is None else cfg).clone()
    joint.defrost()
    joint.MODEL.MODEL_WEIGHTS = weights
    joint.MODEL.MAX_SEQ_LEN = min(member.cfg.MODEL.MAX_SEQ_LEN for member in members)
    joint.MODEL.VOCAB_SIZE = members[0].cfg.MODEL.VOCAB_SIZE
    joint.INFERENCE.VOCAB = members[0].cfg.INFERENCE.VOCAB
    model = Ensemble([member.model for member in members], joint)
    return LoadedModel(model, joint, " + ".join(member.weights for member in members))


def _check_vocabulary(first: LoadedModel, other: LoadedModel) -> None:
    sizes = [member.cfg.MODEL.VOCAB_SIZE for member in (first, other)]
    if sizes[0] != sizes[1]:
        difference = f"{sizes[0]} and {sizes[1]} words (MODEL.VOCAB_SIZE)"
    else:
        words, others = (member.model.greedy_decoder.vocab for member in (first, other))
        if words == others or words is None or others is None:
            return
        number = next(
            i for i, pair in enumerate(zip(words, others, strict=True)) if len({*pair}) > 1
        )
        difference = f"'{words[number]}' and '{others[number]}' as word {number}"
    raise UserError(
        f"'{first.weights}' and '{other.weights}' have different vocabularies ({difference}), so "
        "their words cannot be averaged; train the models of an ensemble with one vocabulary"
    )


def _check_inputs(first: LoadedModel, other: LoadedModel) -> None:
    inputs = [_inputs(member) for member in (first, other)]
    if inputs[0] != inputs[1]:
        raise UserError(
            f"'{first.weights}' reads {inputs[0]} but '{other.weights}' {inputs[1]}; the models of "
            "an ensemble must read the same"
        )


def _inputs(member: LoadedModel) -> str:
    """What a model reads, in words."""
    model, data = member.cfg.MODEL, member.cfg.DATALOADER
    if getattr(member.model.visual_embed, "reads_pictures", False):
        return f"pictures of {data.IMAGE_SIZE} pixels (DATALOADER.IMAGE_SIZE)"
    return (
        f"at most {data.MAX_FEAT_NUM} features (DATALOADER.MAX_FEAT_NUM) of width "
        f"{model.VISUAL_EMBED.IN_DIM} (MODEL.VISUAL_EMBED.IN_DIM)"
    )
