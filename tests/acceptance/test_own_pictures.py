"""Somebody's own folder of pictures: sound ones of every kind train, damaged ones are named."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SENTENCES = ["a red dog runs", "the cat sleeps on grass", "a bird eats"]


def gradient(mode, size=(40, 30)):
    wave = np.linspace(0, 255, size[0] * size[1]).reshape(size[::-1])
    if mode == "I;16":
        return Image.fromarray((wave * 257).astype(np.uint16))
    picture = Image.fromarray(wave.astype(np.uint8))
    return picture if mode == "L" else picture.convert("RGB").convert(mode)


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(gradient("RGB"), "JPEG", exif=exif)


def sound_pictures():
    return {
        "grey.png": saved(gradient("L"), "PNG"),
        "bits16.png": saved(gradient("I;16"), "PNG"),
        "rgba.png": saved(gradient("RGBA"), "PNG"),
        "palette.png": saved(gradient("P"), "PNG"),
        "cmyk.jpg": saved(gradient("CMYK"), "JPEG"),
        "rotated.jpg": rotated(),
        "moving.gif": saved(
            gradient("P"), "GIF", save_all=True, append_images=[gradient("P"), gradient("P")]
        ),
        "one_pixel.png": saved(gradient("RGB", (1, 1)), "PNG"),
        "large.jpg": saved(gradient("RGB", (3000, 2000)), "JPEG"),
        "a name with spaces, ümläut & 猫.png": saved(gradient("RGB"), "PNG"),
        "wrong_ending.png": saved(gradient("RGB"), "JPEG"),
        "plain.webp": saved(gradient("RGB"), "WEBP"),
    }


def damaged_pictures():
    bomb = bytearray(saved(gradient("L"), "PNG"))
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    return {
        "truncated.jpg": saved(gradient("RGB", (300, 200)), "JPEG")[:-800],
        "zero.png": b"",
        "text.jpg": b"this is no picture",
        "bomb.png": bytes(bomb),
        "missing.png": None,
        "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }


@pytest.fixture
def pictures(coco):
    """Writes pictures and JSON lines about them; returns overrides of the config."""

    def write(files):
        Path("pictures").mkdir()
        lines = []
        for number, (name, content) in enumerate(files.items()):
            if content is not None:
                Path("pictures", name).write_bytes(content)
            lines.append({"image": name, "captions": SENTENCES[number % 2 :]})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        Path("captions.jsonl").write_text(text, encoding="utf-8")
        return [
            "DATASETS.TRAIN", "CaptionDataset", "DATASETS.VAL", "", "DATASETS.TEST",
            "CaptionDataset", "DATALOADER.TRAIN_ANNFILE", "captions.jsonl",
            "DATALOADER.TEST_ANNFILE", "captions.jsonl", "INFERENCE.TEST_ANNFILE",
            "captions.jsonl", "DATALOADER.IMAGE_FOLDER", "pictures", "DATALOADER.IMAGE_SIZE", 32,
            "DATALOADER.FEATS_FOLDER", "", "MODEL.VISUAL_EMBED.NAME", "TimmEmbedding",
            "MODEL.TIMM.MODEL_NAME", "test_resnet", "MODEL.TIMM.PRETRAINED", False,
        ]  # fmt: skip

    return write


def test_pictures_of_every_kind_train_and_are_captioned(pictures, tool):
    files = sound_pictures()
    run = ("train_net", "--config-file", "my_updown.yaml", *pictures(files))
    outcome = tool(*run)
    assert outcome.code == 0, outcome.err
    assert "WARNING" not in outcome.out, outcome.out
    results = json.loads(Path("output/results/1.json").read_text())
    assert [result["image_id"] for result in results] == list(range(1, len(files) + 1))
    losses = [json.loads(line) for line in Path("output/metrics.json").read_text().splitlines()]
    assert len(losses) == 3 and all(np.isfinite(line["total_loss"]) for line in losses)

    outcome = tool("predict", "--weights", "output", "pictures", "--jsonl", "captions.out")
    assert outcome.code == 0 and not outcome.err.strip(), outcome.err
    lines = [json.loads(line) for line in Path("captions.out").read_text("utf-8").splitlines()]
    assert sorted(Path(line["image"]).name for line in lines) == sorted(files)
    report = tool("check_dataset", *run[1:])
    assert report.code == 0, report.out


def test_damaged_pictures_are_left_out_and_named(pictures, tool):
    bad = damaged_pictures()
    options = pictures({**sound_pictures(), **bad})
    run = ("train_net", "--config-file", "my_updown.yaml", *options)
    outcome = tool(*run)
    assert outcome.code == 2 and "Traceback" not in outcome.err + outcome.out
    assert "DATALOADER.MAX_BAD_FRACTION" in outcome.err
    outcome = tool(*run, "DATALOADER.MAX_BAD_FRACTION", 0.5)
    assert outcome.code == 0, outcome.err
    skipped = {name for name in bad if f"{name}" in outcome.out}
    assert skipped == set(bad)
    results = json.loads(Path("output/results/1.json").read_text())
    assert len(results) == len(sound_pictures())
    report = tool("check_dataset", *run[1:])
    assert report.code == 1 and not report.err
    assert all(name in report.out for name in bad)
    assert not any(name in report.out for name in sound_pictures())

    outcome = tool("predict", "--weights", "output", "pictures")
    assert outcome.code == 1
    there = [name for name in bad if bad[name] is not None and not name.endswith("svg")]
    assert len(outcome.err.splitlines()) == len(there)
    assert all(name in outcome.err for name in there)
