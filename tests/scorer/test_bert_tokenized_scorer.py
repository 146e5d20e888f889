"""Rewards of sentences of word pieces."""

import numpy as np
import pytest

from xmodaler.config import CfgNode, get_cfg, kfg
from xmodaler.scorer import BertTokenizedScorer, Cider, build_scorer
from xmodaler.scorer.cider_files import write_frequencies, write_references
from xmodaler.tokenization import BertTokenizer
from xmodaler.utils.errors import UserError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES += ["a", "dog", "cat", "run", "##s", "##ning", "sleep", "on", "grass"]
SEP = PIECES.index("[SEP]")
REFERENCES = {
    "1": [["a", "dog", "runs", "."], ["dogs", "running", "on", "grass", "."]],
    "2": [["a", "cat", "sleeps", "."]],
    "3": [["a", "dog", "sleeps", "on", "sofas", "."]],
}


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "pieces.txt").write_text("\n".join(PIECES) + "\n")
    return BertTokenizer(tmp_path / "pieces.txt")


@pytest.fixture
def files(tmp_path, plain):
    write_references(tmp_path / "gts.json", REFERENCES)
    table = plain.count_documents(REFERENCES.values())
    write_frequencies(tmp_path / "cider.json", table, np.log(3))
    return str(tmp_path / "gts.json"), str(tmp_path / "cider.json"), table


def make(files, tokenizer, **changes):
    scorers = [Cider(cider_cached=files[1])]
    options = {"types": ["Cider"], "scorers": scorers, "weights": [1.0], "gt_path": files[0]}
    return BertTokenizedScorer(**{**options, "bert_tokenizer": tokenizer, **changes})


def ids(text, length=8):
    row = [PIECES.index(piece) for piece in text.split()]
    return row + [SEP] * (length - len(row))


SENTENCES = {
    "a dog run ##s": ["a", "dog", "runs", "."],
    "dog ##s dog ##s cat ##s cat ##s": ["dogs", "dogs", "cats", "cats"],
    "": ["."],
    "cat ##ning cat ##ning sleep": ["catning", "catning", "sleep", "."],
    "a cat sleep ##s": ["a", "cat", "sleeps", "."],
    "a [UNK] sleep ##s": ["a", "[UNK]", "sleeps", "."],
}


def test_scores_are_those_of_words(plain, files, tokenizer):
    scorer = make(files, tokenizer)
    rows = np.array([ids(text) for text in SENTENCES])
    assert scorer.get_sents(rows) == list(SENTENCES.values())
    oracle = plain.Cider(files[2], np.log(3))
    for images in (["1", "2"], ["3", "1", "2"]):
        names = np.repeat(images, len(rows) // len(images))
        pairs = zip(SENTENCES.values(), names, strict=True)
        expected = [oracle.score(words, REFERENCES[name]) for words, name in pairs]
        size = len(scorer.references.vocabulary)
        scores = scorer({kfg.IDS: images, kfg.G_SENTS_IDS: rows})
        np.testing.assert_allclose(scores[kfg.REWARDS], expected, rtol=0, atol=1e-9)
        # Words that nobody wrote leave no trace.
        assert len(scorer.references.vocabulary) == size
    assert scores["Cider"] > 0


def test_the_end_counts_unless_told_otherwise(plain, files, tokenizer):
    scorer = make(files, tokenizer, count_eos=False)
    rows = np.array([ids("a cat sleep ##s")])
    assert scorer.get_sents(rows) == [["a", "cat", "sleeps"]]
    oracle = plain.Cider(files[2], np.log(3))
    score = oracle.score(["a", "cat", "sleeps"], [["a", "cat", "sleeps"]])
    assert scorer({kfg.IDS: ["2"], kfg.G_SENTS_IDS: rows})[kfg.REWARDS][0] == pytest.approx(score)


def test_captions_of_the_training_data(files, tokenizer):
    scorer = make(files, tokenizer)
    targets = np.array([ids("dog ##s run ##ning on grass"), ids("a cat sleep ##s")])
    targets[0, 7] = targets[1, 5:] = -1
    scorer.check_captions(["1", "2"], targets)
    with pytest.raises(UserError, match="no caption of the first training batch"):
        scorer.check_captions(["2", "1"], targets)


def config(files, tokenizer):
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    pretraining = {"MODEL_NAME": tokenizer.source, "DO_LOWER_CASE": True}
    cfg.MODEL.PRETRAINING = CfgNode(pretraining)
    cfg.MODEL.VOCAB_SIZE = len(PIECES)
    cfg.SCORER.merge_from_other_cfg(
        CfgNode(
            {
                "NAME": "BertTokenizedScorer",
                "TYPES": ["Cider"],
                "WEIGHTS": [0.5],
                "GT_PATH": files[0],
                "CIDER_CACHED": files[1],
                "EOS_ID": SEP,
            }
        )
    )
    return cfg


def test_a_config_names_the_reward(files, tokenizer):
    cfg = config(files, tokenizer)
    batch = {kfg.IDS: ["1"], kfg.G_SENTS_IDS: np.array([ids("a dog run ##s")])}
    expected = make(files, tokenizer)(batch)
    scores = build_scorer(cfg)(batch)
    assert scores["Cider"] == expected["Cider"] > 0
    assert scores[kfg.REWARDS][0] == expected[kfg.REWARDS][0] / 2
    cfg.SCORER.EOS_ID = 0
    with pytest.raises(UserError, match=r"SCORER\.EOS_ID is 0, but .* \[SEP\], has the id 3"):
        build_scorer(cfg)


def test_ids_and_words_are_not_mixed(files, tokenizer, tmp_path):
    numbered = str(tmp_path / "ids.json")
    write_frequencies(numbered, {(1,): 2, (1, 2): 1}, 1.0)
    with pytest.raises(UserError, match=r"SCORER\.NAME BertTokenizedScorer needs words"):
        make(files, tokenizer, scorers=[Cider(cider_cached=numbered)])
    write_references(tmp_path / "gts.json", {"1": [[1, 2]]})
    with pytest.raises(UserError, match="captions of words"):
        make(files, tokenizer)
