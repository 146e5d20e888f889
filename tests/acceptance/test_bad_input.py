"""What users get wrong, through the command lines: one sentence, nothing run, nothing lost."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

TRAIN_NET = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"
RUN = ("train_net", "--config-file", "my_updown.yaml")
QUIET = ("DATASETS.VAL", "", "DATASETS.TEST", "")


class Attack:
    """A pickle that creates a file when it is loaded by the ordinary unpickler."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(tmp_path):
    """A path that must not exist afterwards."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code of an input file was executed"


def append(path, text):
    Path(path).write_text(Path(path).read_text() + text)


# -- configs ----------------------------------------------------------------------------------


@pytest.fixture(params=["train_net", "print_config", "check_dataset"])
def command(request, tool):
    """Each command line that reads a config, run on a file and overrides."""
    return lambda file, *overrides: tool(request.param, "--config-file", file, *overrides)


def test_a_config_that_is_not_there(coco, command):
    command("my_updwon.yaml").is_one_sentence("my_updwon.yaml")
    command("mscoco_dataset").is_one_sentence("mscoco_dataset")


def test_a_base_that_is_not_there(coco, command):
    Path("own.yaml").write_text("_BASE_: no_base.yaml\n")
    command("own.yaml").is_one_sentence("no_base.yaml")


@pytest.mark.parametrize(
    "content",
    [
        b"MODEL:\n  - [1, 2\n",
        b"MODEL:\n\tDEVICE: cpu\n",
        b"- just\n- a list\n",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"MODEL: {DEVICE: cpu, DEVICE\n",
    ],
)
def test_a_config_that_is_no_config(coco, command, content):
    Path("own.yaml").write_bytes(content)
    command("own.yaml").is_one_sentence("own.yaml")


def test_an_unknown_key_names_the_nearest(coco, command):
    append("my_updown.yaml", "LOSES: {NAMES: [CrossEntropy]}\n")
    command("my_updown.yaml").is_one_sentence("my_updown.yaml", "LOSES", "LOSSES")


def test_an_unknown_override_names_the_nearest(coco, command):
    outcome = command("my_updown.yaml", "SOLVER.BASE_RL", "0.1")
    outcome.is_one_sentence("SOLVER.BASE_RL", "SOLVER.BASE_LR")


def test_a_value_of_the_wrong_type(coco, command):
    command("my_updown.yaml", "SOLVER.EPOCH", "many").is_one_sentence("SOLVER.EPOCH", "many")
    append("my_updown.yaml", "SCORER: {WEIGHTS: [1.0], NAME: [a, b]}\n")
    command("my_updown.yaml").is_one_sentence("my_updown.yaml", "SCORER.NAME")


def test_an_override_without_a_value(coco, command):
    outcome = command("my_updown.yaml", "SOLVER.EPOCH")
    assert outcome.code == 2 and "SOLVER.EPOCH" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_a_malicious_config_executes_nothing(coco, command, canary, tag):
    append("my_updown.yaml", f'OUTPUT_DIR: {tag} ["{canary}"]\n')
    command("my_updown.yaml").is_one_sentence("my_updown.yaml")


def test_a_malicious_override_executes_nothing(coco, command, canary):
    outcome = command("my_updown.yaml", "SOLVER.EPOCH", f"__import__('os').mkdir('{canary}')")
    outcome.is_one_sentence("SOLVER.EPOCH")


@pytest.mark.parametrize(
    "key, name, nearest",
    [
        ("MODEL.DECODER", "UpDownDecodr", "UpDownDecoder"),
        ("MODEL.META_ARCHITECTURE", "RnnAttEncoderDecode", "RnnAttEncoderDecoder"),
        ("MODEL.VISUAL_EMBED.NAME", "VisualBaseEmbeding", "VisualBaseEmbedding"),
        ("DATASETS.TRAIN", "MSCOCODataset", "MSCoCoDataset"),
        ("LOSSES.NAMES", "['CrossEntrophy']", "CrossEntropy"),
        ("SOLVER.NAME", "Adamm", "Adam"),
        ("LR_SCHEDULER.NAME", "StepLr", "StepLR"),
        ("ENGINE.NAME", "DefaultTrainr", "DefaultTrainer"),
        ("INFERENCE.NAME", "COCOEvaluator", "COCOEvaler"),
        ("DECODE_STRATEGY.NAME", "BeamSearch", "BeamSearcher"),
        ("MODEL.TOKEN_EMBED.POSITION", "SinusoidEncodng", "SinusoidEncoding"),
    ],
)
def test_a_misspelt_class_names_the_nearest(coco, tool, key, name, nearest):
    tool(*RUN, key, name).is_one_sentence(name.strip("[']"), nearest)


@pytest.mark.parametrize(
    "key, value",
    [
        ("MODEL.DEVICE", "gpu"),
        ("MODEL.DEVICE", "cuda:77"),
        ("SOLVER.PRECISION", "fp8"),
        ("SOLVER.ACCUM_STEPS", 0),
        ("SOLVER.GRAD_CLIP_TYPE", "Norm"),
        ("DATALOADER.TRAIN_BATCH_SIZE", 0),
        ("DATALOADER.TRAIN_BATCH_SIZE", 1000),
        ("DATALOADER.TEST_BATCH_SIZE", -1),
        ("DATALOADER.NUM_WORKERS", -1),
        ("DATALOADER.SEQ_PER_SAMPLE", 0),
        ("DECODE_STRATEGY.BEAM_SIZE", 0),
        ("MODEL.MAX_SEQ_LEN", 0),
        ("MODEL.VOCAB_SIZE", 0),
        ("MODEL.PRED_DROPOUT", 1.5),
        ("SOLVER.CHECKPOINT_PERIOD", 0),
        ("SOLVER.WRITE_PERIOD", 0),
        ("SCHEDULED_SAMPLING.INC_EVERY_EPOCH", 0),
    ],
)
def test_a_value_out_of_range(coco, tool, key, value):
    tool(*RUN, key, value).is_one_sentence(key.split(".")[-1])


# -- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        "mscoco_caption_anno_train.pkl",
        "mscoco_caption_anno_test.pkl",
        "vocabulary.txt",
        "captions_val5k.json",
        "captions_test5k.json",
        "features/up_down",
    ],
)
def test_a_file_that_is_not_there(coco, tool, file):
    path = coco.data / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    tool(*RUN).is_one_sentence(file)
    assert not Path("output/model_final.pth").exists()


@pytest.mark.parametrize("name", ["train_net", "check_dataset"])
def test_a_malicious_pickle_executes_nothing(coco, tool, canary, name):
    path = coco.data / "mscoco_caption_anno_train.pkl"
    path.write_bytes(pickle.dumps([{"image_id": Attack(canary)}]))
    outcome = tool(name, "--config-file", "my_updown.yaml")
    told = outcome.err if name == "train_net" else outcome.out
    assert outcome.code in (1, 2) and "Traceback" not in outcome.err
    assert path.name in told and "mkdir" in told


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([{"image_id": "1"}])[:-9]])
def test_annotations_that_are_no_pickle(coco, tool, content):
    (coco.data / "mscoco_caption_anno_train.pkl").write_bytes(content)
    tool(*RUN).is_one_sentence("mscoco_caption_anno_train.pkl")


def test_annotations_of_another_kind(coco, tool):
    for content in ({"a": 1}, [1, 2, 3], []):
        path = coco.data / "mscoco_caption_anno_train.pkl"
        path.write_bytes(pickle.dumps(content))
        outcome = tool(*RUN)
        assert outcome.code == 2 and "Traceback" not in outcome.err, outcome.err
        assert outcome.err.startswith("error: ")


def test_references_that_are_malformed(coco, tool):
    path = coco.data / "captions_test5k.json"
    path.write_text('{"images": [],\n "annotations": [\n  {"id": 1,, }]}')
    tool(*RUN).is_one_sentence("captions_test5k.json", "line 3")


def test_results_of_images_without_references(coco, tool):
    path = coco.data / "captions_test5k.json"
    content = json.loads(path.read_text())
    content["images"] = content["images"][1:]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 300]
    path.write_text(json.dumps(content))
    tool(*RUN).is_one_sentence("captions_test5k.json", "300")


def test_features_of_another_width(coco, tool):
    outcome = tool(*RUN, "MODEL.VISUAL_EMBED.IN_DIM", 16)
    assert outcome.code == 2 and "Traceback" not in outcome.err + outcome.out
    assert "8" in outcome.err and "MODEL.VISUAL_EMBED.IN_DIM" in outcome.err


@pytest.mark.parametrize("workers", [0, 2])
def test_features_that_are_not_finite(coco, tool, workers):
    bad = np.full((2, 8), np.nan, np.float32)
    np.savez(coco.features(100), features=bad)
    outcome = tool(*RUN, *QUIET, "DATALOADER.NUM_WORKERS", workers)
    assert outcome.code == 2 and "Traceback" not in outcome.err + outcome.out
    assert "1 of the 12 records" in outcome.err and "100" in outcome.err and "NaN" in outcome.err
    outcome = tool(*RUN, *QUIET, "DATALOADER.MAX_BAD_FRACTION", 0.1)
    assert outcome.code == 0, outcome.err
    weights = torch.load("output/model_final.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "malicious", "text", "shape"])
def test_a_damaged_feature_file(coco, tool, canary, damage):
    path = coco.features(103)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "malicious":
        np.savez(path, features=np.array([Attack(canary)], dtype=object))
    elif damage == "shape":
        np.savez(path, features=np.zeros((2, 3, 8), np.float32))
    else:
        path.write_bytes({"truncated": content[:-40], "empty": b"", "text": b"hello"}[damage])
    outcome = tool(*RUN, *QUIET)
    assert outcome.code == 2 and "Traceback" not in outcome.err + outcome.out
    assert "103" in outcome.err
    report = tool("check_dataset", "--config-file", "my_updown.yaml")
    assert report.code == 1 and "103" in report.out and not report.err


def test_words_outside_of_the_vocabulary(coco, tool):
    outcome = tool(*RUN, *QUIET, "MODEL.VOCAB_SIZE", 6)
    assert outcome.code == 2 and "MODEL.VOCAB_SIZE" in outcome.err
    assert "Traceback" not in outcome.err + outcome.out


def test_a_vocabulary_of_another_size(coco, tool):
    append(coco.data / "vocabulary.txt", "more\nwords\n")
    tool(*RUN).is_one_sentence("vocabulary.txt", "MODEL.VOCAB_SIZE")


def test_evaluation_of_nothing(coco, tool):
    tool(*RUN, *QUIET, "--eval-only").is_one_sentence("DATASETS.VAL", "DATASETS.TEST")
    tool(*RUN, *QUIET, "DATASETS.TRAIN", "").is_one_sentence("DATASETS.TRAIN")


# -- captions ---------------------------------------------------------------------------------

CAPTIONS = {
    "empty": "",
    "spaces": " \n\t ",
    "10,000 words": "red dog " * 5000,
    "one word of 100,000 letters": "a" * 100_000,
    "emoji": "a dog 🐕‍🦺👨‍👩‍👧 runs 🏃🏽‍♀️",
    "right to left": "\u202eכלב אדום רץ על الدشأ\u202c",
    "no letters": "... !!! ???",
    "line breaks": "a\u2028dog\x85runs\r\non\x0bgrass",
    "half a surrogate pair": "a dog \ud83d runs",
    "zero": "a\x00dog",
}


@pytest.fixture
def captioned(coco):
    """The pictures of the layout with JSON lines of a user's own captions."""

    def write(caption):
        for stage, ids in {"train": range(100, 112), "test": range(300, 305)}.items():
            with open(f"{stage}.jsonl", "w", encoding="utf-8") as file:
                for image_id in ids:
                    captions = [caption, "a dog runs"] if image_id % 2 else ["a red cat", caption]
                    line = {"id": image_id, "image": f"{image_id}.png", "captions": captions}
                    file.write(json.dumps(line) + "\n")
        return (
            *RUN, "DATASETS.TRAIN", "CaptionDataset", "DATASETS.TEST", "CaptionDataset",
            "DATASETS.VAL", "", "DATALOADER.TRAIN_ANNFILE", "train.jsonl",
            "DATALOADER.TEST_ANNFILE", "test.jsonl", "INFERENCE.TEST_ANNFILE", "test.jsonl",
        )  # fmt: skip

    return write


