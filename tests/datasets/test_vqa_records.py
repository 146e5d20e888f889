"""Questions whose answers are generated: layouts of files, weights, batches, candidates."""

import json

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import JsonVQADataset, SampleError, collate
from xmodaler.datasets.answer_files import read_label2ans
from xmodaler.datasets.tasks import candidate_answers
from xmodaler.evaluation.vqa_truth import read_truth
from xmodaler.utils.errors import UserError

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("what", "is", "it", "a", "red", "ball", "dog", "left", "yes", "no"),
]
A, RED, BALL, DOG, YES, NO = (WORDS.index(w) for w in ("a", "red", "ball", "dog", "yes", "no"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    for place, value in (("images", 10), ("genome", 20)):
        (tmp_path / place).mkdir()
        Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(tmp_path / place / "0.jpg")
    return tmp_path


def written(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return str(folder / name)


def config(folder, **settings):
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / "vocab.txt")
    cfg.MODEL.MAX_SEQ_LEN = 8
    cfg.DATALOADER.IMAGE_FOLDER, cfg.DATALOADER.IMAGE_SIZE = str(folder / "images"), 8
    cfg.DATALOADER.TASK.GENOME_FOLDER = str(folder / "genome")
    for key, value in settings.items():
        cfg.DATALOADER[key] = value
    return cfg


def samples(cfg, stage):
    mapper = JsonVQADataset(cfg, stage)
    return [mapper(record) for record in mapper.load_data(cfg)]


ASKED = {"question_id": 5, "question": "What is it?", "image": "0.jpg", "dataset": "vqa"}


def test_answers_weigh_what_people_gave(folder):
    said = ["red ball", "dog", "red ball", "red ball"]
    entries = [
        {**ASKED, "answer": said},
        {**ASKED, "question_id": 6, "answer": "dog", "dataset": "vg"},
    ]
    cfg = config(folder, TRAIN_ANNFILE=written(folder, "r.json", entries))
    batch = collate(samples(cfg, "train"))
    assert batch[kfg.ANSWER_COUNTS].tolist() == [2, 1]
    assert batch[kfg.ANSWER_WEIGHTS].tolist() == [0.75, 0.25, 0.5]
    assert batch[kfg.G_TOKENS_IDS].tolist() == [[2, RED, BALL], [2, DOG, 0], [2, DOG, 0]]
    assert batch[kfg.G_TARGET_IDS].tolist() == [[RED, BALL, 3], [DOG, 3, -1], [DOG, 3, -1]]
    # The masks are those of the questions.
    assert batch[kfg.TOKENS_MASKS].shape == batch[kfg.U_TOKENS_IDS].shape == (2, 5)
    assert batch[kfg.U_TOKENS_IDS][0].tolist() == [2, 5, 6, 7, 3]


def test_pictures_of_visual_genome_lie_elsewhere(folder):
    entries = [ASKED, {**ASKED, "question_id": 6, "dataset": "vg"}]
    cfg = config(folder, TEST_ANNFILE=written(folder, "r.json", entries))
    found = samples(cfg, "test")
    assert [abs(int(sample[kfg.IMAGES].float().mean()) - v) < 3 for sample, v in
            zip(found, (10, 20), strict=True)] == [True, True]  # fmt: skip
    assert [sample[kfg.IDS] for sample in found] == ["5", "6"]
    assert kfg.G_TOKENS_IDS not in found[0]


def test_files_of_gqa_in_several_languages(folder):
    train = [{"question_id": 1, "img_id": "0", "sent": "is it red", "label": {"yes": 1.0}}]
    test = {"7": {"imageId": "0", "question": "is it a dog", "answer": "no"}}
    en, de = written(folder, "en.json", test), written(folder, "de.json", test)
    files = f"en={en},de={de}"
    cfg = config(folder, TRAIN_ANNFILE=written(folder, "t.json", train), TEST_ANNFILE=files)
    (learned,) = samples(cfg, "train")
    assert learned[kfg.ANSWER_WEIGHTS] == [1.0]
    assert learned[kfg.G_TOKENS_IDS][0].tolist() == [2, YES]
    found = samples(cfg, "test")
    assert [sample[kfg.IDS] for sample in found] == ["en/7", "de/7"]
    assert [sample[kfg.SPLITS] for sample in found] == ["en", "de"]
    truth = read_truth(files, list)
    assert truth["de/7"].accuracy("no") == 1.0 and truth["en/7"].accuracy("yes") == 0.0


def test_official_questions_and_annotations(folder):
    questions = {"questions": [{"question_id": 9, "image_id": 0, "question": "What is it?"}]}
    people = [{"answer": answer} for answer in ["Dog"] * 7 + ["a dog"] * 2 + ["red"]]
    said = {"annotations": [{"question_id": 9, "image_id": 0, "answers": people}]}
    cfg = config(
        folder,
        TRAIN_ANNFILE=written(folder, "q.json", questions),
        TRAIN_TARGETS=written(folder, "a.json", said),
        IMAGE_NAME="{}.jpg",
    )
    (sample,) = samples(cfg, "train")
    assert [round(float(weight), 3) for weight in sample[kfg.ANSWER_WEIGHTS]] == [0.9, 0.1]
    cfg.DATALOADER.TRAIN_TARGETS = ""
    with pytest.raises(UserError, match="TRAIN_TARGETS"):
        samples(cfg, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": None}, "no 'question'"),
        ({"question": "?"}, "holds no word"),
        ({"answer": []}, "it has no answer"),
        ({"answer": [3]}, "an answer is not text"),
        ({"answer": None}, "no 'answer'"),
        ({"image": "1.jpg"}, "does not exist"),
    ],
)
def test_bad_records_are_told(folder, changes, message):
    entry = {**ASKED, "answer": ["dog"], **changes}
    entry = {key: value for key, value in entry.items() if value is not None}
    cfg = config(folder, TRAIN_ANNFILE=written(folder, "r.json", [entry]))
    with pytest.raises(SampleError, match=message):
        samples(cfg, "train")


def test_sides_in_answers_forbid_the_mirror_too(folder):
    entries = [{**ASKED, "answer": ["left"]}, {**ASKED, "question_id": 6, "answer": ["dog"]}]
    cfg = config(folder, TRAIN_ANNFILE=written(folder, "r.json", entries))
    mapper = JsonVQADataset(cfg, "train")
    assert [mapper.may_mirror(record) for record in mapper.load_data(cfg)] == [False, True]


def test_candidates_are_a_list_or_the_keys_of_labels(folder):
    cfg = config(folder, ANSWERS=written(folder, "answers.json", ["yes", "a dog"]))
    assert candidate_answers(cfg) == ([[YES], [A, DOG]], 2, 3)
    labels = written(folder, "labels.json", {"no": 1, "yes": 0})
    assert read_label2ans(labels) == ["yes", "no"]
    assert read_label2ans(written(folder, "keys.json", {"no": 5, "yes": 5})) == ["no", "yes"]
    with pytest.raises(UserError, match=r"DATALOADER\.ANSWERS"):
        candidate_answers(config(folder))
    with pytest.raises(UserError, match="not a list of answers"):
        candidate_answers(config(folder, ANSWERS=written(folder, "none.json", [])))
