"""People's own pictures and captions, and the checker: good data and every kind of bad data."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import (
    CaptionDataset,
    MSCoCoRawDataset,
    SampleError,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)
from xmodaler.datasets.annotations import read_captions
from xmodaler.datasets.checking import check_dataset, format_reports
from xmodaler.datasets.pictures import PictureReader
from xmodaler.utils.errors import UserError

WORDS = ["a", "red", "dog", "runs", "UNK"]


def write_lines(path, lines):
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines),
        encoding="utf-8",
    )


@pytest.fixture
def data(tmp_path):
    """Six pictures with captions as JSON lines and as COCO JSON, and a config that names them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(6):
        picture = Image.new("RGB", (40 + 4 * k, 30), (40 * k, 10, 200))
        picture.save(pictures / f"{k}.png")
    lines = [
        {
            "image": f"{k}.png",
            "captions": ["A red dog runs.", "a dog", "A cat!"],
            "split": "train" if k < 4 else "val",
        }
        for k in range(6)
    ]
    write_lines(tmp_path / "captions.jsonl", lines)
    coco = {
        "images": [
            {"id": 10 + k, "file_name": line["image"], "split": line["split"]}
            for k, line in enumerate(lines)
        ],
        "annotations": [
            {"id": 100 * k + j, "image_id": 10 + k, "caption": caption}
            for k, line in enumerate(lines)
            for j, caption in enumerate(line["captions"])
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    (tmp_path / "vocabulary.txt").write_text("\n".join(WORDS) + "\n")
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = "CaptionDataset"
    loader = cfg.DATALOADER
    loader.TRAIN_ANNFILE = loader.VAL_ANNFILE = str(tmp_path / "captions.jsonl")
    loader.TRAIN_SPLIT, loader.VAL_SPLIT = "train", "val"
    loader.IMAGE_FOLDER, loader.IMAGE_SIZE = str(pictures), 16
    loader.TRAIN_BATCH_SIZE, loader.TEST_BATCH_SIZE, loader.NUM_WORKERS = 2, 2, 0
    loader.SEQ_PER_SAMPLE, loader.MAX_BAD_FRACTION = 2, 0.5
    cfg.MODEL.MAX_SEQ_LEN, cfg.MODEL.VOCAB_SIZE = 4, 6
    cfg.INFERENCE.VOCAB = str(tmp_path / "vocabulary.txt")
    return tmp_path, cfg


def test_pictures_and_captions(data):
    _, cfg = data
    batch = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert batch[kfg.IMAGES].shape == (2, 3, 16, 16) and batch[kfg.IMAGES].dtype == torch.uint8
    assert batch[kfg.G_TOKENS_IDS].shape == (4, 4) and kfg.ATT_FEATS not in batch
    known = {(1, 2, 3, 4), (1, 3, 0, -1), (1, 5, 0, -1)}
    assert {tuple(row) for row in batch[kfg.G_TARGET_IDS].tolist()} <= known


@pytest.mark.parametrize(("name", "ids"), [("jsonl", ["5", "6"]), ("json", ["14", "15"])])
def test_evaluation_keeps_order_and_ids(data, name, ids):
    folder, cfg = data
    cfg.DATALOADER.VAL_ANNFILE = str(folder / f"captions.{name}")
    batch = next(iter(build_xmodaler_valtest_loader(cfg, collate_fn=collate)))
    assert batch[kfg.IDS] == ids
    assert batch[kfg.IMAGES][:, 0].float().mean((1, 2)).tolist() == [160, 200]
    assert batch[kfg.G_TOKENS_TYPE].shape == (2, 4) and kfg.G_TOKENS_IDS not in batch


def test_words_outside_the_vocabulary_are_dropped_without_unk(data):
    folder, cfg = data
    (folder / "vocabulary.txt").write_text("a\nred\ndog\nruns\n")
    mapper = CaptionDataset(cfg, "train")
    targets = mapper.load_data(cfg)[0]["target_ids"]
    assert targets.tolist() == [[1, 2, 3, 4], [1, 3, 0, -1], [1, 0, -1, -1]]


def test_features_by_id_or_by_name_of_the_picture(data):
    folder, cfg = data
    (folder / "features").mkdir()
    np.save(folder / "features" / "5.npy", np.full((2, 3), 5.0, np.float32))
    cfg.DATALOADER.FEATS_FOLDER, cfg.DATALOADER.IMAGE_FOLDER = str(folder / "features"), ""
    mapper = CaptionDataset(cfg, "val")
    records = mapper.load_data(cfg)
    assert [r["image_id"] for r in records] == ["5", "6"]
    assert mapper(records[0])[kfg.ATT_FEATS].unique().tolist() == [5]
    sample = mapper(records[1])  # picture 5.png has the id 6, which has no feature file
    assert sample[kfg.ATT_FEATS].unique().tolist() == [5] and sample[kfg.IDS] == "6"
    assert kfg.IMAGES not in sample


def test_augmentation_follows_the_seed_and_only_in_training(data):
    folder, cfg = data
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "pictures" / "0.png")
    cfg.DATALOADER.IMAGE_AUGMENT = True
    train, val = CaptionDataset(cfg, "train"), CaptionDataset(cfg, "val")
    assert train.read_picture.augment and not val.read_picture.augment
    path = folder / "pictures" / "0.png"
    pictures = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        pictures.append(train.read_picture(path))
    assert torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])
    assert torch.equal(val.read_picture(path), val.read_picture(path))


