"""Decoding in word pieces: INFERENCE.VOCAB 'BERT'."""

import copy

import pytest
import torch

from xmodaler.config import get_cfg
from xmodaler.modeling.decode_strategy import build_beam_searcher, build_greedy_decoder
from xmodaler.utils.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[MASK]", "[CLS]", "[SEP]", "a", "dog", "##s", "run"]


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    cfg = get_cfg()
    cfg.INFERENCE.VOCAB = "BERT"
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(tmp_path / "vocab.txt")
    cfg.MODEL.VOCAB_SIZE = len(WORDS)
    return cfg


@pytest.mark.parametrize("build", [build_greedy_decoder, build_beam_searcher])
def test_sentences_lie_between_cls_and_sep(cfg, build):
    strategy = copy.deepcopy(build(cfg))
    assert (strategy.bos_token_id, strategy.eos_token_id) == (3, 4)
    ids = torch.tensor([[5, 6, 7, 8, 4, 6], [4, 0, 0, 0, 0, 0]])
    assert strategy.sentences(ids) == ["a dogs run", ""]


def test_the_vocabulary_is_read_when_it_is_needed(cfg, tmp_path):
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(tmp_path / "absent" / "vocab.txt")
    strategy = build_greedy_decoder(cfg)
    with pytest.raises(UserError, match=r"MODEL\.PRETRAINING\.MODEL_NAME"):
        strategy.sentences(torch.tensor([[5]]))


def test_suppressed_word_pieces(cfg):
    cfg.DECODE_STRATEGY.SUPPRESS_WORDS = ["dog"]
    assert build_greedy_decoder(cfg).word_rules().suppressed_ids == [6]
    cfg.DECODE_STRATEGY.SUPPRESS_WORDS = ["dogs"]
    with pytest.raises(UserError, match="'dogs', which is not in the vocabulary"):
        build_greedy_decoder(cfg).word_rules()
