"""The benchmark: what is measured, not how fast it is."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from xmodaler.cli import run_cli
from xmodaler.config import get_cfg, load_config
from xmodaler.engine.benchmark import interleave, peak_memory, random_batch, summarise
from xmodaler.modeling import add_config

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs" / "image_caption"
UPDOWN = str(CONFIGS / "updown" / "updown.yaml")
TRANSFORMER = str(CONFIGS / "transformer" / "transformer.yaml")
SMALL = [
    "MODEL.VOCAB_SIZE", "40", "MODEL.MAX_SEQ_LEN", "5", "MODEL.VISUAL_EMBED.IN_DIM", "16",
    "MODEL.DECODER_DIM", "32", "MODEL.TOKEN_EMBED.DIM", "32", "MODEL.VISUAL_EMBED.OUT_DIM", "32",
    "DATALOADER.MAX_FEAT_NUM", "12",
]  # fmt: skip
SMALL_BERT = [
    "MODEL.BERT.HIDDEN_SIZE", "32", "MODEL.BERT.INTERMEDIATE_SIZE", "48",
    "MODEL.BERT.NUM_HIDDEN_LAYERS", "1", "MODEL.BERT.NUM_GENERATION_LAYERS", "1",
    "MODEL.TOKEN_EMBED.POSITION_MAX_LEN", "16",
]  # fmt: skip
SMALL_GRID = [
    *SMALL_BERT, "MODEL.VISUAL_EMBED.G_IN_DIM", "32", "MODEL.COSNET.NUM_SEMCOMPHDER_LAYERS", "1",
]  # fmt: skip
IN_DIM_32 = ["MODEL.VISUAL_EMBED.IN_DIM", "32"]
QUICK = ["--batch-size", "3", "--captions", "2", "--repeats", "2"]
SMALL_PAIRS = [
    "MODEL.VOCAB_SIZE", "40", "MODEL.MAX_SEQ_LEN", "5", "MODEL.VISUAL_EMBED.IN_DIM", "16",
    "MODEL.TOKEN_EMBED.DIM", "32", "MODEL.VISUAL_EMBED.OUT_DIM", "32", "DATALOADER.MAX_FEAT_NUM",
    "7", "MODEL.BERT.HIDDEN_SIZE", "32", "MODEL.BERT.INTERMEDIATE_SIZE", "48",
    "MODEL.BERT.NUM_HIDDEN_LAYERS", "1", "MODEL.BERT.NUM_ATTENTION_HEADS", "4",
    "MODEL.TOKEN_EMBED.POSITION_MAX_LEN", "16",
]  # fmt: skip
SMALL_TDEN = ["MODEL.BERT.V_NUM_HIDDEN_LAYERS", "1", "MODEL.MM_PREDICTOR.POOLER_INPUT_SIZE", "32"]


@pytest.fixture
def command(capsys):
    spec = importlib.util.spec_from_file_location("tool", REPOSITORY / "tools" / "benchmark.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*arguments):
        code = run_cli(tool.main, list(arguments))
        return code, capsys.readouterr()

    threads = torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("config", "small"),
    [
        ("lstm-A/lstm-A.yaml", ["MODEL.LSTMA.ATTRIBUTE_DIM", "9"]),
        ("gcn/gcn.yaml", ["MODEL.GCN.IN_DIM", "32", "MODEL.GCN.OUT_DIM", "32", *IN_DIM_32]),
        ("cosnet/cosnet.yaml", [*SMALL_GRID, "MODEL.COSNET.NUM_CLASSES", "30"]),
    ],
)
def test_models_that_read_more_than_regions(command, config, small):
    code, printed = command("--config-file", str(CONFIGS / config), *QUICK, *SMALL, *small)
    assert code == 0, printed.err


def test_a_config_alone(command, tmp_path):
    out = tmp_path / "figures.json"
    code, printed = command(
        "--config-file", UPDOWN, *QUICK, "--beam-size", "2", "--reference-seconds", "4,2",
        "--json", str(out), *SMALL,
    )  # fmt: skip
    assert code == 0, printed.err
    assert "captions cannot end earlier" in printed.out and "times as fast" in printed.out
    figures = json.loads(out.read_text())
    assert figures["protocol"]["beam_size"] == 2 and figures["protocol"]["threads"] == 1
    for mode, captions in (("train", 6), ("decode", 3)):
        system = figures[mode]["systems"]["updown"]
        assert len(system["runs"]) == 2
        seconds = system["cpu_seconds"]["median"]
        assert system["per_cpu_second"]["captions"] == pytest.approx(captions / seconds)
        assert system["weights_mb"] > 0 and system["peak_mb"] > 0
        reference = {"train": 4, "decode": 2}[mode]
        ratio = figures[mode]["faster_than_reference"]
        assert ratio["max"] == pytest.approx(reference / system["cpu_seconds"]["min"])


@pytest.mark.parametrize(
    ("config", "small"),
    [
        ("pretrain/tden/tden.yaml", SMALL_TDEN),
        ("mm_understanding/vcr/tden/vcr.yaml", SMALL_TDEN),
        ("mm_understanding/flickr30k_retrieval/tden/flickr30k_retrieval.yaml", SMALL_TDEN),
        ("pretrain/uniter/uniter.yaml", []),
        ("mm_understanding/vqa/uniter/vqa.yaml", []),
        ("mm_understanding/flickr30k_retrieval/uniter/flickr30k_retrieval.yaml", []),
    ],
)
def test_models_of_pairs_only_train(command, tmp_path, config, small):
    path, out = str(REPOSITORY / "configs" / config), tmp_path / "figures.json"
    arguments = ["--config-file", path, *QUICK, "--json", str(out), *SMALL_PAIRS, *small]
    code, printed = command(*arguments)
    assert code == 0, printed.err
    figures = json.loads(out.read_text())
    assert "decode" not in figures and figures["train"]["process_mb"] > 0
    (system,) = figures["train"]["systems"].values()
    # Two moments for every weight, but for heads that the drawn tasks did not need.
    assert 0 < system["states_mb"] < 2.1 * system["weights_mb"]
    code, printed = command(*arguments[:2], "--mode", "decode", *arguments[2:])
    assert code == 2 and "generates nothing" in printed.err


def test_two_configs_and_the_peer_in_turns(command, tmp_path):
    pytest.importorskip("transformers")
    other = tmp_path / "wider.yaml"
    other.write_text(
        f"_BASE_: {TRANSFORMER}\nMODEL:\n  BERT:\n    HIDDEN_ACT: gelu\n", encoding="utf-8"
    )
    out = tmp_path / "figures.json"
    code, printed = command(
        "--config-file", TRANSFORMER, "--against", str(other), "--peer", "transformers", *QUICK,
        "--json", str(out), *SMALL, *SMALL_BERT,
    )  # fmt: skip
    assert code == 0, printed.err
    figures = json.loads(out.read_text())
    for mode in ("train", "decode"):
        systems = figures[mode]["systems"]
        assert list(systems) == ["transformer", "wider", "transformers"]
        assert set(figures[mode]["faster_than"]) == {"wider", "transformers"}
        ratio = figures[mode]["faster_than"]["wider"]["cpu"]
        assert ratio["min"] <= ratio["median"] <= ratio["max"]
    sizes = [system["weights_mb"] for system in figures["train"]["systems"].values()]
    assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", UPDOWN, "--peer", "transformers", *QUICK, *SMALL], "no such captioner"),
        (["--config-file", UPDOWN, "--reference-seconds", "1", *SMALL], "--reference-seconds"),
        (["--config-file", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_are_one_sentence(command, arguments, message):
    code, printed = command(*arguments)
    assert code == 2 and message in printed.err


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_config(cfg, cfg.load_from_file_tmp(UPDOWN))
    cfg.merge_from_file(UPDOWN)
    return cfg


def test_random_batches_have_realistic_sizes(cfg):
    batch = random_batch(cfg, 40, 5)
    regions = batch["ATT_MASKS"].sum(1)
    assert batch["ATT_FEATS"].shape == (40, 50, 2048)
    assert regions.min() >= 10 and regions.max() == 50
    assert (batch["ATT_FEATS"][~batch["ATT_MASKS"]] == 0).all()
    tokens, targets = batch["G_TOKENS_IDS"], batch["G_TARGET_IDS"]
    assert tokens.shape == targets.shape == (200, 21)
    words = (targets > 0).sum(1)
    assert words.float().mean().item() == pytest.approx(10.5, abs=0.5)
    for row, row_targets, count in zip(tokens, targets, words.tolist(), strict=True):
        assert row[0] == 0 and torch.equal(row[1 : count + 1], row_targets[:count])
        assert row_targets[count] == 0 and (row_targets[count + 1 :] == -1).all()
        assert (row[count + 1 :] == 0).all()
    assert torch.equal(batch["ATT_FEATS"], random_batch(cfg, 40, 5)["ATT_FEATS"])
    assert "G_TARGET_IDS" not in random_batch(cfg, 2)


def test_random_pairs_have_no_padding():
    cfg = load_config(str(REPOSITORY / "configs" / "pretrain/tden/tden.yaml"), (), add_config)
    batch = random_batch(cfg, 4)
    assert batch["ATT_FEATS"].shape == (4, 51, 2048) and batch["ATT_MASKS"].all()
    assert batch["U_TOKENS_IDS"].shape == (4, 36) and batch["TOKENS_MASKS"].all()
    assert batch["V_TARGET_LABELS"].shape == (4, 50)
    chosen = batch["U_TARGET_IDS"] >= 0
    assert chosen.any(1).all() and not chosen[:, 0].any()
    words = batch["U_TOKENS_IDS_WO_MASK"]
    assert torch.equal(batch["U_TARGET_IDS"][chosen], words[chosen])
    assert torch.equal(batch["G_TARGET_IDS"][:, :-1], words[:, 1:])


def test_runs_take_turns():
    order = []
    tasks = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    runs = interleave(tasks, 3, torch.device("cpu"))
    assert order == ["a", "b"] * 4
    assert {name: len(found) for name, found in runs.items()} == {"a": 3, "b": 3}
    assert summarise([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}


def test_peak_memory_counts_what_lives_at_once():
    def task():
        first = torch.empty(1000, 1000)
        del first
        second, third = torch.empty(1000, 1000), torch.empty(500, 1000)
        return second.numel() + third.numel()

    assert peak_memory(task, torch.device("cpu")) == pytest.approx(6e6, rel=0.01)


def test_pretraining_on_a_mixture_is_timed(command, tmp_path):
    small = [
        "MODEL.VOCAB_SIZE", "40", "MODEL.MAX_SEQ_LEN", "7", "DATALOADER.IMAGE_SIZE", "32",
        "MODEL.VISION.WIDTH", "32", "MODEL.VISION.LAYERS", "1", "MODEL.VISION.HEADS", "4",
        "MODEL.TOKEN_EMBED.DIM", "32", "MODEL.TOKEN_EMBED.POSITION_MAX_LEN", "16",
        "MODEL.BERT.HIDDEN_SIZE", "32", "MODEL.BERT.INTERMEDIATE_SIZE", "48",
        "MODEL.BERT.NUM_HIDDEN_LAYERS", "1", "MODEL.BERT.NUM_ATTENTION_HEADS", "4",
        "MODEL.FUSION.LAYERS", "1", "MODEL.FUSION.MEMORY_WIDTH", "32", "SOLVER.PRECISION", "fp32",
    ]  # fmt: skip
    config = str(REPOSITORY / "configs" / "x2vlm" / "pretrain" / "x2vlm_base_4m.yaml")
    report = tmp_path / "report.json"
    arguments = ["--config-file", config, "--device", "cpu", "--batch-size", "4", "--repeats", "2"]
    code, printed = command(*arguments, "--json", str(report), *small)
    assert code == 0, printed.err
    assert "decode" not in json.loads(report.read_text())