def test_augmentation_never_mirrors(tmp_path):
    """Left half dark, right half bright: it stays so in every crop that shows both."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (64, 1))] * 3, axis=-1)).save(tmp_path / "ramp.png")
    reader = PictureReader(16, augment=True)
    for seed in range(20):
        torch.manual_seed(seed)
        picture = reader(tmp_path / "ramp.png").float()
        assert picture[..., :4].mean() < picture[..., -4:].mean()


def test_listed_pictures(data):
    folder, cfg = data
    cfg.DATASETS.TEST = "MSCoCoRawDataset"
    cfg.DATALOADER.SAMPLE_IDS = [7, 8]
    cfg.DATALOADER.FILE_PATHS = [str(folder / "pictures" / "1.png"), str(folder / "nix.png")]
    batch = next(iter(build_xmodaler_valtest_loader(cfg, stage="test", collate_fn=collate)))
    assert batch[kfg.IDS] == ["7"] and batch[kfg.IMAGES].shape == (1, 3, 16, 16)
    mapper = MSCoCoRawDataset(cfg)
    with pytest.raises(SampleError, match=r"image '8': picture .*does not exist"):
        mapper({"image_id": "8", "path": str(folder / "nix.png")})


# ---- wrong configs


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("DATALOADER.TRAIN_ANNFILE", "", "DATALOADER.TRAIN_ANNFILE is empty"),
        ("DATALOADER.TRAIN_ANNFILE", "nix.json", "'nix.json' does not exist"),
        ("DATALOADER.TRAIN_ANNFILE", "nix.jsonl", "'nix.jsonl' cannot be read: No such file"),
        ("DATALOADER.TRAIN_SPLIT", "trian", "no picture of the split 'trian'; .*train, val"),
        ("DATALOADER.IMAGE_FOLDER", "", "neither pictures nor features"),
        ("DATALOADER.IMAGE_FOLDER", "nix", "IMAGE_FOLDER 'nix' is not a folder"),
        ("DATALOADER.IMAGE_SIZE", "0", "IMAGE_SIZE is 0"),
        ("DATALOADER.FEATS_FOLDER", "nix", "features 'nix' do not exist"),
        ("INFERENCE.VOCAB", "nix.txt", "vocabulary 'nix.txt' cannot be read"),
        ("MODEL.VOCAB_SIZE", "5", "has 5 words, so MODEL.VOCAB_SIZE must be at least 6; it is 5"),
    ],
)
def test_wrong_configs(data, key, value, words):
    _, cfg = data
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=words) as caught:
        build_xmodaler_train_loader(cfg)
    assert not isinstance(caught.value, SampleError)


# ---- wrong annotations


BAD_LINES = [
    ('{"image": "1.png", "captions": ["a"]', "line 2: not valid JSON"),
    ("[1, 2]", "line 2: not an object"),
    ({"captions": ["a dog"]}, "line 2: 'image', the file name"),
    ({"image": 5, "captions": ["a dog"]}, "line 2: 'image', the file name"),
    ({"image": "1.png", "captions": 7}, "line 2: 'captions' is not a list"),
    ({"image": "1.png", "captions": ["a"], "id": [1]}, r"line 2: id \[1\] is neither"),
    ({"image": "1.png", "captions": ["a"], "id": 1}, "line 2: id '1' is already on line 1"),
    ({"image": "1.png", "captions": []}, "line 2: no caption with a word"),
    ({"image": "1.png", "captions": ["", "  ", "! ..."]}, "line 2: no caption with a word"),
    ({"image": "nix.png", "captions": ["a"]}, r"line 2: picture '.*nix\.png': .*not exist"),
    ("[" * 5000, "line 2: "),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_a_bad_line_costs_one_record(data, line, words):
    folder, cfg = data
    good = {"image": "0.png", "captions": ["a dog"]}
    write_lines(folder / "captions.jsonl", [good, line, {**good, "id": "third"}])
    cfg.DATALOADER.TRAIN_SPLIT = cfg.DATALOADER.VAL_SPLIT = ""
    cfg.SEED = 1
    loader = build_xmodaler_train_loader(cfg, collate_fn=collate)
    for _ in range(6):
        for batch in loader:
            assert set(batch[kfg.IDS]) <= {"1", "third"}
        if loader.bad_samples.bad_records:
            break
    assert len(loader.bad_samples.bad_records) == 1
    (report,) = [r for r in check_dataset(cfg) if r.stage == "train"]
    assert any(re.search(words, note) for note in report.bad), report.bad


def test_lines_that_are_not_text(data):
    folder, _ = data
    good = json.dumps({"image": "0.png", "captions": ["a dog"]}).encode()
    (folder / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + good + b"\n\xff\xfe\x00\n\n" + good)
    images, problems = read_captions(folder / "captions.jsonl")
    assert [image.image_id for image in images] == ["1", "4"]
    assert [str(problem) for problem in problems] == ["captions.jsonl line 2: not UTF-8 text"]


def test_unusual_captions(data):
    folder, cfg = data
    long = "dog " * 10_000
    captions = ["🐕 🐕", "كلب أحمر يجري", "a \u202edog", long, "a\u0000dog", "", None, 5]
    write_lines(folder / "captions.jsonl", [{"image": "0.png", "captions": captions}])
    cfg.DATALOADER.TRAIN_SPLIT, cfg.DATASETS.VAL = "", ""
    mapper = CaptionDataset(cfg, "train")
    (record,) = mapper.load_data(cfg)
    assert record["target_ids"].shape[1] == 4
    assert [3, 3, 3, 3] in record["target_ids"].tolist()  # the first four words, and no end
    assert record["target_ids"].max() < cfg.MODEL.VOCAB_SIZE
    mapper(record)
    (report,) = check_dataset(cfg)
    faults = ["caption 6 is empty", "caption 7 is NoneType, not a string", "caption 8 is int"]
    for fault in faults:
        assert any(f"line 1: {fault}" in note for note in report.bad)
    assert any("the longest has 10000" in note for note in report.warnings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"images": [\n{"id": 1},\n]}', r"line 3 column \d+ is not valid JSON"),
        ("", "line 1 column 1 is not valid JSON"),
        ("[]", "not in COCO captions format"),
        ('{"annotations": []}', "not in COCO captions format"),
        ('{"images": [], "annotations": []}', "holds no picture"),
        ('{"images": [], "annotations": 5}', "'annotations' of .* is not a list"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
    ],
)
def test_malformed_coco_files(data, content, words):
    folder, _ = data
    (folder / "captions.json").write_text(content)
    with pytest.raises(UserError, match=words):
        read_captions(folder / "captions.json")


def test_malformed_coco_records(data):
    folder, _ = data
    content = {
        "images": [{"id": 1, "file_name": "0.png"}, {"file_name": "1.png"}, 5, {"id": 1}],
        "annotations": [
            {"image_id": 1, "caption": "a dog"},
            {"image_id": 1, "caption": " "},
            {"image_id": 1},
            {"caption": "a"},
            {"image_id": 9, "caption": "a"},
        ],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    images, problems = read_captions(folder / "captions.json")
    assert [(i.image_id, i.captions) for i in images] == [("1", ["a dog"])]
    text = [str(problem) for problem in problems]
    assert text == [
        "captions.json images[1]: no 'id' that is an integer or a string",
        "captions.json images[2]: no 'id' that is an integer or a string",
        "captions.json images[3]: id 1 is already that of captions.json images[0] (id 1)",
        "captions.json annotations[1] (image 1): its caption is empty",
        "captions.json annotations[2] (image 1): its caption is NoneType, not a string",
        "captions.json annotations[3]: no 'image_id'",
        "captions.json: a caption belongs to the unknown image 9",
    ]
    assert [bool(problem.record) for problem in problems] == [True] * 3 + [False] * 4


# ---- wrong pictures


def test_broken_pictures_are_skipped_and_named(data):
    folder, cfg = data
    pictures = folder / "pictures"
    whole = (pictures / "0.png").read_bytes()
    (pictures / "4.png").write_bytes(whole[: len(whole) // 2])
    loader = build_xmodaler_valtest_loader(cfg, collate_fn=collate)
    assert [batch[kfg.IDS] for batch in loader] == [["6"]]
    (note,) = loader.bad_samples.bad_records
    assert note.startswith("captions.jsonl line 5: ") and "4.png" in note
    for content in (b"", b"not a picture"):
        (pictures / "4.png").write_bytes(content)
        with pytest.raises(SampleError, match=r"line 5: .*4\.png"):
            mapper = CaptionDataset(cfg, "val")
            mapper(mapper.load_data(cfg)[0])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK"])
def test_pictures_of_all_modes(tmp_path, mode):
    name = "x.tif" if mode == "CMYK" else "x.png"
    Image.new(mode, (20, 10)).save(tmp_path / name)
    assert PictureReader(8)(tmp_path / name).shape == (3, 8, 8)


# ---- the checker


def test_a_clean_data_set(data):
    _, cfg = data
    reports = check_dataset(cfg)
    assert [r.stage for r in reports] == ["train", "val"] and not any(r.bad for r in reports)
    train = reports[0]
    assert len(train.ids) == 4 and train.lengths == {4: 4, 2: 8}
    assert train.words == {True: 4 * 7, False: 4}
    text = format_reports(reports)
    assert "| train   | CaptionDataset |         4 |     0 |" in text and "87.5%" in text
    assert "words per caption [train]: 0-5: 12" in text


def test_shared_records_repeated_pictures_and_missing_references(data):
    folder, cfg = data
    cfg.DATALOADER.VAL_SPLIT = "train"
    cfg.INFERENCE.NAME, cfg.INFERENCE.VAL_ANNFILE = "COCOEvaler", str(folder / "captions.json")
    lines = [{"image": "0.png", "captions": ["a"], "split": "train"} for _ in range(2)]
    write_lines(folder / "captions.jsonl", lines)
    _, val = check_dataset(cfg)
    text = "\n".join(val.warnings)
    assert "2 records are also in the training data: 1, 2" in text
    assert "picture '0.png' occurs more than once" in text
    assert "2 records have no reference" in text
    cfg.INFERENCE.VAL_ANNFILE = "nix.json"
    assert any("references for scoring: " in note for note in check_dataset(cfg)[1].bad)


def test_odd_widths_and_failing_mappers_are_found(data):
    folder, cfg = data
    (folder / "features").mkdir()
    for k in range(6):
        np.save(folder / "features" / f"{k + 1}.npy", np.ones((2, 3 if k else 4), np.float32))
    cfg.DATALOADER.FEATS_FOLDER, cfg.DATASETS.VAL = str(folder / "features"), ""
    (report,) = check_dataset(cfg)
    assert report.bad == ["record '1': features have width 4, others 3"]
    cfg.DATASETS.TRAIN = ""
    with pytest.raises(UserError, match="names no data set"):
        check_dataset(cfg)
    cfg.DATASETS.TEST = "CaptionDataset"
    (report,) = check_dataset(cfg)
    assert report.bad and "TEST_ANNFILE is empty" in report.bad[0]
