"""Questions, captions and pairs from open formats, over features and over raw pictures."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import (
    SampleError,
    build_dataset_mapper,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)
from xmodaler.datasets.annotations import read_captions
from xmodaler.datasets.open_records import caption_records, retrieval_records, vqa_records
from xmodaler.datasets.tar_shards import index_shards, read_member
from xmodaler.utils.errors import UserError

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "green",
    "dog",
    "cat",
    "is",
    "it",
    "what",
    "color",
    "left",
    "right",
    "?",
]
PICTURES = 6


def picture_bytes(k, side=24):
    content = io.BytesIO()
    Image.new("RGB", (side + k, side), (40 * k, 10, 200)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def cfg(tmp_path):
    """A config over six pictures, with a tokenizer of a few pieces."""
    (tmp_path / "pictures").mkdir()
    for k in range(PICTURES):
        (tmp_path / "pictures" / f"p{k}.png").write_bytes(picture_bytes(k))
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    splits = ["train"] * 4 + ["val", "test"]
    images = [{"id": k, "file_name": f"p{k}.png", "split": split} for k, split in enumerate(splits)]
    (tmp_path / "images.json").write_text(json.dumps({"images": images}))
    cfg = get_cfg()
    cfg.MODEL.VOCAB_SIZE, cfg.MODEL.MAX_SEQ_LEN = len(PIECES), 8
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(tmp_path / "vocab.txt")
    loader = cfg.DATALOADER
    loader.IMAGE_FOLDER, loader.IMAGE_SIZE = str(tmp_path / "pictures"), 16
    loader.TRAIN_BATCH_SIZE, loader.TEST_BATCH_SIZE, loader.NUM_WORKERS = 2, 2, 0
    return cfg


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def vqa(cfg, tmp_path):
    """Official questions and annotations, two questions a picture."""
    loader = cfg.DATALOADER
    questions = [
        {"question_id": 10 * k + j, "image_id": k, "question": "What color is it?"}
        for k in range(PICTURES)
        for j in range(2)
    ]
    annotations = [
        {
            **{key: question[key] for key in ("question_id", "image_id")},
            "answers": [{"answer": word} for word in ["Red", "red.", "red", "green"]],
            "multiple_choice_answer": "red",
            "answer_type": "other",
        }
        for question in questions
    ]
    path = write_json(tmp_path / "questions.json", {"questions": questions})
    loader.TRAIN_ANNFILE = loader.VAL_ANNFILE = loader.TEST_ANNFILE = path
    loader.TRAIN_SPLIT, loader.VAL_SPLIT, loader.TEST_SPLIT = "train", "val", "test"
    path = write_json(tmp_path / "annotations.json", {"annotations": annotations})
    loader.TRAIN_TARGETS = loader.VAL_TARGETS = path
    loader.ANSWERS = write_json(tmp_path / "label2ans.json", ["green", "red"])
    loader.IMAGE_LIST = str(tmp_path / "images.json")
    loader.MIRROR_PROB = 0.0
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = cfg.DATASETS.TEST = "VQADataset"
    return cfg


def test_official_questions_with_raw_pictures(vqa):
    batch = next(iter(build_xmodaler_train_loader(vqa, collate_fn=collate)))
    assert batch[kfg.IMAGES].shape == (2, 3, 16, 16) and batch[kfg.IMAGES].dtype == torch.uint8
    assert batch[kfg.U_TOKENS_IDS].tolist()[0] == [2, 12, 13, 10, 11, 16, 3]
    # Of four people three said red: ((3 * 2/3) + 1 * 1) / 4; one said green.
    assert batch[kfg.U_TARGET_IDS].tolist()[0] == pytest.approx([0.25, 0.75])
    assert kfg.ATT_FEATS not in batch
    val = [batch[kfg.IDS] for batch in build_xmodaler_valtest_loader(vqa, collate_fn=collate)]
    assert val == [["40", "41"]]
    vqa.DATALOADER.TEST_TARGETS = ""
    test = build_xmodaler_valtest_loader(vqa, collate_fn=collate, stage="test")
    batch = next(iter(test))
    assert batch[kfg.IDS] == ["50", "51"] and kfg.U_TARGET_IDS not in batch


def test_mirrored_pictures_bring_mirrored_words(vqa, tmp_path):
    questions = [{"question_id": 1, "image_id": 0, "question": "left dog?"}]
    vqa.DATALOADER.TRAIN_ANNFILE = write_json(tmp_path / "q.json", {"questions": questions})
    annotations = [{"question_id": 1, "image_id": 0, "answers": ["left"] * 10}]
    vqa.DATALOADER.TRAIN_TARGETS = write_json(tmp_path / "a.json", {"annotations": annotations})
    vqa.DATALOADER.ANSWERS = write_json(tmp_path / "lr.json", ["left", "right"])
    halves = Image.new("RGB", (20, 20), "white")
    halves.paste("black", (0, 0, 10, 20))
    halves.save(tmp_path / "pictures" / "p0.png")
    vqa.DATALOADER.MIRROR_PROB = 1.0
    mapper = build_dataset_mapper(vqa, "VQADataset", "train")
    sample = mapper(mapper.load_data(vqa)[0])
    assert sample[kfg.U_TOKENS_IDS].tolist() == [2, 15, 8, 16, 3]  # right dog ?
    assert sample[kfg.U_TARGET_IDS].tolist() == [0.0, 1.0]
    assert sample[kfg.IMAGES][:, :, 0].min() > 200 and sample[kfg.IMAGES][:, :, -1].max() < 50


def test_official_file_names_are_made_of_ids(vqa):
    vqa.DATALOADER.IMAGE_LIST = vqa.DATALOADER.TRAIN_SPLIT = ""
    vqa.DATALOADER.IMAGE_NAME = "COCO_val2014_{:012d}.jpg"
    assert vqa_records(vqa, "train")[2]["file_name"] == "COCO_val2014_000000000001.jpg"
    for pattern in ("COCO.jpg", "{}_{}.jpg", "{name}.jpg", "{:q}.jpg"):
        vqa.DATALOADER.IMAGE_NAME = pattern
        with pytest.raises(UserError, match="IMAGE_NAME"):
            vqa_records(vqa, "train")


def test_questions_without_answers_are_counted(vqa, tmp_path, caplog):
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["annotations"][0]["answers"] = []
    del content["annotations"][3]
    vqa.DATALOADER.TRAIN_TARGETS = write_json(tmp_path / "fewer.json", content)
    records = vqa_records(vqa, "train")
    errors = {str(r["question_id"]): r["error"] for r in records if "error" in r}
    assert "has no answers" in errors["0"] and "has no answers" in errors["11"]
    assert len(records) == 8 and len(errors) == 2
    assert "fewer.json annotations[0]: the question 0 has no answers" in caplog.text
    vqa.DATALOADER.MAX_BAD_FRACTION = 0.9
    loader = build_xmodaler_train_loader(vqa, collate_fn=collate)
    assert len(list(loader)) == 4
    assert any("question '11': has no answers" in note for note in loader.bad_samples.bad_records)
    vqa.DATALOADER.MAX_BAD_FRACTION = 0.1
    with pytest.raises(UserError, match="MAX_BAD_FRACTION"):
        list(build_xmodaler_train_loader(vqa, collate_fn=collate))


def test_answers_outside_the_vocabulary_are_told(vqa, tmp_path, caplog):
    vqa.DATALOADER.ANSWERS = write_json(tmp_path / "blue.json", ["blue", "white"])
    records = vqa_records(vqa, "train")
    assert all(record["labels"] == [] for record in records)
    assert "8 of 8 questions" in caplog.text and "no answer of the vocabulary" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TRAIN_TARGETS": ""}, "TRAIN_TARGETS is empty"),
        ({"IMAGE_LIST": ""}, "needs DATALOADER.IMAGE_LIST"),
        ({"TRAIN_SPLIT": "dev"}, "no question about a picture of the split 'dev'"),
        ({"TRAIN_ANNFILE": "{annotations}"}, "is no questions file"),
        ({"TRAIN_TARGETS": "{questions}"}, "is not a list of targets"),
        ({"ANSWERS": "{questions}"}, "is not a list of answers"),
        ({"TRAIN_ANNFILE": "nowhere.json"}, "does not exist"),
    ],
)
def test_wrong_files_are_told_apart(vqa, tmp_path, change, message):
    for key, value in change.items():
        value = value.format(
            annotations=tmp_path / "annotations.json", questions=tmp_path / "questions.json"
        )
        vqa.DATALOADER[key] = value
    with pytest.raises(UserError, match=message):
        vqa_records(vqa, "train")


def test_targets_of_other_questions_are_refused(vqa, tmp_path):
    targets = {"annotations": [{"question_id": 999, "image_id": 0, "answers": ["red"]}]}
    vqa.DATALOADER.TRAIN_TARGETS = write_json(tmp_path / "other.json", targets)
    with pytest.raises(UserError, match="answers to none of the 8 questions"):
        vqa_records(vqa, "train")


def karpathy():
    return {
        "images": [
            {
                "cocoid": 100 + k,
                "imgid": k,
                "filepath": "",
                "filename": f"p{k}.png",
                "split": "restval" if k == 0 else "train" if k < 4 else "val",
                "sentences": [{"raw": "a red dog", "tokens": ["a", "red", "dog"]}] * 2,
            }
            for k in range(PICTURES)
        ]
    }


def test_karpathy_and_flickr30k_files_are_read_for_retrieval(cfg, tmp_path):
    loader = cfg.DATALOADER
    loader.TRAIN_ANNFILE = write_json(tmp_path / "dataset_coco.json", karpathy())
    loader.TRAIN_SPLIT = "train"
    records = retrieval_records(cfg, "train")
    assert [record["image_id"] for record in records] == ["100", "101", "102", "103"]
    assert records[0]["captions"] == ["a red dog", "a red dog"]
    lines = [{"img_path": f"p{k}.png", "sentences": ["a dog", "a cat"]} for k in range(PICTURES)]
    path = tmp_path / "flickr.jsonline"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    loader.VAL_ANNFILE = str(path)
    mapper = build_dataset_mapper(cfg, "Flickr30kDataset", "val")
    sample = mapper(mapper.load_data(cfg)[1])
    assert sample[kfg.IDS] == ["p1", ["p1", "p1"]]
    assert [row.tolist() for row in sample[kfg.U_TOKENS_IDS]] == [[2, 5, 8, 3], [2, 5, 9, 3]]
    assert sample[kfg.IMAGES].shape == (3, 16, 16)


def test_single_stream_negatives_are_raw_pictures_too(cfg, tmp_path):
    cfg.DATALOADER.TRAIN_ANNFILE = write_json(tmp_path / "k.json", karpathy())
    content = karpathy()
    for k, image in enumerate(content["images"]):
        image["sentences"] = [{"raw": " ".join(PIECES[5 : 7 + k])}]
    cfg.DATALOADER.TRAIN_ANNFILE = write_json(tmp_path / "k.json", content)
    cfg.DATALOADER.NEGATIVE_SIZE = 1
    cfg.DATASETS.TRAIN = "Flickr30kDatasetForSingleStream"
    batch = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert batch[kfg.IMAGES].shape == (6, 3, 16, 16) and batch[kfg.SAMPLE_PER_SAMPLE] == 3
    first, same, other = batch[kfg.IMAGES][:3]
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_bad_caption_records_are_counted(cfg, tmp_path):
    content = karpathy()
    content["images"][1]["sentences"] = []
    content["images"][2]["sentences"] = [{"raw": "  "}, {"raw": "a cat"}, {"raw": None}]
    content["images"].append({"filename": "x.png", "sentences": [{"raw": "a dog"}]})
    path = write_json(tmp_path / "k.json", content)
    images, problems = read_captions(path)
    assert [len(image.captions) for image in images] == [2, 0, 1, 2, 2, 2]
    assert sorted(str(problem).split(": ")[1] for problem in problems) == [
        "no 'id' that is an integer or a string",
        "sentence 1 is empty",
        "sentence 3 is NoneType, not a string",
    ]
    cfg.DATALOADER.TRAIN_ANNFILE = path
    mapper = build_dataset_mapper(cfg, "Flickr30kDataset", "train")
    records = mapper.load_data(cfg)
    assert len(records) == 11
    with pytest.raises(SampleError, match="image '101': no caption"):
        mapper(next(record for record in records if record["image_id"] == "101"))


def test_missing_and_broken_pictures_are_bad_samples(cfg, tmp_path):
    (tmp_path / "pictures" / "p0.png").write_bytes(b"not a picture")
    (tmp_path / "pictures" / "p1.png").unlink()
    cfg.DATALOADER.TRAIN_ANNFILE = write_json(tmp_path / "k.json", karpathy())
    mapper = build_dataset_mapper(cfg, "Flickr30kDataset", "train")
    records = mapper.load_data(cfg)
    for record, message in ((records[0], "p0.png"), (records[2], "does not exist")):
        with pytest.raises(SampleError, match=message):
            mapper(record)


def make_shard(path, samples):
    """A tar of (key, {suffix: bytes}) in the order given."""
    with tarfile.open(path, "w") as shard:
        for key, members in samples:
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for s in range(3):
        samples = [
            (f"{s}{k:03d}", {"png": picture_bytes(s + k), "txt": f"a dog {s} {k}".encode()})
            for k in range(4)
        ]
        make_shard(folder / f"cc-{s:04d}.tar", samples)
    return folder


def test_every_sample_of_the_shards_comes_once_an_epoch_and_resumes(cfg, shards):
    cfg.DATASETS.TRAIN = "ConceptualCaptionsDataset"
    cfg.DATALOADER.TRAIN_ANNFILE = str(shards / "cc-{0000..0002}.tar")
    cfg.DATALOADER.IMAGE_FOLDER = ""
    cfg.SEED = 3
    loader = build_xmodaler_train_loader(cfg, collate_fn=collate)
    loader.batch_sampler.set_epoch(0)
    epoch = list(loader)
    ids = [name for batch in epoch for name in batch[kfg.IDS]]
    assert len(ids) == 12 and len(set(ids)) == 12 and "cc-0002/2003" in ids
    assert epoch[0][kfg.IMAGES].shape == (2, 3, 16, 16)
    assert epoch[0][kfg.G_TARGET_IDS].shape == epoch[0][kfg.U_TARGET_IDS].shape
    cfg.DATALOADER.NUM_WORKERS = 2
    resumed = build_xmodaler_train_loader(cfg, collate_fn=collate)
    resumed.batch_sampler.set_progress(4)
    rest = list(resumed)
    assert [batch[kfg.IDS] for batch in rest] == [batch[kfg.IDS] for batch in epoch[4:]]
    assert torch.equal(rest[0][kfg.U_TOKENS_IDS], epoch[4][kfg.U_TOKENS_IDS])
    assert torch.equal(rest[0][kfg.IMAGES], epoch[4][kfg.IMAGES])


def test_pictures_are_read_from_their_place_in_a_shard(shards):
    records, problems = index_shards(str(shards))
    assert not problems and len(records) == 12
    assert read_member(records[5]) == picture_bytes(2)
    assert records[5]["caption"] == "a dog 1 1" and records[5]["image_id"] == "cc-0001/1001"
    assert len(index_shards(str(shards / "*-0001.tar"))[0]) == 4


def test_damaged_shards_and_samples_are_counted(cfg, shards):
    samples = [
        ("a", {"png": picture_bytes(0), "json": b'{"caption": "a cat"}'}),
        ("b", {"png": picture_bytes(1)}),
        ("c", {"txt": b"a dog"}),
        ("d", {"png": picture_bytes(2), "json": b'{"caption": 3}'}),
        ("e", {"png": picture_bytes(2), "txt": b"\xff\xfe"}),
        ("f", {"jpg": b"no picture", "txt": b"a dog"}),
        ("a", {"png": picture_bytes(0), "txt": b"again"}),
    ]
    make_shard(shards / "odd.tar", samples)
    whole = (shards / "cc-0002.tar").read_bytes()
    (shards / "cut.tar").write_bytes(whole[: 512 * 6 + 100])
    (shards / "text.tar").write_bytes(b"hello")
    records, problems = index_shards(str(shards))
    reasons = " | ".join(map(str, problems))
    for part in (
        "odd.tar sample b: no caption", "odd.tar sample c: no picture", "sample d: its .json",
        "sample e: its .txt", "odd/a occurs twice", "cut.tar: the shard is damaged",
        "text.tar: the shard is damaged",
    ):  # fmt: skip
        assert part in reasons, part
    assert len(problems) == 7
    assert sum(record["image_id"].startswith("cut/") for record in records) == 1
    cfg.DATALOADER.TRAIN_ANNFILE, cfg.DATALOADER.IMAGE_FOLDER = str(shards), ""
    mapper = build_dataset_mapper(cfg, "ConceptualCaptionsDataset", "train")
    found = mapper.load_data(cfg)
    assert sum("error" in record for record in found) == 7
    broken = next(record for record in found if record["image_id"] == "odd/f")
    with pytest.raises(SampleError, match=r"odd\.tar sample f: .*picture"):
        mapper(broken)


def test_wrong_shards_are_refused(tmp_path, shards):
    with pytest.raises(UserError, match="does not exist"):
        index_shards(str(shards / "cc-{0000..0003}.tar"))
    with pytest.raises(UserError, match="no shard"):
        index_shards(str(tmp_path / "none-*.tar"))
    make_shard(tmp_path / "empty.tar", [("a", {"txt": b"a dog"})])
    with pytest.raises(UserError, match=r"hold no sample.*no picture"):
        index_shards(str(tmp_path / "empty.tar"))


def test_table_of_conceptual_captions_passes_over_dead_addresses(cfg, tmp_path, caplog):
    for k in (1, 3):
        (tmp_path / "pictures" / f"{k}.jpg").write_bytes(picture_bytes(k))
    path = tmp_path / "train.tsv"
    path.write_text('a red dog\thttp://x/1\n"a cat"\thttp://x/2\na dog\thttp://x/3\n')
    cfg.DATALOADER.TRAIN_ANNFILE = str(path)
    records = caption_records(cfg, "train")
    assert [(r["image_id"], r["caption"]) for r in records] == [("1", "a red dog"), ("3", "a dog")]
    assert "1 of 3 rows" in caplog.text
    mapper = build_dataset_mapper(cfg, "ConceptualCaptionsDatasetForSingleStream", "train")
    sample = mapper(mapper.load_data(cfg)[0])
    assert sample[kfg.IMAGES].shape == (3, 16, 16) and kfg.V_TARGET not in sample
    cfg.DATALOADER.IMAGE_NAME = "other/{}.jpg"
    assert len(caption_records(cfg, "train")) == 3  # folders below are not listed
    cfg.DATALOADER.IMAGE_NAME = "{}.webp"
    with pytest.raises(UserError, match="none of the 3 rows"):
        caption_records(cfg, "train")


def test_json_lines_give_a_pair_a_caption(cfg, tmp_path):
    lines = [{"image": f"p{k}.png", "captions": ["a dog", "a cat"]} for k in range(2)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"image": "p3.png"}\n{')
    cfg.DATALOADER.TRAIN_ANNFILE = str(path)
    records = caption_records(cfg, "train")
    assert [record.get("caption") for record in records] == ["a dog", "a cat"] * 2 + [None] * 2
    assert [bool(record.get("error")) for record in records] == [False] * 4 + [True] * 2


def test_grids_have_the_locations_of_their_cells(cfg, tmp_path):
    cfg.DATALOADER.TRAIN_ANNFILE = write_json(tmp_path / "k.json", karpathy())
    (tmp_path / "grids").mkdir()
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(7, 5)).astype(np.float32)
    np.savez(tmp_path / "grids" / "100.npz", features=cells)
    np.savez(tmp_path / "grids" / "101.npz", features=cells[1:])
    np.savez(tmp_path / "grids" / "102.npz", features=cells[:4])
    loader = cfg.DATALOADER
    loader.FEATS_FOLDER, loader.FEATS_GRID = str(tmp_path / "grids"), [2, 3]
    mapper = build_dataset_mapper(cfg, "Flickr30kDataset", "train")
    records = mapper.load_data(cfg)
    stored, added = mapper(records[0]), mapper(records[2])
    assert torch.equal(stored[kfg.ATT_FEATS], torch.from_numpy(cells))
    assert torch.allclose(added[kfg.ATT_FEATS][0], torch.from_numpy(cells[1:].mean(axis=0)))
    for sample in (stored, added):
        boxes = sample[kfg.ATT_FEATS_LOC]
        assert boxes[0].tolist() == [0, 0, 1, 1, 1]
        assert boxes[6].tolist() == pytest.approx([2 / 3, 0.5, 1, 1, 1 / 6])
    with pytest.raises(SampleError, match=r"4 features, but DATALOADER\.FEATS_GRID 2 x 3 needs 6"):
        mapper(records[4])
    loader.USE_GLOBAL_V = False
    mapper = build_dataset_mapper(cfg, "Flickr30kDataset", "train")
    assert mapper(records[0])[kfg.ATT_FEATS].shape == (6, 5)
    loader.FEATS_GRID = [2, 0]
    with pytest.raises(UserError, match="FEATS_GRID"):
        build_dataset_mapper(cfg, "Flickr30kDataset", "train")
