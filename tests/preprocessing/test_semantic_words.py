"""Semantic words of COS-Net: candidates, labels, and the file that its data set reads."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from xmodaler.preprocessing.semantic_words import (
    WordClasses,
    choose_candidates,
    nearest_captions,
    retrieved_classes,
    semantic_labels,
)
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["man, person", "dog", "hot dog", "ride, riding", "bike"]


def test_classes_are_found_by_whole_words_and_phrases():
    classes = WordClasses(CLASSES)
    assert len(classes) == 5
    assert classes.mentioned(["A person RIDING a mountain-bike."]) == {0, 3}
    assert classes.mentioned(["a hot dog", "a manly bike"]) == {1, 2, 4}
    assert classes.mentioned([" ".join(["x"] * 20) + " dog"]) == set()
    with pytest.raises(UserError, match="'dog' of line 3 of the classes is already in line 2"):
        WordClasses(["man", "dog", "puppy, dog"])
    with pytest.raises(UserError, match="line 2 of the classes, '', holds no word"):
        WordClasses(["man", ""])


def test_only_near_captions_count():
    captions = [("a dog", 0.31), ("a man", 0.4), ("a bike", 0.33), ("riding", 0.5)]
    classes = WordClasses(CLASSES)
    assert retrieved_classes(captions, classes) == {0, 3, 4}
    assert retrieved_classes(captions, classes, most=2) == {0, 3}


def test_candidates_are_sure_and_retrieved_and_at_least_three():
    scores = np.array([0.95, 0.9, 0.85, 0.5, 0.7, 0.99])
    assert choose_candidates(scores, {0, 1, 2, 3}) == [0, 1, 2]
    assert choose_candidates(scores, {1, 2, 3, 4}) == [1, 2, 4]
    # One was retrieved; the best scored fill up.
    assert choose_candidates(scores, {3}) == [3, 5, 0]
    # Of the two best only one was retrieved.
    assert choose_candidates(scores, {0, 3}, best=2) == [0, 5]


def test_labels_and_what_is_missing():
    assert semantic_labels([3, 1, 2], {1, 4, 0}, 906) == ([906, 1, 906], [0, 4])


def test_nearest_captions_are_sorted_by_cosine():
    rng = np.random.default_rng(0)
    images, captions = rng.normal(size=(5, 8)), rng.normal(size=(40, 8))
    rows, values = nearest_captions(images, captions, count=6, batch_size=2)
    cosine = (images @ captions.T) / np.outer(
        np.linalg.norm(images, axis=1), np.linalg.norm(captions, axis=1)
    )
    np.testing.assert_array_equal(rows, np.argsort(-cosine, axis=1)[:, :6])
    np.testing.assert_allclose(values, -np.sort(-cosine, axis=1)[:, :6], rtol=1e-5)
    assert nearest_captions(images, captions[:3])[0].shape == (5, 3)
    with pytest.raises(UserError, match="cannot be compared"):
        nearest_captions(images, captions[:, :4])


def test_cosnets_data_set_reads_the_file(tmp_path, capsys):
    from xmodaler.config import CfgNode, get_cfg, kfg
    from xmodaler.datasets import DATASETS_REGISTRY

    records = [
        {"image_id": "7", "tokens_ids": [[0, 1, 2]], "target_ids": [[1, 2, 0]]},
        {"image_id": "8", "tokens_ids": [[0, 1, 2]], "target_ids": [[1, 2, 0]]},
    ]
    images = [{"id": 7, "file_name": "7.jpg"}]
    captions = [{"id": 0, "image_id": 7, "caption": "A man and a dog."}]
    retrieved = {"7": [["a dog on a bike", 0.4], ["a man", 0.3]]}
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    np.savez(tmp_path / "scores.npz", **{"7": np.array([0.3, 0.9, 0.2, 0.1, 0.6])})
    files = {"anno": records, "refs": {"images": images, "annotations": captions}}
    for name, content in {**files, "near": retrieved}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    spec = importlib.util.spec_from_file_location("words", ROOT / "tools" / "cosnet_words.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tmp_path / "cosnet" / "mscoco_caption_anno_clipfilter_fast_train.json"
    arguments = ["--annotations", "anno.json", "--references", "refs.json", "--scores"]
    arguments += ["scores.npz", "--retrieved", "near.json", "--classes", "classes.txt"]
    arguments = [a if a.startswith("--") else str(tmp_path / a) for a in arguments]
    with pytest.raises(UserError, match=r"1 of 2 records are unusable, the first: record '8'"):
        tool.main([*arguments, "--out", str(out)])
    assert not out.exists()
    tool.main([*arguments, "--out", str(out), "--max-bad-fraction", "0.5"])
    # Sure and retrieved: dog; retrieved: bike; then by score: man.
    assert "1 pictures, left out 1; 3.0 words each, precision 0.667, recall 1.000" in (
        capsys.readouterr().out
    )
    cfg = get_cfg()
    cfg.DATALOADER.ANNO_FOLDER, cfg.DATALOADER.SEQ_PER_SAMPLE = str(tmp_path), 1
    cfg.DATALOADER.SAMPLE_PROB = 0.0
    cfg.MODEL.COSNET = CfgNode({"NUM_CLASSES": 5})
    dataset = DATASETS_REGISTRY.get("MSCoCoCOSNetDataset")(cfg, "train")
    sample = dataset(dataset.load_data(cfg)[0])
    assert sample[kfg.SEMANTICS_IDS][0].tolist() == [1, 4, 0]
    assert sample[kfg.SEMANTICS_LABELS][0].tolist() == [1, 5, 0]
    assert sample[kfg.SEMANTICS_MISS_LABELS][0].tolist() == [0, 0, 0, 0, 0, 0]
