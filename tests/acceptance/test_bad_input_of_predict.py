"""Captioning with what users get wrong: the good pictures are captioned, the others are named."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def trained(pristine_layout, tmp_path_factory):
    """An output folder with untrained weights, as a run leaves it."""
    from xmodaler.checkpoint import XmodalerCheckpointer
    from xmodaler.config import load_config
    from xmodaler.modeling import add_config, build_model

    folder = tmp_path_factory.mktemp("trained")
    cfg = load_config(str(pristine_layout.config), [], add_config)
    torch.manual_seed(0)
    XmodalerCheckpointer(build_model(cfg), str(folder)).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    shutil.copy(pristine_layout.data / "vocabulary.txt", folder / "vocabulary.txt")
    return folder


@pytest.fixture
def run(trained, coco, tool):
    """Predicts with a copy of the output folder, called ``run``."""
    shutil.copytree(trained, "run")

    def predict(*arguments, weights="run"):
        return tool("predict", "--weights", weights, "--device", "cpu", *arguments)

    return predict


def write(kind, path):
    good = np.ones((3, 8), np.float32)
    if kind == "malicious":
        np.savez(path, features=np.array([Attack()], dtype=object))
    elif kind == "width":
        np.savez(path, features=good[:, :5])
    elif kind == "NaN":
        np.savez(path, features=good * np.nan)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        np.savez(path, features=good)
        path.write_bytes(path.read_bytes()[:-60])
    elif kind == "no regions":
        np.savez(path, features=good[:0])


class Attack:
    def __reduce__(self):
        return Path.mkdir, (Path("canary"),)


KINDS = ["malicious", "width", "NaN", "empty", "truncated", "no regions", "missing"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_file_among_good_ones(run, coco, kind):
    bad = Path("bad.npz")
    write(kind, bad)
    outcome = run(coco.features(300), bad, coco.features(301), "--jsonl", "-")
    assert outcome.code == 1 and "Traceback" not in outcome.err
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1 and "bad.npz" in lines[0]
    captions = [json.loads(line) for line in outcome.out.splitlines()]
    assert [Path(caption["image"]).stem for caption in captions] == ["300", "301"]
    assert not Path("canary").exists()


def test_a_picture_for_a_model_of_features(run):
    Path("cat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outcome = run("cat.png")
    assert outcome.code == 1 and "trained on features of width 8" in outcome.err


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "malicious", "other"])
def test_weights_that_cannot_be_used(run, coco, kind):
    path = Path("run/model_final.pth")
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "malicious":
        path.write_bytes(pickle.dumps({"model": Attack()}, protocol=2))
    else:
        torch.save({"model": {"x": torch.zeros(2)}}, path)
    run(coco.features(300)).is_one_sentence("run")
    assert not Path("canary").exists()


def test_a_run_folder_that_is_incomplete(run, coco):
    run(coco.features(300), weights="no_such_run").is_one_sentence("no_such_run")
    Path("run/vocabulary.txt").unlink()
    shutil.rmtree("mscoco_dataset/features")
    (coco.data / "vocabulary.txt").unlink()
    np.savez("good.npz", features=np.ones((2, 8), np.float32))
    run("good.npz").is_one_sentence("vocabulary.txt")
    Path("run/config.yaml").unlink()
    run("good.npz").is_one_sentence("config.yaml")


def test_a_malicious_config_executes_nothing(run, coco):
    config = Path("run/config.yaml")
    text = config.read_text() + "\nSEED: !!python/object/apply:os.mkdir [canary]\n"
    config.write_text(text)
    run(coco.features(300)).is_one_sentence("config.yaml")
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    "arguments, part",
    [
        (("--beam-size", 0), "beam_size"),
        (("--batch-size", 0), "batch_size"),
        (("--num-return", 4), "num_return"),
        (("--jsonl", "my_updown.yaml/x.jsonl"), "my_updown.yaml"),
        (("--config", "nothing.yaml"), "nothing.yaml"),
        (("--import", "nothing_there"), "nothing_there"),
    ],
)
def test_impossible_wishes(run, coco, arguments, part):
    run(coco.features(300), *arguments).is_one_sentence(part)
