"""Real questions about real photos: the files of VQA v2 and DAQUAR, read, learnt and scored."""

import json
import os
from pathlib import Path

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import build_dataset_mapper, build_xmodaler_valtest_loader, collate
from xmodaler.datasets.vqa_annotations import read_annotations
from xmodaler.evaluation import build_evaluation
from xmodaler.losses import build_losses
from xmodaler.modeling import add_config, build_model
from xmodaler.preprocessing.text_files import read_texts
from xmodaler.preprocessing.vqa_answers import build_vocabulary, counted_questions, read_stages
from xmodaler.preprocessing.wordpieces import train_wordpieces, write_tokenizer

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR", ROOT.parent / "shared" / "data"))
CONFIG = ROOT / "configs" / "mm_understanding" / "vqa" / "uniter" / "daquar.yaml"

pytestmark = pytest.mark.skipif(
    not (DATA / "daquar").is_dir() or not (DATA / "vqav2_coco").is_dir(), reason="no photos"
)


def config(folder, tmp_path, answers):
    """The DAQUAR config over another folder of the same layout, with its own vocabularies."""
    pieces = train_wordpieces(read_texts([folder / "questions.json"]), 1200)
    write_tokenizer(tmp_path / "wordpieces", pieces)
    (tmp_path / "label2ans.json").write_text(json.dumps(answers))
    cfg = get_cfg()
    add_config(cfg, cfg.load_from_file_tmp(str(CONFIG)))
    cfg.merge_from_file(str(CONFIG))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(tmp_path / "wordpieces")
    cfg.MODEL.MM_PREDICTOR.LABELS_NUM = len(answers)
    loader = cfg.DATALOADER
    loader.NUM_WORKERS, loader.IMAGE_AUGMENT, loader.MIRROR_PROB = 0, False, 0.0
    loader.IMAGE_FOLDER, loader.IMAGE_LIST = str(folder / "images"), str(folder / "images.json")
    loader.ANSWERS = str(tmp_path / "label2ans.json")
    for stage in ("TRAIN", "VAL", "TEST"):
        loader[f"{stage}_ANNFILE"] = str(folder / "questions.json")
        loader[f"{stage}_TARGETS"] = str(folder / "annotations.json")
    return cfg


def test_every_daquar_question_has_its_photo_and_answer(tmp_path):
    folder = DATA / "daquar"
    stages, problems = read_stages([str(folder / "annotations.json")], str(folder / "images.json"))
    assert not problems
    assert {stage: len(found) for stage, found in stages.items()} == {
        "train": 3103, "val": 559, "test": 587,
    }  # fmt: skip
    answers = build_vocabulary(counted_questions(stages, ["train"]), min_count=2)
    cfg = config(folder, tmp_path, answers)
    for stage, number in (("train", 3103), ("val", 559), ("test", 587)):
        mapper = build_dataset_mapper(cfg, "VQADataset", stage)
        records = mapper.load_data(cfg)
        assert len(records) == number and not any("error" in record for record in records)
        sample = mapper(records[-1])
        assert sample[kfg.IMAGES].shape == (3, cfg.DATALOADER.IMAGE_SIZE, cfg.DATALOADER.IMAGE_SIZE)


@pytest.mark.slow
def test_a_small_model_learns_questions_about_coco_photos_by_heart(tmp_path):
    folder = DATA / "vqav2_coco"
    questions, problems = read_annotations(folder / "annotations.json")
    assert len(questions) == 73 and not problems
    answers = build_vocabulary(questions, min_count=1)
    cfg = config(folder, tmp_path, answers)
    cfg.DATALOADER.VAL_SPLIT = ""
    # A third of them, at a small size, to be done in seconds.
    cfg.DATALOADER.TEST_BATCH_SIZE, cfg.DATALOADER.IMAGE_SIZE = 24, 32
    torch.manual_seed(0)
    batch = next(iter(build_xmodaler_valtest_loader(cfg, stage="val", collate_fn=collate)))
    model, (loss,) = build_model(cfg).train(), build_losses(cfg)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        sum(loss(model(batch)).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    with torch.no_grad():
        found = model.eval()(batch)[kfg.OUTPUT]
    results = [
        {"question_id": int(key), "answer": int(label)}
        for key, label in zip(batch[kfg.IDS], found, strict=True)
    ]
    evaluator = build_evaluation(cfg, str(folder / "annotations.json"), str(tmp_path))
    scores = evaluator.eval(results, 0)
    constant = max(
        evaluator.eval([{**result, "answer": answer} for result in results], 1)["accuracy"]
        for answer in ("yes", "no")
    )
    assert scores["accuracy"] > constant + 0.2
    assert "yes/no" in scores["answer_type"]
