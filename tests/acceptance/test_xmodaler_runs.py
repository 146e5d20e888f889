"""The command line as the X-modaler tutorial uses it, on a data set laid out as it says."""

import json
import os
import shlex
from pathlib import Path

import pytest
import torch

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "image_caption"
COCO_METRICS = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]


def logged(folder="output"):
    """The objects of metrics.json, one per line."""
    with open(os.path.join(folder, "metrics.json")) as file:
        return [json.loads(line) for line in file]


def last_metrics(folder="output"):
    return {name: value for line in logged(folder) for name, value in line.items()}


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def same_weights(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_one_epoch_from_relative_paths(coco, tool):
    outcome = tool("train_net", "--config-file", "my_updown.yaml")
    assert outcome.code == 0, outcome.err
    assert "iter: 0  total_loss: " in outcome.out
    files = set(os.listdir("output"))
    assert {"config.yaml", "log.txt", "metrics.json", "last_checkpoint", "model_final.pth"} <= files
    assert "model_Epoch_00001_Iter_0000002.pth" in files
    assert (coco.root / "output" / "last_checkpoint").read_text() == "model_final.pth"

    lines = logged()
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    assert all(line["total_loss"] == line["CrossEntropy Loss(G)"] for line in lines)
    for stage in ("val", "test"):
        scores = {name: last_metrics()[f"{stage}/{name}"] for name in COCO_METRICS}
        assert all(0 <= value <= 1 for name, value in scores.items() if name != "CIDEr")
        assert 0 <= scores["CIDEr"] <= 10

    with open("output/results/1.json") as file:
        results = json.load(file)
    assert [result["image_id"] for result in results] == [300, 301, 302, 303, 304]
    assert all(set(result) == {"image_id", "caption"} for result in results)
    known = set((coco.data / "vocabulary.txt").read_text().split())
    assert {word for result in results for word in result["caption"].split()} <= known


def test_evaluation_alone_needs_no_training_data(coco, tool):
    assert tool("train_net", "--config-file", "my_updown.yaml").code == 0
    trained = last_metrics()
    (coco.data / "mscoco_caption_anno_train.pkl").unlink()
    outcome = tool(
        "train_net", "--config-file", "my_updown.yaml", "--eval-only",
        "MODEL.WEIGHTS", "output/model_final.pth", "OUTPUT_DIR", "evaluated",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    for name in COCO_METRICS:
        assert f"{name}: {trained[f'test/{name}']:.4f}" in outcome.out
    assert os.listdir("evaluated/results") and not os.path.exists("evaluated/model_final.pth")
    with open("output/results/1.json") as first, open("evaluated/results/-1.json") as second:
        assert json.load(first) == json.load(second)


@pytest.mark.parametrize("stage", ["VAL", "TEST"])
def test_an_empty_name_switches_a_stage_off(coco, tool, stage):
    outcome = tool("train_net", "--config-file", "my_updown.yaml", f"DATASETS.{stage}", "")
    assert outcome.code == 0, outcome.err
    stages = {name.split("/")[0] for name in last_metrics() if "/" in name}
    assert stages == {"VAL": {"test"}, "TEST": {"val"}}[stage]


def test_a_finished_run_goes_on_when_epochs_are_added(coco, tool):
    run = ("train_net", "--config-file", "my_updown.yaml")
    no_test = ("DATASETS.TEST", "", "DATASETS.VAL", "")
    assert tool(*run, *no_test, "OUTPUT_DIR", "whole", "SOLVER.EPOCH", 2).code == 0
    assert tool(*run, *no_test).code == 0
    # Flags may stand behind the overrides, which the documented command lines do.
    outcome = tool(*run, *no_test, "SOLVER.EPOCH", 2, "--resume")
    assert outcome.code == 0, outcome.err
    assert "Starting training from iteration 3" in outcome.out
    assert [line["iteration"] for line in logged()] == list(range(6))
    assert same_weights(weights("output/model_final.pth"), weights("whole/model_final.pth"))

    outcome = tool(*run, *no_test, "SOLVER.EPOCH", 2, "--resume")
    assert outcome.code == 0, outcome.err
    assert same_weights(weights("output/model_final.pth"), weights("whole/model_final.pth"))


@pytest.mark.parametrize("marker", [(), ("--opts",)])
def test_weights_of_another_run_start_this_one(coco, tool, marker):
    run = ("train_net", "--config-file", "my_updown.yaml")
    assert tool(*run, "DATASETS.VAL", "", "DATASETS.TEST", "").code == 0
    outcome = tool(
        *run, *marker, "MODEL.WEIGHTS", "output/model_final.pth", "OUTPUT_DIR", "second",
        "SOLVER.BASE_LR", 0, "DATASETS.VAL", "", "DATASETS.TEST", "",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert [line["iteration"] for line in logged("second")] == [0, 1, 2]
    assert same_weights(weights("second/model_final.pth"), weights("output/model_final.pth"))


def test_switches_of_the_published_training_scripts(coco, tool):
    """Another released config, changed from the command line only."""
    outcome = tool(
        "train_net",
        "--config-file",
        CONFIGS / "transformer" / "transformer.yaml",
        "DATALOADER.MAX_FEAT_NUM", 50, "OUTPUT_DIR", "./experiments/x",
        "LR_SCHEDULER.NAME", "FixLR",
        "DECODE_STRATEGY.BEAM_SIZE", 5, "MODEL.BERT.NUM_HIDDEN_LAYERS", 1, "SOLVER.EPOCH", 1,
        "MODEL.BERT.NUM_GENERATION_LAYERS", 2, "MODEL.BERT.HIDDEN_SIZE", 16, "MODEL.DEVICE", "cpu",
        "MODEL.BERT.NUM_ATTENTION_HEADS", 2, "MODEL.BERT.INTERMEDIATE_SIZE", 32,
        "MODEL.DECODER_DIM", 16, "MODEL.TOKEN_EMBED.DIM", 16, "MODEL.VISUAL_EMBED.OUT_DIM", 16,
        "MODEL.VISUAL_EMBED.IN_DIM", 8, "MODEL.VOCAB_SIZE", 13, "MODEL.MAX_SEQ_LEN", 8,
        "DATALOADER.ANNO_FOLDER", "mscoco_dataset", "DATALOADER.NUM_WORKERS", 0,
        "DATALOADER.FEATS_FOLDER", "mscoco_dataset/features/up_down", "SOLVER.WRITE_PERIOD", 1,
        "INFERENCE.VOCAB", "mscoco_dataset/vocabulary.txt",
        "INFERENCE.VAL_ANNFILE", "mscoco_dataset/captions_val5k.json",
        "INFERENCE.TEST_ANNFILE", "mscoco_dataset/captions_test5k.json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    final = weights("experiments/x/model_final.pth")
    layers = {name.split(".")[2] for name in final if name.startswith("encoder.layers.")}
    assert layers in ({"0"}, set())
    assert {line["lr"] for line in logged("experiments/x")} == {0.0005}
    assert "test/CIDEr" in last_metrics("experiments/x")


def test_flags_of_several_machines_are_understood():
    from xmodaler.engine import default_argument_parser

    args = default_argument_parser().parse_args(
        shlex.split(
            "--num-gpus 4 --config-file c.yaml --num-machines 3 --machine-rank 0 --dist-url "
            "tcp://host:1234 --resume --opts OUTPUT_DIR ./x SOLVER.BASE_LR -1"
        )
    )
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (4, 3, 0)
    assert (args.config_file, args.dist_url, args.resume) == ("c.yaml", "tcp://host:1234", True)
    assert args.opts == ["OUTPUT_DIR", "./x", "SOLVER.BASE_LR", "-1"]
    plain = default_argument_parser().parse_args([])
    assert (plain.num_gpus, plain.num_machines, plain.machine_rank) == (1, 1, 0)
    assert (plain.config_file, plain.resume, plain.eval_only, plain.opts) == ("", False, False, [])


@pytest.mark.slow
def test_two_processes_on_the_cpu(coco, script):
    """Each of two processes takes half of every batch; what is trained is the same."""
    run = ("train_net", "--config-file", "my_updown.yaml", "DATASETS.VAL", "")
    still = (
        "MODEL.PRED_DROPOUT",
        0,
        "MODEL.TOKEN_EMBED.DROPOUT",
        0,
        "MODEL.VISUAL_EMBED.DROPOUT",
        0,
    )
    one = script(*run, *still, "OUTPUT_DIR", "one")
    two = script(
        *run, *still, "--num-gpus", 2, "--dist-url", "auto", "DATALOADER.TRAIN_BATCH_SIZE", 2
    )
    assert one.code == 0 and two.code == 0, one.err + two.err
    for left, right in zip(logged("one"), logged(), strict=True):
        assert left["total_loss"] == pytest.approx(right["total_loss"], rel=1e-4)
    with open("one/results/1.json") as first, open("output/results/1.json") as second:
        assert [r["image_id"] for r in json.load(first)] == [
            r["image_id"] for r in json.load(second)
        ]
