"""A tiny data set in X-modaler's layout of COCO, and the command lines run in this process."""

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from xmodaler.cli import run_cli

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["a", "the", "dog", "cat", "bird", "runs", "sleeps", "eats", "on", "grass", "red", "old"]
WIDTH, LENGTH, CAPTIONS = 8, 8, 5
SPLITS = {"train": range(100, 112), "val": range(200, 205), "test": range(300, 305)}

CONFIG = """\
_BASE_: {base}
OUTPUT_DIR: output
SEED: 3
MODEL:
  DEVICE: cpu
  VOCAB_SIZE: {vocab_size}
  MAX_SEQ_LEN: {length}
  DECODER_DIM: 16
  TOKEN_EMBED: {{DIM: 16}}
  VISUAL_EMBED: {{IN_DIM: {width}, OUT_DIM: 16}}
  UPDOWN: {{ATT_EMBED_SIZE: 8}}
DATALOADER:
  TRAIN_BATCH_SIZE: 4
  TEST_BATCH_SIZE: 2
  NUM_WORKERS: 0
  ANNO_FOLDER: mscoco_dataset
  FEATS_FOLDER: mscoco_dataset/features/up_down
SOLVER:
  EPOCH: 1
  BASE_LR: 0.01
  WRITE_PERIOD: 1
INFERENCE:
  VOCAB: mscoco_dataset/vocabulary.txt
  VAL_ANNFILE: mscoco_dataset/captions_val5k.json
  TEST_ANNFILE: mscoco_dataset/captions_test5k.json
"""


@dataclass
class Layout:
    """A user's working folder: ``mscoco_dataset`` and the config ``my_updown.yaml``."""

    root: Path

    @property
    def data(self):
        return self.root / "mscoco_dataset"

    @property
    def config(self):
        return self.root / "my_updown.yaml"

    def features(self, image_id):
        return self.data / "features" / "up_down" / f"{image_id}.npz"


def encoded(sentence):
    """Word ids behind a leading 0, and the same ahead of a closing 0 and -1."""
    ids = [WORDS.index(word) + 1 for word in sentence.split()][: LENGTH - 1]
    tokens, targets = np.zeros(LENGTH, np.uint32), np.full(LENGTH, -1, np.int32)
    tokens[1 : len(ids) + 1] = ids
    targets[: len(ids)] = ids
    targets[len(ids)] = 0
    return tokens, targets


def write_layout(root):
    """Pickled annotations, features, vocabulary, references and a config, as the tutorial has."""
    layout = Layout(root)
    layout.features(0).parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    for stage, ids in SPLITS.items():
        records, images, annotations = [], [], []
        for image_id in ids:
            sentences = [" ".join(random.choice(WORDS, size=n)) for n in range(3, 3 + CAPTIONS)]
            arrays = [np.stack(arrays) for arrays in zip(*map(encoded, sentences), strict=True)]
            record = {"image_id": str(image_id)}
            if stage == "train":
                record.update(tokens_ids=arrays[0], target_ids=arrays[1])
            records.append(record)
            images.append({"id": image_id})
            annotations += [
                {"id": 10 * image_id + k, "image_id": image_id, "caption": f"{sentence}."}
                for k, sentence in enumerate(sentences)
            ]
            regions = random.normal(size=(2 + image_id % 3, WIDTH)).astype(np.float32)
            np.savez(layout.features(image_id), features=regions)
        with open(layout.data / f"mscoco_caption_anno_{stage}.pkl", "wb") as file:
            pickle.dump(records, file)
        if stage != "train":
            text = json.dumps({"images": images, "annotations": annotations})
            (layout.data / f"captions_{stage}5k.json").write_text(text)
    (layout.data / "vocabulary.txt").write_text("".join(f"{word}\n" for word in WORDS))
    base = ROOT / "configs" / "image_caption" / "updown" / "updown.yaml"
    layout.config.write_text(
        CONFIG.format(base=base, vocab_size=len(WORDS) + 1, length=LENGTH, width=WIDTH)
    )
    return layout


@pytest.fixture(scope="session")
def pristine_layout(tmp_path_factory):
    return write_layout(tmp_path_factory.mktemp("coco") / "user")


@pytest.fixture
def coco(pristine_layout, tmp_path, monkeypatch):
    """A working folder of the test's own, which is also the current one."""
    shutil.copytree(pristine_layout.root, tmp_path / "user")
    monkeypatch.chdir(tmp_path / "user")
    # METEOR starts Java for each evaluation, which takes most of a minute altogether.
    monkeypatch.setattr("xmodaler.evaluation.java_metrics.shutil.which", lambda name: None)
    return Layout(tmp_path / "user")


@dataclass
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    def is_one_sentence(self, *parts):
        """Assert exit code 2 and one line on standard error that holds every part."""
        assert self.code == 2, (self.code, self.err, self.out[-2000:])
        lines = self.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        assert "Traceback" not in self.out and "Traceback" not in self.err
        missing = [part for part in parts if str(part) not in lines[0]]
        assert not missing, f"{missing} not in: {lines[0]}"
        return lines[0]


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(capfd, loggers_restored):
    """Runs a command line in this process, as its script would: ``tool("train_net", ...)``."""

    def run(name, *arguments):
        capfd.readouterr()
        with loggers_restored():
            try:
                code = run_cli(load_tool(name).main, [str(argument) for argument in arguments])
            except SystemExit as ending:  # of argparse
                code = ending.code
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def environment():
    """The environment of another process: one thread, no place in a foreign process group."""
    foreign = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM", "MASTER_")) and name not in foreign
    }
    # No Java there either: the folder of this interpreter is all that is needed.
    path = os.path.dirname(sys.executable)
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": path}


@pytest.fixture
def script(environment):
    """Runs a command line in a process of its own."""

    def run(name, *arguments, timeout=300, **kwargs):
        command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, **kwargs
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