@pytest.mark.parametrize("kind", CAPTIONS)
def test_strange_captions_train_and_are_scored(captioned, tool, kind):
    outcome = tool(*captioned(CAPTIONS[kind]))
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in Path("output/metrics.json").read_text().splitlines()]
    assert all(np.isfinite(line["total_loss"]) for line in lines)
    assert 0 <= lines[-1]["test/CIDEr"] <= 10


@pytest.mark.parametrize("kind", CAPTIONS)
def test_strange_captions_make_a_vocabulary(captioned, tool, kind):
    captioned(CAPTIONS[kind])
    outcome = tool(
        "build_vocabulary", "--annotations", "train.jsonl", "--min-count", 1, "--out", "words.txt"
    )
    assert outcome.code == 0, outcome.err
    words = Path("words.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert {"dog", "red", "cat"} <= set(words)
    assert len(set(words)) == len(words) and all(word == word.strip() != "" for word in words)


def test_a_line_that_is_no_json_is_named(captioned, tool):
    command = captioned("a dog")
    lines = Path("train.jsonl").read_text().splitlines()
    lines[4] = '{"image": "104.png", "captions": ["a dog"'
    Path("train.jsonl").write_text("\n".join(lines) + "\n")
    outcome = tool(*command)
    assert outcome.code == 2 and "train.jsonl" in outcome.err and "line 5" in outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    report = tool("check_dataset", *command[1:])
    assert report.code == 1 and "line 5" in report.out


# -- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [(), ("--eval-only",)])
@pytest.mark.parametrize(
    "kind", ["missing", "empty", "truncated", "picture", "malicious", "folder"]
)
def test_weights_that_cannot_be_used(coco, tool, canary, kind, mode):
    path = Path("weights.pth")
    torch.save({"model": {"a": torch.zeros(1000)}}, path)
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "picture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    elif kind == "malicious":
        torch.save({"model": Attack(canary)}, path)
    else:
        path.unlink()
        path.mkdir()
    outcome = tool(*RUN, *mode, "MODEL.WEIGHTS", "weights.pth")
    outcome.is_one_sentence("weights.pth")
    assert not Path("output/model_final.pth").exists()


def test_weights_of_another_model(coco, tool):
    torch.save({"model": {"backbone.weight": torch.zeros(3)}}, "foreign.pth")
    tool(*RUN, "MODEL.WEIGHTS", "foreign.pth").is_one_sentence("foreign.pth")


def test_weights_of_another_size_are_reported(coco, tool):
    assert tool(*RUN, *QUIET).code == 0
    outcome = tool(
        *RUN, *QUIET, "MODEL.WEIGHTS", "output/model_final.pth", "OUTPUT_DIR", "second",
        "MODEL.UPDOWN.ATT_EMBED_SIZE", 4,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "Some weights do not fit" in outcome.out
    reported = [line for line in outcome.out.splitlines() if line.strip().startswith("reshaped")]
    assert reported and all("in the file" in line for line in reported)


def test_resuming_a_run_of_another_size(coco, tool):
    assert tool(*RUN, *QUIET).code == 0
    before = Path("output/model_final.pth").read_bytes()
    outcome = tool(*RUN, *QUIET, "--resume", "SOLVER.EPOCH", 2, "MODEL.DECODER_DIM", 24)
    assert outcome.code == 2 and "Traceback" not in outcome.err + outcome.out
    assert Path("output/model_final.pth").read_bytes() == before


# -- output -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["my_updown.yaml/run", "/proc/run", "/dev/null", "my_updown.yaml"]
)
def test_an_output_folder_that_cannot_be_written(coco, tool, place):
    before = Path("my_updown.yaml").read_bytes()
    tool(*RUN, "OUTPUT_DIR", place).is_one_sentence(place.split("/run")[0])
    assert Path("my_updown.yaml").read_bytes() == before


def test_a_disk_that_fills_up_during_training(coco, tool, monkeypatch):
    """The run ends with a sentence; what was saved before is complete and is resumed from."""
    import errno

    real = torch.save
    saved = []

    def save(content, file, *args, **kwargs):
        saved.append(1)
        if len(saved) == 2:
            file.write(b"the first bytes")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    outcome = tool(*RUN, *QUIET, "SOLVER.EPOCH", 2)
    outcome.is_one_sentence("model_Epoch_00002_Iter_0000005.pth")
    assert Path("output/last_checkpoint").read_text() == "model_Epoch_00001_Iter_0000002.pth"
    assert not [name for name in os.listdir("output") if "Epoch_00002" in name or "tmp" in name]

    outcome = tool(*RUN, *QUIET, "SOLVER.EPOCH", 2, "--resume")
    assert outcome.code == 0 and "from iteration 3" in outcome.out, outcome.err


def test_a_damaged_checkpoint_falls_back_to_the_one_before(coco, tool):
    assert tool(*RUN, *QUIET, "SOLVER.EPOCH", 2).code == 0
    for name in ("model_final.pth", "model_Epoch_00002_Iter_0000005.pth"):
        path = Path("output") / name
        path.write_bytes(path.read_bytes()[:-2000])
    outcome = tool(*RUN, *QUIET, "SOLVER.EPOCH", 2, "--resume")
    assert outcome.code == 0 and "from iteration 3" in outcome.out, outcome.err
    assert "model_final.pth" in outcome.out and "Traceback" not in outcome.out
    for path in Path("output").glob("*.pth"):
        path.write_bytes(b"")
    tool(*RUN, *QUIET, "--resume").is_one_sentence("output")


def test_a_file_size_limit_during_training(coco, tool):
    """The limit of a quota, met by whichever file is the first to reach it."""
    assert tool(*RUN, *QUIET).code == 0
    before = Path("output/model_final.pth").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        outcome = tool(*RUN, *QUIET, "SOLVER.EPOCH", 2, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    outcome.is_one_sentence("output")
    assert Path("output/model_final.pth").read_bytes() == before
    assert tool(*RUN, *QUIET, "SOLVER.EPOCH", 2, "--resume").code == 0


@pytest.mark.slow
def test_a_training_whose_output_nobody_reads(coco, environment):
    """``train_net ... | head -1`` trains and evaluates to the end."""
    command = [sys.executable, str(TRAIN_NET), *RUN[1:], "SOLVER.EPOCH", "2"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("Command Line Args")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert Path("output/results/2.json").exists() and Path("output/model_final.pth").exists()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [20, 2000, 9000])
def test_no_room_even_for_the_log(coco, script, limit):
    def few_bytes():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    outcome = script(*RUN, *QUIET, preexec_fn=few_bytes)
    assert outcome.code == 2 and "Traceback" not in outcome.err, outcome.err
    lines = outcome.err.splitlines()
    assert len(lines) == 2 and "log.txt" in lines[0]
    assert lines[1].startswith("error: The disk is full or a size limit is reached")


@pytest.mark.slow
def test_a_mistake_in_two_processes_is_told_once(coco, script):
    coco.features(104).unlink()
    outcome = script(
        *RUN, *QUIET, "--num-gpus", 2, "--dist-url", "auto", "DATALOADER.TRAIN_BATCH_SIZE", 2
    )
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    told = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "104" in outcome.err
    outcome = script(*RUN, "--num-gpus", 2, "SOLVER.BASE_RL", 1)
    outcome.is_one_sentence("SOLVER.BASE_RL", "SOLVER.BASE_LR")


def test_a_loss_that_is_not_finite(coco, tool):
    assert tool(*RUN, *QUIET).code == 0
    before = Path("output/model_final.pth").read_bytes()
    outcome = tool(*RUN, *QUIET, "SOLVER.BASE_LR", 1e38, "SOLVER.EPOCH", 9, "SOLVER.GRAD_CLIP", 0)
    assert outcome.code != 0 and "iteration" in outcome.err
    assert "CrossEntropy Loss(G)" in outcome.err
    assert before  # a new run in the folder; no weights of NaN may follow
    for name in os.listdir("output"):
        if name.endswith(".pth"):
            weights = torch.load(f"output/{name}", weights_only=True)["model"]
            assert all(torch.isfinite(value).all() for value in weights.values())
