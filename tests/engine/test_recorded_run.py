"""What a run folder holds beside weights, so that the folder alone is enough to use the model."""

import json
import pickle

from xmodaler.config import get_cfg
from xmodaler.engine import default_argument_parser, default_setup
from xmodaler.tokenization import BertTokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "Ball"]


def set_up(tmp_path, *arguments):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(tmp_path / "vocab.txt")
    cfg.MODEL.PRETRAINING.DO_LOWER_CASE = False
    cfg.DATALOADER.ANNO_FOLDER = str(tmp_path)
    default_setup(cfg, default_argument_parser().parse_args(list(arguments)))
    return tmp_path / "run"


def test_tokenizer_and_answers_are_kept(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    (tmp_path / "trainval_label2ans.pkl").write_bytes(pickle.dumps(["yes", "no"]))
    run = set_up(tmp_path)
    kept = BertTokenizer.from_pretrained(run / "tokenizer")
    assert kept.encode("a Ball ball") == [5, 6, 1]
    assert json.loads((run / "answers.json").read_text()) == ["yes", "no"]
    # An evaluation leaves those of the training as they are.
    (tmp_path / "vocab.txt").write_text("\n".join(reversed(PIECES)))
    (tmp_path / "trainval_label2ans.pkl").write_bytes(pickle.dumps(["no", "yes"]))
    set_up(tmp_path, "--eval-only")
    assert BertTokenizer.from_pretrained(run / "tokenizer").encode("a Ball") == [5, 6]
    assert json.loads((run / "answers.json").read_text()) == ["yes", "no"]


def test_where_there_are_none_nothing_is_kept(tmp_path):
    run = set_up(tmp_path)
    assert not (run / "tokenizer").exists()
    assert not (run / "answers.json").exists()
