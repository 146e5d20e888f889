"""The files behind CIDEr-D rewards, against those of the reference tool where they are here."""

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest

from xmodaler.preprocessing.cider_cache import Written, references_of, write_cider_files
from xmodaler.scorer.cider_core import CiderD
from xmodaler.scorer.cider_files import read_frequencies, read_references, read_word_references
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_OTHER = Path(os.environ.get("XMODALER_PARITY_DIR") or ROOT.parent / "shared" / "parity")
CIDER = _OTHER / "captioning" / "_shared" / "cider"
if not CIDER.is_dir():
    CIDER = ROOT / "tests" / "parity" / "data" / "captioning" / "_shared" / "cider"

RECORDS = [
    {
        "image_id": 9,
        "tokens_ids": [[0, 1, 2, 0], [0, 1, 3, 2]],
        "target_ids": [[1, 2, 0, -1], [1, 3, 2, 4]],
    },
    {"image_id": 10, "tokens_ids": [[0, 1, 2, 0]], "target_ids": [[1, 2, 0, -1]]},
    {"image_id": 11},
]


def annotations(tmp_path, records=RECORDS):
    path = tmp_path / "mscoco_caption_anno_train.json"
    path.write_text(json.dumps(records))
    return path


def test_references_keep_the_end_and_frequencies_count_pictures(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("cider_cache", ROOT / "tools" / "cider_cache.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    files = ["--gts", str(tmp_path / "gts.json"), "--outfile", str(tmp_path / "cider.json")]
    assert tool.main(["--infile", str(annotations(tmp_path)), *files]) == 0
    # The config names the pickle; the JSON beside it is found.
    assert read_references(tmp_path / "gts.pkl") == {
        "9": [[1, 2, 0], [1, 3, 2, 4]],
        "10": [[1, 2, 0]],
    }
    frequencies, log_images = read_frequencies(tmp_path / "cider.pkl")
    assert log_images == math.log(2)
    assert frequencies[1, 2] == frequencies[1, 2, 0] == frequencies[0,] == 2
    assert frequencies[1, 3, 2, 4] == 1 and (2, 1) not in frequencies
    assert "3 captions (1 without end) of 2 pictures, 1 records dropped" in capsys.readouterr().out


def test_only_the_wanted_pictures_count(tmp_path):
    (tmp_path / "ids.txt").write_text("10\n\n")
    outputs = tmp_path / "gts.json", tmp_path / "cider.json"
    summary = write_cider_files(annotations(tmp_path), *outputs, tmp_path / "ids.txt")
    assert (summary.images, summary.dropped) == (1, 2)
    assert read_frequencies(outputs[1])[1] == 0.0
    (tmp_path / "ids.txt").write_text("10\n12\n")
    with pytest.raises(UserError, match=r"1 of 2 wanted pictures have no captions in .*, 12 first"):
        write_cider_files(annotations(tmp_path), *outputs, tmp_path / "ids.txt")


def test_one_record_a_caption_gives_the_same(tmp_path):
    rows = [
        {"image_id": r["image_id"], "tokens_ids": [tokens], "target_ids": [targets]}
        for r in RECORDS[:2]
        for tokens, targets in zip(r["tokens_ids"], r["target_ids"], strict=True)
    ]
    expected = references_of(annotations(tmp_path))[0]
    assert references_of(annotations(tmp_path, rows))[0] == expected


COCO = {
    "images": [{"id": 7, "split": "train"}, {"id": 8, "split": "val"}, {"id": 9, "split": "train"}],
    "annotations": [
        {"image_id": 7, "caption": "A dog, running!"},
        {"image_id": 7, "caption": "dogs running ."},
        {"image_id": 8, "caption": "a cat"},
        {"image_id": 9, "caption": "Running dog"},
    ],
}


def test_captions_as_people_wrote_them(tmp_path):
    """Encoded as CaptionDataset encodes them, or as the words of a tokenizer."""
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(COCO))
    (tmp_path / "vocabulary.txt").write_text("a\ndog\nrunning\nUNK\n")
    written = Written(tmp_path / "vocabulary.txt", split="train", max_length=2)
    references, dropped = references_of(path, None, written)
    assert references == {"7": [[1, 2, 3], [4, 3, 0]], "9": [[3, 2, 0]]} and dropped == 0

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "##s", "run", "##ning", ","]
    (tmp_path / "pieces.txt").write_text("\n".join(pieces) + "\n")
    outputs = tmp_path / "gts.json", tmp_path / "cider.json"
    written = Written(tokenizer=tmp_path / "pieces.txt", split="train", max_length=5)
    summary = write_cider_files(path, *outputs, written=written)
    assert (summary.images, summary.captions, summary.clipped) == (2, 3, 1)
    assert read_word_references(outputs[0]) == {
        "7": [["a", "dog", ",", "running"], ["dogs", "running", "."]],
        "9": [["running", "dog", "."]],
    }
    frequencies, _ = read_frequencies(outputs[1])
    assert frequencies["running",] == 2 and frequencies["running", "."] == 1
    with pytest.raises(UserError, match="not a dict from image ids to captions of word ids"):
        read_references(outputs[0])
    with pytest.raises(UserError, match="give one"):
        Written(tmp_path / "vocabulary.txt", tmp_path / "pieces.txt")
    with pytest.raises(UserError, match="encoded captions name no splits"):
        Written(split="train")


def test_bad_files_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no record with 'target_ids'"):
        references_of(annotations(tmp_path, RECORDS[2:]))
    with pytest.raises(UserError, match=r"must end with \.json"):
        write_cider_files(annotations(tmp_path), tmp_path / "gts.pkl", tmp_path / "cider.json")
    with pytest.raises(UserError, match=r"SCORER\.GT_PATH must name"):
        read_references(tmp_path / "nothing.pkl")
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="is not a dict from image ids"):
        read_references(tmp_path / "a.json")
    with pytest.raises(UserError, match="does not hold 'ref_len'"):
        read_frequencies(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_frequencies(tmp_path / "b.json")


@pytest.mark.skipif(not CIDER.is_dir(), reason="the reference's reward files are not here")
def test_the_files_of_the_reference_tool(tmp_path):
    outputs = tmp_path / "gts.json", tmp_path / "cider.json"
    write_cider_files(CIDER / "anno_train.pkl", *outputs, CIDER / "image_ids.txt")
    references = read_references(outputs[0])
    assert references == read_references(CIDER / "gts.pkl")
    frequencies, log_images = read_frequencies(outputs[1])
    assert (frequencies, log_images) == read_frequencies(CIDER / "cider.pkl")
    scorer = CiderD(frequencies, log_images)
    for hypothesis in json.loads((CIDER / "hyps.json").read_text())["hypotheses"]:
        score = scorer.score(hypothesis["scored_words"], references[hypothesis["image_id"]])
        assert score == pytest.approx(hypothesis["score"], abs=1e-9)
