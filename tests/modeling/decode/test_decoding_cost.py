"""What decoding costs, counted in floating point operations."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xmodaler.config import get_cfg
from xmodaler.engine.benchmark import random_batch
from xmodaler.functional.trees import reorder
from xmodaler.modeling import add_config, build_model

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "image_caption"
COMMON = {
    "MODEL.DEVICE": "cpu", "MODEL.VISUAL_EMBED.IN_DIM": 28, "MODEL.VOCAB_SIZE": 60,
    "MODEL.MAX_SEQ_LEN": 6, "DATALOADER.MAX_FEAT_NUM": 12, "MODEL.DECODER_DIM": 32,
    "MODEL.TOKEN_EMBED.DIM": 32, "MODEL.VISUAL_EMBED.OUT_DIM": 32,
}  # fmt: skip
SMALL = {
    "updown": {"MODEL.UPDOWN.ATT_EMBED_SIZE": 12},
    "transformer": {
        "MODEL.BERT.HIDDEN_SIZE": 32, "MODEL.BERT.INTERMEDIATE_SIZE": 48,
        "MODEL.BERT.NUM_HIDDEN_LAYERS": 2, "MODEL.BERT.NUM_GENERATION_LAYERS": 2,
    },
}  # fmt: skip
IMAGES = 4


def small(name):
    path = str(CONFIGS / name / f"{name}.yaml")
    cfg = get_cfg()
    add_config(cfg, cfg.load_from_file_tmp(path))
    cfg.merge_from_file(path)
    cfg.merge_from_list([part for item in {**COMMON, **SMALL[name]}.items() for part in item])
    torch.manual_seed(0)
    return build_model(cfg).eval(), random_batch(cfg, IMAGES)


def projections(function, *arguments):
    """FLOPs of products with weights: everything but batched products, which attend."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        result = function(*arguments)
    counts = counter.get_flop_counts()["Global"]
    return result, sum(counts.get(op, 0) for op in (torch.ops.aten.mm, torch.ops.aten.addmm))


def one_pass(model):
    """FLOPs of one product of one row with every weight that steps use."""
    weights = [*model.decoder.parameters(), *model.predictor.parameters()]
    return 2 * sum(weight.numel() for weight in weights if weight.dim() == 2)


def cost_of_steps(model, batch, beam_size, steps):
    """FLOPs of each step with distinct words and hypotheses."""
    state, _ = projections(model.start, batch)
    index = torch.arange(IMAGES).repeat_interleave(beam_size)
    state = {**state, "rows": reorder(state["rows"], index)}
    costs = []
    for time in range(steps):
        words = torch.arange(IMAGES * beam_size) + 1 + time
        (_, state), cost = projections(model.step, words, state)
        costs.append(cost)
        state = {**state, "rows": reorder(state["rows"], torch.arange(IMAGES * beam_size))}
    return costs


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_step_costs_the_same_at_every_position(name):
    model, batch = small(name)
    first, *others = cost_of_steps(model, batch, 3, 6)
    assert first > 0
    # The first step of a recurrent model may know that its states are zero.
    assert all(cost == others[0] for cost in others) and first <= others[0]


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_hypothesis_costs_no_more_than_one_pass_through_the_weights(name):
    """So nothing of the picture, which has several regions, is projected again for it."""
    model, batch = small(name)
    for beam_size in (1, 2, 5):
        rows = IMAGES * beam_size
        assert max(cost_of_steps(model, batch, beam_size, 4)) <= rows * one_pass(model)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_picture_is_encoded_once_however_many_beams_share_it(name):
    model, batch = small(name)
    _, once = projections(model.start, batch)
    for beam_size in (2, 5):
        model.beam_searcher.beam_size = beam_size
        _, cost = projections(model.decode_beam_search, batch)
        rows = IMAGES * (1 + beam_size * (model.beam_searcher.max_seq_len - 1))
        assert once < cost <= once + rows * one_pass(model)
