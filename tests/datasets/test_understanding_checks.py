"""What the check of data sets says of questions, choices, retrieval and pre-training."""

import json
import pickle

import numpy as np
import pytest

from xmodaler.config import get_cfg
from xmodaler.datasets.checking import check_dataset, format_reports

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] a dog cat what is the"


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "vocab.txt").write_text(VOCABULARY.replace(" ", "\n"))
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(tmp_path / "vocab.txt")
    cfg.MODEL.MAX_SEQ_LEN = 6
    cfg.DATALOADER.ANNO_FOLDER = str(tmp_path)
    cfg.DATALOADER.FEATS_FOLDER = str(tmp_path / "feats")
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.NEGATIVE_SIZE = 1
    for folder in ("feats", "feats_gt"):
        (tmp_path / folder).mkdir()
        for name in ("1", "2", "3"):
            np.savez(
                tmp_path / folder / f"{name}.npz",
                features=np.ones((2, 4), dtype=np.float32),
                boxes=[[0, 0, 5, 5], [1, 1, 9, 9]],
                image_w=[10],
                image_h=[10],
            )
    return cfg


def test_questions(cfg, tmp_path):
    questions = [
        {"question_id": 1, "image_id": 1, "question": "what is the dog"},
        {"question_id": 2, "image_id": 1, "question": "what is the strange dog"},
        {"question_id": 3, "image_id": 9, "question": "what"},
    ]
    path = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    path.write_text(json.dumps({"questions": questions}))
    targets = [
        {"question_id": 1, "labels": [0], "scores": [1.0]},
        {"question_id": 2, "labels": [], "scores": []},
        {"question_id": 3, "labels": [0], "scores": [1.0]},
    ]
    for name, content in (("val_target", targets), ("trainval_label2ans", ["yes"])):
        with open(tmp_path / f"{name}.pkl", "wb") as file:
            pickle.dump(content, file)
    cfg.DATASETS.VAL = "VQADataset"
    cfg.INFERENCE.NAME = "VQAEvaler"
    (report,) = check_dataset(cfg)
    assert report.ids == ["1", "2", "3"]  # two questions about one picture are no repetition
    assert len(report.bad) == 1 and "question '3'" in report.bad[0]
    assert any("1 texts have more than 6 word pieces" in note for note in report.warnings)
    assert any("1 questions have no answer of the vocabulary" in note for note in report.warnings)
    assert report.lengths == {6: 1, 7: 1, 3: 1}
    assert report.words == {True: 9, False: 1}
    assert "VQADataset" in format_reports([report])


def test_both_tasks_of_choices(cfg, tmp_path):
    line = {
        "annot_id": "train-0",
        "metadata_fn": "2.json",
        "img_fn": "2.jpg",
        "objects": ["dog"],
        "question": ["what", "is", [0]],
        "answer_choices": [["a", [0]]] * 4,
        "answer_label": 0,
        "rationale_choices": [["the"]] * 4,
        "rationale_label": 0,
    }
    bad = {**line, "annot_id": "train-1", "question": ["what", "is", [1]]}
    (tmp_path / "train.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(bad)}")
    cfg.DATASETS.TRAIN = "VCRDataset"
    reports = check_dataset(cfg)
    assert [report.dataset for report in reports] == ["VCRDataset VCR_Q-A", "VCRDataset VCR_QA-R"]
    for report in reports:
        assert len(report.bad) == 1 and "refers to object 1" in report.bad[0]
        assert not report.warnings
    assert reports[0].lengths == {8: 4}


def test_retrieval(cfg, tmp_path):
    for name in ("train", "val_set0"):
        lines = [{"img_path": f"{k}.jpg", "sentences": ["a dog", f"the {k}"]} for k in (1, 2)]
        path = tmp_path / f"all_data_final_{name}_2014.jsonline"
        path.write_text("\n".join(map(json.dumps, lines)))
    cfg.DATASETS.TRAIN = "Flickr30kDataset"
    cfg.DATASETS.VAL = "Flickr30kDatasetForSingleStreamVal"
    train, val = check_dataset(cfg)
    assert not train.bad and not val.bad
    assert train.widths == {4: 4} and val.widths == {4: 4}
    assert any("2 records are also in the training data: 1, 2" in note for note in val.warnings)


def test_pre_training(cfg, tmp_path):
    (tmp_path / "Train_GCC-training.tsv").write_text("a dog\tx\nwhat is the cat\tx\n\tx\n")
    (tmp_path / "train_images_ids.txt").write_text("1\n2\n3\n")
    cfg.DATASETS.TRAIN = "ConceptualCaptionsDatasetForSingleStream"
    (report,) = check_dataset(cfg)
    assert len(report.bad) == 1 and "image '3': has no caption" in report.bad[0]
    assert report.lengths == {4: 1, 6: 1}
