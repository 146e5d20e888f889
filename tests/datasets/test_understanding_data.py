"""Data sets of understanding on small files of the released layout: what goes wrong, and options.

Values are checked against the reference by the parity tests.
"""

import json
import pickle
import random

import numpy as np
import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import (
    SampleError,
    build_dataset_mapper,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
    text_cache,
)
from xmodaler.utils.errors import UserError

VOCABULARY = """[PAD] [UNK] [CLS] [SEP] [MASK] a dog cat left right of the is on what casey riley
and red blue one two three four five six seven eight nine ten because yes no"""
WORDS = VOCABULARY.split()
WIDTH, CLASSES = 4, 3


def write_features(folder, name, count=3, seed=0, boxes=None, features=None, **extra):
    """A feature file of random regions in a picture of 100 x 50."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, size=(count, 2))
    default = np.concatenate([corner, corner + rng.uniform(5, 25, size=(count, 2))], axis=1)
    path = folder / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        features=rng.normal(size=(count, WIDTH)).astype(np.float32)
        if features is None
        else features,
        boxes=np.asarray(default if boxes is None else boxes, dtype=np.float32),
        image_w=[100],
        image_h=[50],
        **extra,
    )


@pytest.fixture
def cfg(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(vocabulary)
    cfg.MODEL.VOCAB_SIZE = len(WORDS)
    cfg.MODEL.MAX_SEQ_LEN = 8
    cfg.MODEL.VISUAL_EMBED.NAME = "VisualBaseEmbedding"
    cfg.MODEL.VISUAL_EMBED.IN_DIM = WIDTH
    cfg.DATALOADER.ANNO_FOLDER = str(tmp_path)
    cfg.DATALOADER.FEATS_FOLDER = str(tmp_path / "feats")
    cfg.DATALOADER.MAX_FEAT_NUM = 6
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.NEGATIVE_SIZE = 1
    cfg.DATALOADER.MAX_BAD_FRACTION = 1.0
    return cfg


def build(name, cfg, stage="train"):
    mapper = build_dataset_mapper(cfg, name, stage)
    return mapper, mapper.load_data(cfg)


def errors(mapper, records):
    """What is said of the bad ones."""
    said = []
    for record in records:
        try:
            mapper(record)
        except SampleError as error:
            said.append(str(error))
    return said


# -- questions -----------------------------------------------------------------------------------


ANSWERS = ["yes", "no", "left", "right"]


def write_vqa(folder, questions, targets, stage="train", answers=ANSWERS):
    """Files of the released layout; only ``stage`` has content."""
    year = {"train": "train2014", "val": "val2014", "test": "test2015"}
    for name in ("train", "val", "test"):
        entries = questions if name == stage else []
        path = folder / f"v2_OpenEnded_mscoco_{year[name]}_questions.json"
        path.write_text(json.dumps({"questions": entries}))
        with open(folder / f"{name}_target.pkl", "wb") as file:
            pickle.dump(targets if name == stage else [], file)
    with open(folder / "trainval_label2ans.pkl", "wb") as file:
        pickle.dump(answers, file)


def question(number, text="what is left of the dog", image=1):
    return {"question_id": number, "image_id": image, "question": text}


def target(number, labels=(0,), scores=(1.0,), image=1):
    return {
        "question_id": number,
        "image_id": image,
        "labels": list(labels),
        "scores": list(scores),
    }


def test_questions_are_joined_by_id_and_cut(cfg, tmp_path):
    write_features(tmp_path / "feats", "1")
    questions = [question(7, "one two three four five six seven eight"), question(3)]
    write_vqa(tmp_path, questions, [target(3), target(7, [1, 3], [0.3, 0.6])])
    mapper, records = build("VQADataset", cfg)
    assert [record["question_id"] for record in records] == [3, 7]
    sample = mapper(records[1])
    ids = sample[kfg.U_TOKENS_IDS].tolist()
    assert len(ids) == 8 and ids[0] == 2 and ids[-1] == 3
    assert sample[kfg.IDS] == "7"
    assert sample[kfg.U_TARGET_IDS].tolist() == pytest.approx([0, 0.3, 0, 0.6])


def test_bad_questions_are_skipped_and_counted(cfg, tmp_path):
    write_features(tmp_path / "feats", "1")
    questions = [
        question(1),
        question(2),
        question(3, "  "),
        {"question_id": 4},
        question(5, image=9),
    ]
    write_vqa(tmp_path, questions, [target(1), target(3), target(5), target(6, [0], [0.5, 0.2])])
    mapper, records = build("VQADataset", cfg)
    said = "\n".join(errors(mapper, records))
    assert "question '2': has no answers in train_target" in said
    assert "question '3': the question is empty" in said
    assert "questions[3]': needs question_id, image_id and question" in said
    assert "question '5'" in said and "no features" in said
    assert "1 labels with 2 scores" in said

    cfg.DATASETS.TRAIN = "VQADataset"
    cfg.DATALOADER.TRAIN_BATCH_SIZE = len(records)
    loader = build_xmodaler_train_loader(cfg, collate_fn=collate)
    (batch,) = list(loader)
    assert batch[kfg.IDS] == ["1"] * len(records)  # others take the places of the bad ones
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.01
    with pytest.raises(UserError, match="has no answers in train_target"):
        list(build_xmodaler_train_loader(cfg, collate_fn=collate))


def test_a_question_whose_answers_are_all_rare_stays(cfg, tmp_path):
    write_features(tmp_path / "feats", "1")
    write_vqa(tmp_path, [question(1)], [target(1, [], [])])
    mapper, records = build("VQADataset", cfg)
    assert mapper(records[0])[kfg.U_TARGET_IDS].tolist() == [0, 0, 0, 0]


def test_labels_of_another_vocabulary_are_refused(cfg, tmp_path):
    write_features(tmp_path / "feats", "1")
    write_vqa(tmp_path, [question(1)], [target(1, [7], [1.0])])
    with pytest.raises(UserError, match="label 7, but the vocabulary in use has 4"):
        build("VQADataset", cfg)
    write_vqa(tmp_path, [question(1)], [target(1)])
    cfg.MODEL.MM_PREDICTOR = type(cfg)({"LABELS_NUM": 3129})
    with pytest.raises(
        UserError, match=r"has 4 answers, but MODEL\.MM_PREDICTOR\.LABELS_NUM is 3129"
    ):
        build("VQADataset", cfg)


def test_an_answer_outside_the_vocabulary_is_a_bad_record(cfg, tmp_path):
    write_features(tmp_path / "feats", "1")
    write_vqa(tmp_path, [question(1)], [target(1)])
    mapper, records = build("VQADataset", cfg)
    with pytest.raises(SampleError, match=r"question '1'.*label 9 is not among the 4"):
        mapper({**records[0], "labels": [9]})


def test_mirrored_pictures_swap_left_and_right(cfg, tmp_path, monkeypatch):
    write_features(tmp_path / "feats", "1", seed=1)
    write_features(tmp_path / "feats_mirror", "1", seed=2)
    write_vqa(tmp_path, [question(1)], [target(1, [0, 2], [0.3, 1.0])])
    mapper, (record,) = build("VQADataset", cfg)
    monkeypatch.setattr(random, "random", lambda: 0.1)
    plain = mapper(record)
    monkeypatch.setattr(random, "random", lambda: 0.9)
    mirrored = mapper(record)
    left, right = WORDS.index("left"), WORDS.index("right")
    swapped = [right if piece == left else piece for piece in plain[kfg.U_TOKENS_IDS].tolist()]
    assert left in plain[kfg.U_TOKENS_IDS] and mirrored[kfg.U_TOKENS_IDS].tolist() == swapped
    assert mirrored[kfg.U_TARGET_IDS].tolist() == pytest.approx([0.3, 0, 0, 1])
    assert not torch.equal(plain[kfg.ATT_FEATS], mirrored[kfg.ATT_FEATS])
    cfg.DATALOADER.MIRROR_PROB = 0.0
    mapper, (record,) = build("VQADataset", cfg)
    assert torch.equal(mapper(record)[kfg.ATT_FEATS], plain[kfg.ATT_FEATS])


def test_without_mirrored_pictures_nothing_is_mirrored(cfg, tmp_path, monkeypatch):
    write_features(tmp_path / "feats", "1")
    write_vqa(tmp_path, [question(1)], [target(1)])
    mapper, (record,) = build("VQADataset", cfg)
    monkeypatch.setattr(random, "random", lambda: 0.9)
    assert WORDS.index("left") in mapper(record)[kfg.U_TOKENS_IDS]


def test_questions_without_answers_for_test(cfg, tmp_path):
    write_features(tmp_path / "feats_test2015", "1")
    write_vqa(tmp_path, [question(1)], [], stage="test")
    (tmp_path / "trainval_label2ans.pkl").unlink()
    mapper, records = build("VQADataset", cfg, "test")
    assert kfg.U_TARGET_IDS not in mapper(records[0])


# -- regions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[1, 1, 9, 9], [5, 5, 5, 20]]}, r"box 1 \(5, 5, 5, 20\) has no area"),
        ({"boxes": [[1, 1, 9, 9], [9, 9, 4, 20]]}, "box 1 .* has no area"),
        ({"boxes": [[1, 1, 9, 9], [5, 5, 150, 20]]}, "outside its picture of 100 x 50"),
        ({"boxes": [[1, 1, 9, 9], [-8, 5, 10, 20]]}, "outside its picture"),
        ({"boxes": [[1, 1, 9, 9], [np.nan, 5, 10, 20]]}, "boxes"),
        ({"boxes": [[1, 1, 9, 9]]}, "boxes have shape"),
        ({"features": np.full((2, WIDTH), np.nan, np.float32)}, "NaN or infinity"),
        ({"features": np.ones((2, WIDTH + 1), np.float32)}, "width 5, but .*IN_DIM is 4"),
        ({"features": np.ones((0, WIDTH), np.float32)}, "features have shape"),
    ],
)
def test_bad_regions_are_bad_records(cfg, tmp_path, change, message):
    write_features(tmp_path / "feats", "1", count=2, **change)
    write_vqa(tmp_path, [question(1)], [target(1)])
    mapper, records = build("VQADataset", cfg)
    with pytest.raises(SampleError, match=f"question '1'.*{message}"):
        mapper(records[0])


def test_a_box_may_end_one_pixel_beyond(cfg, tmp_path):
    write_features(tmp_path / "feats", "1", count=1, boxes=[[-0.5, 0, 100.5, 51]])
    write_vqa(tmp_path, [question(1)], [target(1)])
    mapper, records = build("VQADataset", cfg)
    assert mapper(records[0])[kfg.ATT_FEATS].shape == (2, WIDTH)


def test_missing_features_are_said_at_once(cfg, tmp_path):
    write_vqa(tmp_path, [question(1)], [target(1)])
    with pytest.raises(UserError, match=r"FEATS_FOLDER must name a folder"):
        build("VQADataset", cfg)
    cfg.DATALOADER.FEATS_FOLDER = ""
    with pytest.raises(UserError, match=r"FEATS_FOLDER and IMAGE_FOLDER are both empty"):
        build("VQADataset", cfg)


# -- pre-training ----------------------------------------------------------------------------------


def write_pairs(folder, captions, ids=None, name="train"):
    files = {
        "train": "Train_GCC-training.tsv",
        "val": "Validation_GCC-1.1.0-Validation.tsv",
    }
    lines = "".join(f"{caption}\thttp://x/{k}\n" for k, caption in enumerate(captions))
    (folder / files[name]).write_text(lines)
    ids = range(1, len(captions) + 1) if ids is None else ids
    (folder / f"{name}_images_ids.txt").write_text("\n".join(map(str, ids)))


def class_probabilities(count, classes=CLASSES):
    return np.full((count, classes), 1 / classes, dtype=np.float32)


def test_pairs_hide_words_and_regions(cfg, tmp_path):
    cfg.MODEL.BERT.V_TARGET_SIZE = CLASSES
    write_pairs(tmp_path, ["a dog", "a cat on the left", "a red cat"], ids=[2, 3])
    for name in ("2", "3"):
        write_features(tmp_path / "feats", name, cls_prob=class_probabilities(3))
    mapper, records = build("ConceptualCaptionsDataset", cfg)
    assert [record["image_id"] for record in records] == ["2", "3"]
    random.seed(0)
    for _ in range(40):
        batch = collate([mapper(record) for record in records])
        assert batch[kfg.ATT_FEATS].shape == (2, 4, WIDTH)
        assert batch[kfg.V_TARGET].shape == (2, 3, CLASSES)
        hidden = batch[kfg.V_TARGET_LABELS] == 1
        assert (batch[kfg.ATT_FEATS][:, 1:][hidden] == 0).all()
        visible = batch[kfg.ATT_FEATS][:, 1:]
        count = (visible != 0).any(dim=2).sum(dim=1).clamp(min=1)
        mean = visible.sum(dim=1) / count[:, None]
        torch.testing.assert_close(batch[kfg.ATT_FEATS][:, 0], mean)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (None, "no cls_prob, which MODEL.BERT.V_TARGET_SIZE asks for"),
        (class_probabilities(3, 1601), "1601 classes, but MODEL.BERT.V_TARGET_SIZE is 3"),
        (class_probabilities(2), "cls_prob has shape"),
    ],
)
def test_classes_of_another_detector_are_bad_records(cfg, tmp_path, probabilities, message):
    cfg.MODEL.BERT.V_TARGET_SIZE = CLASSES
    write_pairs(tmp_path, ["a dog"])
    extra = {} if probabilities is None else {"cls_prob": probabilities}
    write_features(tmp_path / "feats", "1", **extra)
    for name in ("", "ForSingleStream"):
        mapper, records = build(f"ConceptualCaptionsDataset{name}", cfg)
        with pytest.raises(SampleError, match=message):
            mapper(records[0])


def test_grids_are_hidden_cell_by_cell(cfg, tmp_path):
    cfg.DATALOADER.FEATS_GRID = [2, 2]
    cfg.DATALOADER.MUST_MASK_REGION = True
    write_pairs(tmp_path, ["a dog"])
    (tmp_path / "feats").mkdir()
    np.save(tmp_path / "feats" / "1.npy", np.ones((4, WIDTH), dtype=np.float32))
    mapper, records = build("ConceptualCaptionsDataset", cfg)
    for _ in range(20):
        sample = mapper(records[0])
        hidden = sample[kfg.V_TARGET_LABELS] == 1
        assert hidden.any() and sample[kfg.ATT_FEATS_LOC].shape == (5, 5)
        assert torch.equal((sample[kfg.ATT_FEATS][1:] == 0).all(dim=1), hidden)


def test_classes_are_not_asked_for_by_a_model_that_does_not_learn_them(cfg, tmp_path):
    cfg.MODEL.BERT.V_TARGET_SIZE = CLASSES
    cfg.MODEL.PRETRAIN_TASKS = ["mlm", "mrfr"]
    write_pairs(tmp_path, ["a dog"])
    write_features(tmp_path / "feats", "1")
    mapper, records = build("ConceptualCaptionsDatasetForSingleStream", cfg)
    assert kfg.V_TARGET not in mapper(records[0])


def test_captions_that_are_empty_or_all_alike(cfg, tmp_path):
    write_pairs(tmp_path, ["a dog", "  ", "a dog"])
    for name in ("1", "2", "3"):
        write_features(tmp_path / "feats", name)
    cfg.MODEL.ITM_NEG_PROB = 1.0
    mapper, records = build("ConceptualCaptionsDatasetForSingleStream", cfg)
    with pytest.raises(SampleError, match="image '2': has no caption"):
        mapper(records[1])
    mapper._captions = mapper.captions.__class__(["a dog"])
    with pytest.raises(SampleError, match="drawn by chance are the same"):
        mapper(records[0])


def test_pairs_without_a_split(cfg, tmp_path):
    write_features(tmp_path / "feats", "1")
    with pytest.raises(UserError, match="no split 'test'"):
        build("ConceptualCaptionsDataset", cfg, "test")
    write_pairs(tmp_path, ["a dog"], ids=[5])
    with pytest.raises(UserError, match="lists no row"):
        build("ConceptualCaptionsDataset", cfg)


# -- retrieval -------------------------------------------------------------------------------------


def write_retrieval(folder, images, stage="train"):
    names = {"train": "train", "val": "val_set0", "test": "test_set0"}
    lines = [json.dumps({"img_path": f"{name}.jpg", "sentences": s}) for name, s in images.items()]
    path = folder / f"all_data_final_{names[stage]}_2014.jsonline"
    path.write_text("\n".join(lines))
    for k, name in enumerate(images):
        write_features(folder / "feats", name, seed=k)
    return path


def test_negatives_are_of_other_pictures(cfg, tmp_path):
    images = {"x": ["a dog", "a cat"], "y": ["a cat"], "z": ["the red dog"]}
    write_retrieval(tmp_path, images)
    cfg.DATALOADER.NEGATIVE_SIZE = 20
    mapper, records = build("Flickr30kDatasetForSingleStream", cfg)
    z = mapper.tokenizer.encode("the red dog")
    for _ in range(5):
        sample = mapper(records[0])
        # y has a caption of x, so only z is another picture.
        assert sample[kfg.U_TOKENS_IDS][1].tolist()[1:-1] == z
        assert all(torch.equal(f, sample[kfg.ATT_FEATS][2]) for f in sample[kfg.ATT_FEATS][2::2])
    assert not torch.equal(sample[kfg.ATT_FEATS][0], sample[kfg.ATT_FEATS][2])
    batch = collate([mapper(records[0]), mapper(records[3])])
    assert batch[kfg.ATT_FEATS].shape[0] == batch[kfg.U_TOKENS_IDS].shape[0] == 82
    assert batch[kfg.SAMPLE_PER_SAMPLE] == 41 and batch[kfg.U_TARGET_IDS].shape == (2, 1, 1)


def test_no_other_picture(cfg, tmp_path):
    write_retrieval(tmp_path, {"x": ["a cat"], "y": ["a cat"]})
    mapper, records = build("Flickr30kDatasetForSingleStream", cfg)
    with pytest.raises(SampleError, match="no other picture"):
        mapper(records[0])


def test_negative_draws_depend_on_the_seed_alone(cfg, tmp_path):
    write_retrieval(tmp_path, {name: [f"a {name}"] for name in ("dog", "cat", "red", "blue")})
    drawn = []
    for _ in range(2):
        mapper, records = build("Flickr30kDatasetForSingleStream", cfg)
        random.seed(5)
        drawn.append([mapper(record)[kfg.U_TOKENS_IDS][1].tolist() for record in records])
    assert drawn[0] == drawn[1]


def test_bad_lines_of_captions(cfg, tmp_path):
    path = write_retrieval(tmp_path, {"x": ["a cat"], "y": []})
    with open(path, "a") as file:
        file.write('\n{"img_path": "z.jpg"}\n{broken\n[1]\n{"sentences": ["a"]}\n')
    mapper, records = build("Flickr30kDataset", cfg)
    said = "\n".join(errors(mapper, records))
    assert "image 'y': has no caption" in said
    assert "image 'z'" in said and "'sentences' is no list" in said
    assert "line 4': not a JSON object" in said and "line 5': not a JSON object" in said
    assert "line 6': has no 'img_path'" in said
    assert len(records) - len(errors(mapper, records)) == 1


def test_every_caption_against_every_picture(cfg, tmp_path):
    images = {"x": ["a cat", "a dog"], "y": ["the red dog"], "z": ["a"]}
    write_retrieval(tmp_path, images, "val")
    cfg.DATALOADER.INF_BATCH_SIZE = 2
    cfg.DATASETS.VAL = "Flickr30kDatasetForSingleStreamVal"
    loader = build_xmodaler_valtest_loader(cfg, stage="val")
    items = [item for (item,) in loader]
    assert len(items) == 4
    places = [int(batches[0]["matched_imgfeatidx"]) for batches in items]
    assert places == [0, 0, 1, 2]
    assert [len(batch[kfg.U_TOKENS_IDS]) for batch in items[0]] == [2, 1]
    assert all(int(batch["total_img_num"]) == 3 for batches in items for batch in batches)


def test_pairs_are_for_training_only(cfg, tmp_path):
    write_retrieval(tmp_path, {"x": ["a cat"]}, "val")
    with pytest.raises(UserError, match="Flickr30kDatasetForSingleStreamVal"):
        build("Flickr30kDatasetForSingleStream", cfg, "val")
    cfg.DATALOADER.NEGATIVE_SIZE = -1
    with pytest.raises(UserError, match="NEGATIVE_SIZE is -1"):
        build("Flickr30kDatasetForSingleStream", cfg)


# -- choices ---------------------------------------------------------------------------------------


def vcr_line(number=0, **change):
    line = {
        "annot_id": f"train-{number}",
        "img_fn": "m/p.jpg",
        "metadata_fn": "m/p.json",
        "objects": ["person", "dog", "person"],
        "question": ["what", "is", [0], "on"],
        "answer_choices": [["a", [1]], ["the", [0, 2]], ["yes"], ["no"]],
        "answer_label": 1,
        "rationale_choices": [["because", word] for word in ("one", "two", "three", "four")],
        "rationale_label": 2,
    }
    return {key: value for key, value in {**line, **change}.items() if value is not None}


def write_vcr(folder, lines, stage="train"):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / f"{stage}.jsonl").write_text(text)
    write_features(folder / "feats", "m/p", seed=1)
    write_features(folder / "feats_gt", "m/p", count=2, seed=2)


def words(ids):
    return " ".join(WORDS[index] for index in ids)


def test_choices_name_persons_in_turn(cfg, tmp_path):
    write_vcr(tmp_path, [vcr_line(0), vcr_line(1, objects=["dog", "dog", "dog"])])
    mapper, records = build("VCRDataset", cfg, "train;VCR_Q-A")
    sample = mapper(records[0])
    texts = [words(ids) for ids in sample[kfg.U_TOKENS_IDS]]
    assert texts[:2] == [
        "[CLS] what is casey on [SEP] a dog [SEP]",
        "[CLS] what is casey on [SEP] the casey and riley [SEP]",
    ]
    assert sample[kfg.U_TOKENS_TYPE][0].tolist() == [0] * 6 + [1] * 3
    assert sample[kfg.IDS] == "0" and sample[kfg.U_TARGET_IDS].tolist() == [1]
    batch = collate([mapper(record) for record in records])
    assert batch[kfg.SEQ_PER_SAMPLE] == 4 and batch[kfg.U_TOKENS_IDS].shape[0] == 8
    assert batch[kfg.ATT_FEATS].shape[0] == 2


def test_names_can_begin_anew_for_every_record(cfg, tmp_path):
    write_vcr(tmp_path, [vcr_line(0), vcr_line(1)])
    texts = {}
    for option in (False, True):
        cfg.DATALOADER.VCR_NAMES_PER_RECORD = option
        mapper, records = build("VCRDataset", cfg, "train;VCR_Q-A")
        texts[option] = words(mapper(records[1])[kfg.U_TOKENS_IDS][2])
    assert texts == {  # the third name is none of the vocabulary
        False: "[CLS] what is [UNK] on [SEP] yes [SEP]",
        True: "[CLS] what is casey on [SEP] yes [SEP]",
    }


def test_rationales_follow_the_right_answer(cfg, tmp_path):
    write_vcr(tmp_path, [vcr_line()])
    mapper, records = build("VCRDataset", cfg, "train;VCR_QA-R")
    sample = mapper(records[0])
    assert words(sample[kfg.U_TOKENS_IDS][2]) == (
        "[CLS] what is casey on [SEP] the casey and riley [SEP] because three [SEP]"
    )
    assert sample[kfg.U_TARGET_IDS].tolist() == [2]
    assert sample[kfg.U_TOKENS_TYPE][0].tolist() == [0] * 11 + [1] * 3


def test_rationales_follow_every_answer_where_the_right_one_is_not_known(cfg, tmp_path):
    line = vcr_line(answer_label=None, rationale_label=None, annot_id="test-5")
    write_vcr(tmp_path, [line], "test")
    mapper, records = build("VCRDataset", cfg, "test;VCR_QA-R")
    sample = mapper(records[0])
    texts = [words(ids) for ids in sample[kfg.U_TOKENS_IDS]]
    assert len(texts) == int(sample[kfg.SEQ_PER_SAMPLE]) == 16
    assert texts[5] == "[CLS] what is casey on [SEP] the casey and riley [SEP] because two [SEP]"
    assert kfg.U_TARGET_IDS not in sample
    mapper, records = build("VCRDataset", cfg, "test;VCR_Q-A")
    assert len(mapper(records[0])[kfg.U_TOKENS_IDS]) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (vcr_line(question=["who", [3]]), "refers to object 3, but there are 3 objects"),
        (vcr_line(question=["who", [-1]]), "refers to object -1"),
        (vcr_line(question=["who", 3]), "neither a word nor a list"),
        (vcr_line(answer_choices=[["a"], ["b"]]), "'answer_choices' is no list of 4"),
        (vcr_line(answer_label=4), "'answer_label' is 4"),
        (vcr_line(objects=None), "'objects' is no list"),
        (vcr_line(metadata_fn=None), "lacks 'metadata_fn'"),
        (vcr_line(metadata_fn="m/q.json"), "no features"),
        (vcr_line(answer_label=None), "has no label"),
        ("{", "not a JSON object"),
    ],
)
def test_bad_choices_are_bad_records(cfg, tmp_path, line, message):
    write_vcr(tmp_path, [line, vcr_line(1)])
    mapper, records = build("VCRDataset", cfg, "train;VCR_Q-A")
    (said,) = errors(mapper, records)
    assert message in said and "annotation '" in said


def test_a_record_without_rationales(cfg, tmp_path):
    write_vcr(tmp_path, [vcr_line(rationale_choices=None)])
    mapper, records = build("VCRDataset", cfg, "train;VCR_QA-R")
    assert errors(mapper, records) == ["annotation 'train-0': has no rationale_choices"]
    with pytest.raises(UserError, match="no task 'VCR_A'"):
        build("VCRDataset", cfg, "train;VCR_A")


def test_long_choices_are_cut(cfg, tmp_path):
    long = ["one", "two", "three", "four"] * 30
    line = vcr_line(question=long, answer_choices=[long] * 4, rationale_choices=[long] * 4)
    write_vcr(tmp_path, [line])
    for task, length in (("VCR_Q-A", 38), ("VCR_QA-R", 66)):
        mapper, records = build("VCRDataset", cfg, f"train;{task}")
        sample = mapper(records[0])
        assert {len(ids) for ids in sample[kfg.U_TOKENS_IDS]} == {length}
        assert all(
            len(i) == len(t)
            for i, t in zip(sample[kfg.U_TOKENS_IDS], sample[kfg.U_TOKENS_TYPE], strict=True)
        )
    cfg.DATALOADER.VCR_MAX_SEQ_LEN = 20
    mapper, records = build("VCRDataset", cfg, "train;VCR_Q-A")
    assert len(mapper(records[0])[kfg.U_TOKENS_IDS][0]) == 20


def test_mirrored_texts_of_choices_are_an_option(cfg, tmp_path, monkeypatch):
    write_vcr(tmp_path, [vcr_line(question=["what", "is", "left"])])
    write_features(tmp_path / "feats_mirror", "m/p", seed=3)
    write_features(tmp_path / "feats_gt_mirror", "m/p", count=2, seed=4)
    monkeypatch.setattr(random, "random", lambda: 0.9)
    for option, word in ((False, "left"), (True, "right")):
        cfg.DATALOADER.MIRROR_TEXT = option
        mapper, records = build("VCRDataset", cfg, "train;VCR_Q-A")
        assert words(mapper(records[0])[kfg.U_TOKENS_IDS][2]) == (
            f"[CLS] what is {word} [SEP] yes [SEP]"
        )


def test_choices_without_annotated_boxes_use_the_detected_ones(cfg, tmp_path):
    write_vcr(tmp_path, [vcr_line()])
    (tmp_path / "feats_gt" / "m" / "p.npz").rename(tmp_path / "gone.npz")
    cfg.DATALOADER.FEATS_FOLDER = str(tmp_path / "other")
    write_features(tmp_path / "other", "m/p", seed=1)
    mapper, records = build("VCRDataset", cfg, "train;VCR_Q-A")
    assert mapper(records[0])[kfg.ATT_FEATS].shape == (4, WIDTH)


# -- captions --------------------------------------------------------------------------------------


def write_coco(folder, images):
    content = {"images": images}
    (folder / "dataset_coco.json").write_text(json.dumps(content))
    for image in images:
        if "cocoid" in image:
            write_features(folder / "feats", str(image["cocoid"]))


def coco_image(number, *captions, **extra):
    return {"cocoid": number, "sentences": [{"raw": text} for text in captions], **extra}


def test_captions_in_word_pieces(cfg, tmp_path):
    cfg.DATALOADER.SEQ_PER_SAMPLE = 2
    images = [
        coco_image(1, "A dog. ", "one two three four five six seven eight nine", split="restval"),
        coco_image(2, "a cat", split="test"),
        coco_image(3, split="train"),
        {"sentences": []},
    ]
    write_coco(tmp_path, images)
    mapper, records = build("MSCoCoBertDataset", cfg)
    assert [record["image_id"] for record in records] == ["1", "3", "images[3]"]
    short, long = records[0]["tokens_ids"], records[0]["target_ids"]
    assert short[0].tolist() == [2, 5, 6, 0, 0, 0, 0, 0]
    assert long[0].tolist() == [5, 6, 3, -1, -1, -1, -1, -1]
    assert 3 not in long[1]  # a long caption loses its end
    sample = mapper(records[0])
    assert int(sample[kfg.SEQ_PER_SAMPLE]) == 2 and len(sample[kfg.G_TOKENS_IDS]) == 2
    assert errors(mapper, records) == [
        "image '3': no caption to train on",
        "image 'images[3]': not an object with 'cocoid'",
    ]
    (tmp_path / "coco_train_image_id.txt").write_text("2\n")
    _, records = build("MSCoCoBertDataset", cfg)
    assert records[0]["image_id"] == "2"


def test_encoded_captions_stand_in_for_missing_annotations(cfg, tmp_path):
    write_features(tmp_path / "feats", "4")
    encoded = [
        {
            "image_id": "4",
            "tokens_ids": np.array([[2, 5, 6, 0]], dtype=np.uint32),
            "target_ids": np.array([[5, 6, 3, -1]], dtype=np.int32),
        }
    ]
    with open(tmp_path / "mscoco_bert_caption_anno_train.pkl", "wb") as file:
        pickle.dump(encoded, file)
    cfg.DATALOADER.SEQ_PER_SAMPLE = 1
    mapper, records = build("MSCoCoBertDataset", cfg)
    assert mapper(records[0])[kfg.G_TOKENS_IDS][0].tolist() == [2, 5, 6, 0]


class Harm:
    """A pickle that runs something."""

    def __reduce__(self):
        return (print, ("harm",))


def test_pickles_run_nothing(cfg, tmp_path, capsys):
    write_features(tmp_path / "feats", "1")
    with open(tmp_path / "mscoco_bert_caption_anno_train.pkl", "wb") as file:
        pickle.dump([Harm()], file)
    with pytest.raises(UserError, match="refused"):
        build("MSCoCoBertDataset", cfg)
    write_vqa(tmp_path, [question(1)], [Harm()])
    with pytest.raises(UserError, match="refused"):
        build("VQADataset", cfg)
    assert "harm" not in capsys.readouterr().out


# -- the cache -------------------------------------------------------------------------------------


def test_tokenised_texts_are_kept_until_something_changes(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "SMALLEST", 1)
    write_features(tmp_path / "feats", "1")
    write_vqa(tmp_path, [question(1, "a dog")], [target(1)])

    def run():
        mapper, records = build("VQADataset", cfg)
        return mapper(records[0])[kfg.U_TOKENS_IDS].tolist(), len(list(cache.glob("*.json")))

    cache = tmp_path / "cache"
    assert run() == ([2, 5, 6, 3], 1)
    (file,) = cache.glob("VQA_train_8_*.json")
    file.write_text(file.read_text().replace("[2,5,6,3]", "[2,5,7,3]"))
    assert run() == ([2, 5, 7, 3], 1)  # read from the file
    write_vqa(tmp_path, [question(1, "the cat")], [target(1)])
    assert run() == ([2, 11, 7, 3], 2)
    cfg.MODEL.MAX_SEQ_LEN = 3
    assert run() == ([2, 11, 3], 3)
    cfg.MODEL.MAX_SEQ_LEN = 8
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS[:11], "cat", "dog", "the", *WORDS[12:]]))
    cfg.MODEL.VOCAB_SIZE += 4
    with pytest.raises(UserError, match="on two lines"):
        run()
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "more"]))
    assert run() == ([2, 11, 7, 3], 4)
    for path in cache.glob("*.json"):
        path.write_text("{broken")
    assert run() == ([2, 11, 7, 3], 4)


def test_a_folder_that_cannot_be_written_is_no_obstacle(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "SMALLEST", 1)
    write_features(tmp_path / "feats", "1")
    write_vqa(tmp_path, [question(1, "a dog")], [target(1)])
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    mapper, records = build("VQADataset", cfg)
    assert mapper(records[0])[kfg.U_TOKENS_IDS].tolist() == [2, 5, 6, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_mappers_travel_to_workers(cfg, tmp_path, workers):
    write_retrieval(tmp_path, {name: [f"a {name}"] for name in ("dog", "cat", "red", "blue")})
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.DATALOADER.TRAIN_BATCH_SIZE = 2
    cfg.DATASETS.TRAIN = "Flickr30kDatasetForSingleStream"
    cfg.SEED = 3
    batches = list(build_xmodaler_train_loader(cfg, collate_fn=collate))
    assert [batch[kfg.ATT_FEATS].shape[0] for batch in batches] == [6, 6]
    first = batches[0][kfg.U_TOKENS_IDS]
    again = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert torch.equal(first, again[kfg.U_TOKENS_IDS])


def test_texts_of_open_formats_are_kept_too(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "SMALLEST", 1)
    write_features(tmp_path / "feats", "1")
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "answers.json").write_text(json.dumps(ANSWERS))
    people = [{"answer": "yes", "answer_id": k} for k in range(10)]
    annotation = {"question_id": 1, "image_id": 1, "answers": people}
    (folder / "people.json").write_text(json.dumps({"annotations": [annotation]}))
    cfg.DATALOADER.ANNO_FOLDER = ""
    cfg.DATALOADER.TRAIN_ANNFILE = str(folder / "questions.json")
    cfg.DATALOADER.TRAIN_TARGETS = str(folder / "people.json")
    cfg.DATALOADER.ANSWERS = str(folder / "answers.json")
    for text, count in (("a dog", 1), ("a dog", 1), ("the dog", 2)):
        content = {"questions": [{"question_id": 1, "image_id": 1, "question": text}]}
        (folder / "questions.json").write_text(json.dumps(content))
        mapper, records = build("VQADataset", cfg)
        sample = mapper(records[0])
        assert words(sample[kfg.U_TOKENS_IDS]) == f"[CLS] {text} [SEP]"
        assert sample[kfg.U_TARGET_IDS].tolist() == [1, 0, 0, 0]
        assert len(list((folder / "cache").glob("VQA_train_8_*.json"))) == count
