"""Somebody's own videos: train straight from the files, caption them; bad ones are named."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR", ROOT.parent / "shared" / "data")) / "msvd_clips"
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.TIMM.MODEL_NAME", "test_resnet", "MODEL.TIMM.PRETRAINED", False,
    "MODEL.BERT.HIDDEN_SIZE", 16, "MODEL.BERT.INTERMEDIATE_SIZE", 16, "MODEL.DECODER_DIM", 16,
    "MODEL.BERT.NUM_ATTENTION_HEADS", 2, "MODEL.TOKEN_EMBED.DIM", 16,
    "MODEL.VISUAL_EMBED.OUT_DIM", 16, "DATALOADER.IMAGE_SIZE", 32, "DATALOADER.MAX_FEAT_NUM", 4,
    "DATALOADER.TRAIN_BATCH_SIZE", 2, "DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_SPLIT", "",
    "DATALOADER.TEST_SPLIT", "", "DATASETS.VAL", "", "SOLVER.BEST_METRIC", "", "SOLVER.EPOCH", 2,
    "SOLVER.WRITE_PERIOD", 1, "OUTPUT_DIR", "output", "INFERENCE.TEST_EVAL_START", -1,
]  # fmt: skip


def overrides(tool, videos):
    """Of `own_videos.yaml`, for the annotations in `captions.jsonl`."""
    outcome = tool(
        "build_vocabulary", "--annotations", "captions.jsonl", "--min-count", "1",
        "--out", "vocabulary.txt",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    words = len(Path("vocabulary.txt").read_text(encoding="utf-8").splitlines())
    files = [f"DATALOADER.{stage}_ANNFILE" for stage in ("TRAIN", "VAL", "TEST")]
    files += ["INFERENCE.VAL_ANNFILE", "INFERENCE.TEST_ANNFILE"]
    return [
        *SMALL, "MODEL.VOCAB_SIZE", words + 1, "INFERENCE.VOCAB", "vocabulary.txt",
        "DATALOADER.VIDEO_FOLDER", videos, *(x for key in files for x in (key, "captions.jsonl")),
    ]  # fmt: skip


def annotate(records):
    lines = [json.dumps({"video": name, "captions": texts}) for name, texts in records.items()]
    Path("captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(tool, options):
    config = str(ROOT / "configs" / "video_caption" / "own_videos.yaml")
    return tool("train_net", "--config-file", config, *options)


def write_clip(path, frames=8, size=(48, 32)):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            pixels = np.full((*size[::-1], 3), 25 * number % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def clips(coco):
    """Five sound clips of several kinds and lengths, annotated."""
    folder = Path("videos")
    folder.mkdir()
    names = ["a.mp4", "b.webm", "c.avi", "d.mkv", "one frame.mov"]
    for number, name in enumerate(names):
        write_clip(folder / name, frames=1 if "one" in name else 5 + number)
    annotate({name: ["a dog runs", f"the cat sleeps {name[0]}"] for name in names})
    return folder, names


def test_videos_of_every_kind_train_and_are_captioned(clips, tool):
    folder, names = clips
    outcome = trained(tool, overrides(tool, folder))
    assert outcome.code == 0, outcome.err
    assert "Skipped" not in outcome.out
    results = json.loads(Path("output/results/2.json").read_text())
    assert [result["image_id"] for result in results] == [1, 2, 3, 4, 5]
    outcome = tool("predict", "--weights", "output", folder, "--jsonl", "captions.out")
    assert outcome.code == 0 and not outcome.err.strip(), outcome.err
    lines = [json.loads(line) for line in Path("captions.out").read_text("utf-8").splitlines()]
    assert [Path(line["image"]).name for line in lines] == sorted(names)
    assert all(np.isfinite(line["score"]) for line in lines)


def test_damaged_videos_are_left_out_and_named(clips, tool):
    folder, names = clips
    whole = (folder / "a.mp4").read_bytes()
    bad = {"cut.mp4": whole[: len(whole) // 2], "empty.avi": b"", "text.mkv": b"no video at all"}
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    annotate({name: ["a dog runs"] for name in [*names, *bad, "missing.mp4"]})
    options = overrides(tool, folder)
    outcome = trained(tool, options)
    assert outcome.code == 2 and "Traceback" not in outcome.err + outcome.out
    assert "DATALOADER.MAX_BAD_FRACTION" in outcome.err
    outcome = trained(tool, [*options, "DATALOADER.MAX_BAD_FRACTION", 0.5])
    assert outcome.code == 0, outcome.err
    assert all(f"{name}'" in outcome.out for name in [*bad, "missing.mp4"])
    assert len(json.loads(Path("output/results/2.json").read_text())) == len(names)
    outcome = tool("predict", "--weights", "output", folder)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == len(bad)
    assert all(name in outcome.err for name in bad)


@pytest.mark.slow
def test_clips_of_msvd_train_and_are_captioned(coco, tool):
    """Real clips, as they came and re-encoded, with captions that people wrote in Chinese."""
    if not (DATA / "captions_zh.json").is_file():
        pytest.skip("no clips of MSVD here (XMODALER_DATA_DIR)")
    pytest.importorskip("av")
    content = json.loads((DATA / "captions_zh.json").read_text(encoding="utf-8"))
    said = {video["id"]: (video["file_name"], []) for video in content["images"]}
    for annotation in content["annotations"]:
        # Characters are the words of this language.
        said[annotation["image_id"]][1].append(" ".join(annotation["caption"]))
    annotate(dict(said.values()))
    outcome = trained(tool, [*overrides(tool, DATA / "videos"), "SOLVER.EPOCH", 4])
    assert outcome.code == 0, outcome.err
    assert "Skipped" not in outcome.out
    losses = [json.loads(line) for line in Path("output/metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in losses if "total_loss" in line]
    assert losses[-1] < losses[0]
    shutil.copytree(DATA / "videos", "clips")
    outcome = tool("predict", "--weights", "output", "clips")
    assert outcome.code == 0 and len(outcome.out.splitlines()) == len(said)
