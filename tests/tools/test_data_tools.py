"""The command lines for data, and what they do with user mistakes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.cli import run_cli
from xmodaler.config import get_cfg
from xmodaler.datasets import MSCoCoDataset, open_feature_store
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR", ROOT.parent / "shared" / "data"))


def tool(name):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: run_cli(module.main, [str(arg) for arg in args])


@pytest.fixture
def captions(tmp_path):
    lines = [
        {"image": f"{k}.png", "captions": ["A red dog.", "The dog"], "split": split}
        for k, split in enumerate(["train", "train", "val"])
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


# ---- run_cli


def test_exit_codes(capsys):
    def fail(argv):
        raise UserError("the file 'x' does not exist")

    def interrupt(argv):
        raise KeyboardInterrupt

    assert run_cli(lambda argv: None) == 0 and run_cli(lambda argv: 1) == 1
    assert run_cli(fail) == 2
    assert capsys.readouterr().err == "error: the file 'x' does not exist\n"
    assert run_cli(interrupt) == 130
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run_cli(lambda argv: 1 // 0)


def test_a_closed_pipe_is_no_error():
    code = "from xmodaler.cli import run_cli\nraise SystemExit(run_cli(main))"
    main = "def main(argv):\n    for k in range(200000):\n        print(k)\n"
    result = subprocess.run(
        f"{sys.executable} -c '{main}{code}' | head -1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.stdout == "0\n" and result.stderr == ""


@pytest.mark.parametrize("name", ["pack_features", "build_vocabulary", "check_dataset"])
def test_mistakes_end_in_one_sentence(name, tmp_path):
    arguments = {
        "pack_features": ["--folder", "nix", "--out", "x"],
        "build_vocabulary": ["--annotations", "nix.json", "--out", "x"],
        "check_dataset": ["--config-file", "nix.yaml"],
    }
    result = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{name}.py", *arguments[name]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and "nix" in result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("\n") == 1
    assert not os.listdir(tmp_path)


# ---- pack_features


def test_pack_a_folder(tmp_path, capsys):
    (tmp_path / "f").mkdir()
    for k in range(200):
        np.save(tmp_path / "f" / f"{k}.npy", np.full((2, 3), k, np.float32))
    (tmp_path / "f" / "7.npy").write_bytes(b"broken")
    out = tmp_path / "p.xmf"
    assert (
        tool("pack_features")("--folder", tmp_path / "f", "--out", out, "--dtype", "float16") == 0
    )
    text = capsys.readouterr().out
    assert "left out feature file" in text and "packed 199 records" in text
    store = open_feature_store(out)
    assert "7" not in store and store.get("8")["features"].tolist() == [[8.0] * 3] * 2


def test_pack_needs_ids_for_an_array(capsys):
    with pytest.raises(SystemExit) as caught:
        tool("pack_features")("--array", "f.npy", "--out", "x")
    assert caught.value.code == 2 and "--ids go together" in capsys.readouterr().err


# ---- build_vocabulary


@pytest.mark.parametrize("kind", ["json", "npz"])
def test_vocabulary_and_arrays(captions, tmp_path, kind, capsys):
    arrays = tmp_path / f"mscoco_caption_anno_train.{kind}"
    code = tool("build_vocabulary")(
        *("--annotations", captions, "--split", "train", "--min-count", 3),
        *("--out", tmp_path / "v.txt", "--arrays", arrays, "--length", 4),
    )
    assert code == 0 and "set MODEL.VOCAB_SIZE 3" in capsys.readouterr().out
    assert (tmp_path / "v.txt").read_text() == "dog\nUNK\n"
    cfg = get_cfg()
    cfg.DATALOADER.ANNO_FOLDER = str(tmp_path)
    records = MSCoCoDataset(cfg, "train").load_data(cfg)
    assert [r["image_id"] for r in records] == ["1", "2"]
    assert records[0]["tokens_ids"].tolist() == [[0, 2, 2, 1], [0, 2, 1, 0]]
    assert records[0]["target_ids"].tolist() == [[2, 2, 1, 0], [2, 1, 0, -1]]


def test_existing_vocabulary_survives_a_mistake(captions, tmp_path):
    (tmp_path / "v.txt").write_text("old\n")
    arguments = ("--annotations", captions, "--min-count", 99, "--out", tmp_path / "v.txt")
    assert tool("build_vocabulary")(*arguments) == 2
    assert (tmp_path / "v.txt").read_text() == "old\n"


# ---- check_dataset


def test_check_reports_by_line(captions, tmp_path, capsys):
    for k in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{k}.png")
    tool("build_vocabulary")("--annotations", captions, "--min-count", 1, "--out", tmp_path / "v")
    (tmp_path / "c.yaml").write_text(
        "MODEL: {VOCAB_SIZE: 9}\n"
        "DATASETS: {TRAIN: CaptionDataset, VAL: CaptionDataset}\n"
        f"DATALOADER: {{TRAIN_ANNFILE: '{captions}', VAL_ANNFILE: '{captions}', NUM_WORKERS: 0,\n"
        f"  TRAIN_SPLIT: train, VAL_SPLIT: val, IMAGE_FOLDER: '{tmp_path}', IMAGE_SIZE: 8}}\n"
        f"INFERENCE: {{VOCAB: '{tmp_path}/v'}}\n"
    )
    check = tool("check_dataset")
    capsys.readouterr()
    assert check("--config-file", tmp_path / "c.yaml") == 0
    (tmp_path / "1.png").write_bytes(b"")
    assert check("--config-file", tmp_path / "c.yaml", "DATALOADER.NUM_WORKERS", "2") == 1
    text = capsys.readouterr().out
    assert "[train] captions.jsonl line 2: " in text and "1.png" in text
    assert "| train   | CaptionDataset |         2 |     1 |" in text


# ---- real data


@pytest.mark.slow
def test_flickr8k_features_become_a_training_set(tmp_path):
    source = DATA / "flickr8k_features"
    if not (source / "features.npz").is_file():
        pytest.skip("no Flickr8k features here (XMODALER_DATA_DIR)")
    code = tool("pack_features")(
        *("--array", f"{source}/features.npz:features", "--ids", source / "captions.json"),
        *("--scale", "0.0235285", "--out", tmp_path / "f.xmf"),
    )
    assert code == 0
    store = open_feature_store(tmp_path / "f.xmf")
    table = np.load(source / "features.npz")["features"]
    images = json.loads((source / "captions.json").read_text())["images"]
    assert len(store) == len(images) == 6783
    for image in images[::700]:
        expected = table[image["row"]].astype(np.float32) * np.float32(0.0235285)
        np.testing.assert_array_equal(store.get(str(image["id"]))["features"], expected)
    code = tool("build_vocabulary")(
        *("--annotations", source / "captions.json", "--split", "train"),
        *("--out", tmp_path / "v.txt"),
    )
    words = (tmp_path / "v.txt").read_text().split("\n")[:-1]
    # The figures of the published protocol: 2,373 words that occur five times, and UNK.
    assert code == 0 and len(words) == 2374 and words[-1] == "UNK"
