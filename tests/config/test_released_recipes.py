"""The released recipe of every captioner, config file by config file."""

from pathlib import Path

import pytest

from xmodaler.config import load_config
from xmodaler.modeling import add_config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

STEP = ("StepLR", 3, 0.8)
FIX = ("FixLR",)
NOAM = ("NoamLR", 512, 1.0, 10000)
WARM = ("WarmupLinear", 5, 1e-5)
CE, LS = ["CrossEntropy"], ["LabelSmoothing"]
SEM = ["LabelSmoothing", "SemComphderLoss"]
BETAS, FAST = [0.9, 0.999], [0.9, 0.98]
USUAL, NEVER = (0, 5, 0.05, 0.25), (9999, 3, 0.05, 0.5)
RL, CLIP = "RLTrainer", ("value", 0.1)

# engine, pictures a batch, captions each, epochs, lr, betas, eps, clip, schedule, losses, sampling
# fmt: off
TRAINING = {
    "lstm-A/lstm-A": ("", 8, 5, 30, 5e-4, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
    "lstm-A/lstm-A_rl": (RL, 16, 5, 30, 5e-5, BETAS, 1e-8, CLIP, FIX, LS, USUAL),
    "attention/attention": ("", 8, 5, 30, 5e-4, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
    "attention/attention_rl": (RL, 16, 5, 30, 5e-5, BETAS, 1e-8, CLIP,
        ("StepLR", 10, 0.8), LS, USUAL),
    "updown/updown": ("", 8, 5, 30, 5e-4, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
    "updown/updown_rl": (RL, 16, 5, 30, 5e-5, BETAS, 1e-8, CLIP, FIX, LS, USUAL),
    "gcn/gcn": ("", 50, 1, 300, 5e-4, BETAS, 1e-8, CLIP,
        ("StepLR", 15, 0.8), CE, (0, 25, 0.05, 0.25)),
    "gcn/gcn_rl": (RL, 12, 5, 60, 5e-5, BETAS, 1e-8, CLIP,
        ("StepLR", 30, 0.8), CE, (9999, 25, 0.05, 0.25)),
    "transformer/transformer": ("", 8, 5, 30, 5e-4, BETAS, 1e-8, CLIP, NOAM, LS, USUAL),
    "transformer/transformer_rl": (RL, 16, 5, 30, 1e-5, BETAS, 1e-8, CLIP, FIX, LS, USUAL),
    "transformer/clip_transformer": ("", 8, 5, 35, 5e-4, BETAS, 1e-8, CLIP, NOAM, LS, NEVER),
    "meshed_memory/meshed_memory": ("", 10, 5, 30, 5e-4, FAST, 1e-8, CLIP, NOAM, LS, USUAL),
    "meshed_memory/meshed_memory_rl": (RL, 16, 5, 60, 1e-5, BETAS, 1e-8, CLIP,
        ("StepLR", 10, 0.8), LS, USUAL),
    "xlan/xlan": ("", 10, 5, 70, 5e-4, FAST, 1e-9, ("norm", 0.5),
        ("NoamLR", 1024, 1.0, 10000), CE, (6, 5, 0.05, 0.5)),
    "xlan/xlan_rl": (RL, 5, 5, 35, 1e-5, BETAS, 1e-8, CLIP,
        ("StepLR", 10, 0.8), LS, (6, 5, 0.05, 0.5)),
    "cosnet/cosnet": ("", 8, 5, 35, 5e-4, BETAS, 1e-8, CLIP,
        ("NoamLR", 512, 1.0, 20000), SEM, NEVER),
    "cosnet/cosnet_rl": ("RLMeanTrainer", 16, 5, 60, 1e-5, BETAS, 1e-8, CLIP,
        ("StepLR", 15, 0.8), SEM, NEVER),
    "msvd/mplstm/mplstm": ("", 8, 1, 50, 5e-4, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
    "msvd/salstm/salstm": ("", 8, 1, 50, 5e-4, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
    "msvd/transformer/transformer": ("", 64, 1, 50, 1e-4, BETAS, 1e-8, CLIP, WARM, LS, USUAL),
    "msvd/tdconved/tdconved": ("", 64, 1, 50, 1e-3, BETAS, 1e-8, CLIP, FIX, CE, USUAL),
    "msrvtt/mplstm/mplstm": ("", 8, 1, 50, 5e-4, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
    "msrvtt/salstm/salstm": ("", 8, 1, 50, 5e-4, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
    "msrvtt/transformer/transformer": ("", 256, 1, 50, 1e-4, BETAS, 1e-8, CLIP, WARM, LS, USUAL),
    "msrvtt/tdconved/tdconved": ("", 256, 1, 50, 1e-3, BETAS, 1e-8, CLIP, STEP, CE, USUAL),
}
# fmt: on

REGIONS, GRID = "mscoco_dataset/features/up_down", "mscoco_dataset/features/CLIP_RN101_49"
WIDE, NARROW = ("relu", False, 0.5), ("none", True, 0.1)  # token activation, norm, dropout

# vocabulary, features, their number and width, visual embedding and width, token embedding,
# decoder width, beam, longest caption
MODELS = {
    "lstm-A/lstm-A": (10200, "", 50, 2048, ("Identity", 1024), WIDE, 1024, 3, 20),
    "attention/attention": (10200, REGIONS, 50, 2048, ("Base", 1024), WIDE, 1024, 3, 20),
    "updown/updown": (10200, REGIONS, 50, 2048, ("Base", 1024), WIDE, 1024, 3, 20),
    "gcn/gcn": (10200, REGIONS + "_36", 36, 2048, ("Identity", 2048), WIDE, 1024, 3, 20),
    "transformer/transformer": (10200, REGIONS, 50, 2048, ("Base", 512), NARROW, 512, 2, 20),
    "transformer/clip_transformer": (10200, GRID, 50, 2048, ("Grid", 512), NARROW, 512, 3, 20),
    "meshed_memory/meshed_memory": (10200, REGIONS, 50, 2048, ("Base", 512), NARROW, 512, 2, 20),
    "xlan/xlan": (10200, REGIONS, 50, 2048, ("Base", 1024), WIDE, 1024, 3, 20),
    "cosnet/cosnet": (10200, GRID, 50, 2048, ("Grid", 512), NARROW, 512, 3, 20),
}
for data, size, beam in (("msvd", 5492, 5), ("msrvtt", 7001, 2)):
    frames = f"{data}_dataset/features/resnet152"
    for name in ("mplstm", "salstm"):
        row = (size, frames, 25, 2048, ("Base", 1024), WIDE, 1024, 5, 21)
        MODELS[f"{data}/{name}/{name}"] = row
    row = (size, frames, 50, 2048, ("Base", 512), NARROW, 512, beam, 21)
    MODELS[f"{data}/transformer/transformer"] = row
    row = (size, frames, 50, 2048, ("TDConvEDVisualBase", 512), ("none", True, 0.5), 512, 5, 21)
    MODELS[f"{data}/tdconved/tdconved"] = row


def config_of(name, *overrides):
    family = "video_caption" if name.startswith("ms") else "image_caption"
    return load_config(str(CONFIGS / family / f"{name}.yaml"), overrides, add_config)


def schedule_of(scheduler):
    keys = {
        "StepLR": ("STEP_SIZE", "GAMMA"),
        "FixLR": (),
        "NoamLR": ("MODEL_SIZE", "FACTOR", "WARMUP"),
        "WarmupLinear": ("WARMUP", "MIN_LR"),
    }[scheduler.NAME]
    return (scheduler.NAME, *(scheduler[key] for key in keys))


@pytest.mark.parametrize("name", TRAINING)
def test_training_settings(name):
    cfg = config_of(name)
    solver, sampling = cfg.SOLVER, cfg.SCHEDULED_SAMPLING
    assert TRAINING[name] == (
        "" if cfg.ENGINE.NAME == "DefaultTrainer" else cfg.ENGINE.NAME,
        cfg.DATALOADER.TRAIN_BATCH_SIZE,
        cfg.DATALOADER.SEQ_PER_SAMPLE,
        solver.EPOCH,
        solver.BASE_LR,
        solver.BETAS,
        solver.EPS,
        (solver.GRAD_CLIP_TYPE, solver.GRAD_CLIP),
        schedule_of(cfg.LR_SCHEDULER),
        cfg.LOSSES.NAMES,
        tuple(sampling[k] for k in ("START_EPOCH", "INC_EVERY_EPOCH", "INC_PROB", "MAX_PROB")),
    )
    period = 5 if name == "gcn/gcn" else 1
    assert (solver.NAME, solver.WEIGHT_DECAY, solver.NESTEROV) == ("Adam", 0.0, 0.0)
    assert (period, period) == (solver.CHECKPOINT_PERIOD, solver.EVAL_PERIOD)
    assert (cfg.LOSSES.LABELSMOOTHING, cfg.SCORER.EOS_ID) == (0.1, 0)
    assert (6 if "cosnet" in name or "clip" in name else 4) == cfg.DATALOADER.NUM_WORKERS
    assert (cfg.INFERENCE.NAME, cfg.INFERENCE.GENERATION_MODE) == ("COCOEvaler", True)
    assert cfg.DATALOADER.TEST_BATCH_SIZE == 32


@pytest.mark.parametrize("name", [*MODELS, *(n for n in TRAINING if n.endswith("_rl"))])
def test_model_settings(name, monkeypatch):
    monkeypatch.setenv("XMODALER_DATA", "/somewhere")
    from xmodaler.utils.file_io import expand_path

    cfg = config_of(name)
    model, loader = cfg.MODEL, cfg.DATALOADER
    visual, token = model.VISUAL_EMBED, model.TOKEN_EMBED
    folder = loader.FEATS_FOLDER
    assert MODELS[name.removesuffix("_rl")] == (
        model.VOCAB_SIZE,
        expand_path(folder).removeprefix("/somewhere/"),
        loader.MAX_FEAT_NUM,
        visual.IN_DIM,
        (visual.NAME.removeprefix("Visual").removesuffix("Embedding"), visual.OUT_DIM),
        (token.ACTIVATION, token.USE_NORM, token.DROPOUT),
        model.DECODER_DIM,
        cfg.DECODE_STRATEGY.BEAM_SIZE,
        model.MAX_SEQ_LEN,
    )
    assert token.DIM == model.DECODER_DIM and model.PRED_DROPOUT == visual.DROPOUT == 0.5
    assert ("none" if "tdconved" in name else "relu") == visual.ACTIVATION
    assert (("", [""]) if name.startswith("ms") else ("BaseScorer", ["Cider"])) == (
        cfg.SCORER.NAME,
        cfg.SCORER.TYPES,
    )


def dropouts(cfg):
    bert = cfg.MODEL.BERT
    inner = (bert.HIDDEN_DROPOUT_PROB, bert.INTERMEDIATE_DROP, bert.FFN_DROPOUT_PROB)
    return (*inner, bert.ATTENTION_PROBS_DROPOUT_PROB)


def test_what_only_some_recipes_set():
    assert config_of("lstm-A/lstm-A").MODEL.LSTMA == {"ATTRIBUTE_DIM": 1000, "DROPOUT": 0.0}
    gcn, gcn_rl = config_of("gcn/gcn").MODEL, config_of("gcn/gcn_rl").MODEL
    assert (gcn.GCN.DROPOUT, gcn.GCN.RELATION_NUM, gcn.UPDOWN.DROPOUT1) == (0.5, 21, 0.0)
    assert (gcn.UPDOWN.DROPOUT2, gcn.UPDOWN.ATT_EMBED_DROPOUT) == (0.5, 0.5)
    assert (gcn_rl.UPDOWN.DROPOUT2, gcn_rl.UPDOWN.ATT_EMBED_DROPOUT) == (0.0, 0.0)
    assert config_of("meshed_memory/meshed_memory").SEED == 1234
    assert dropouts(config_of("transformer/transformer")) == (0.1, 0.1, 0.1, 0.1)
    assert dropouts(config_of("transformer/clip_transformer")) == (0.2, 0.2, 0.2, 0.1)
    first, second = config_of("cosnet/cosnet"), config_of("cosnet/cosnet_rl")
    assert dropouts(first) == (0.1, 0.2, 0.2, 0.1) and dropouts(second) == (0.1, 0.1, 0.1, 0.1)
    cosnets = [cfg.MODEL.COSNET for cfg in (first, second)]
    weights = [(node.FILTER_WEIGHT, node.RECONSTRUCT_WEIGHT) for node in cosnets]
    assert weights == [(1.0, 0.1), (0.1, 0.01)]
    averages = [(cfg.MODEL.USE_EMA, cfg.MODEL.EMA_DECAY) for cfg in (first, second)]
    assert averages == [(False, 0.9999), (True, 0.9999)]
    assert first.DATALOADER.SAMPLE_PROB == 0.2


LAYERS = {
    "transformer/transformer": (6, 6),
    "transformer/clip_transformer": (6, 6),
    "cosnet/cosnet": (6, 6),
    "msvd/transformer/transformer": (6, 6),
    "msrvtt/transformer/transformer": (2, 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_the_transformers(name):
    bert = config_of(name).MODEL.BERT
    assert LAYERS[name] == (bert.NUM_HIDDEN_LAYERS, bert.NUM_GENERATION_LAYERS)
    assert (bert.HIDDEN_SIZE, bert.NUM_ATTENTION_HEADS, bert.INTERMEDIATE_SIZE) == (512, 8, 2048)
    assert bert.HIDDEN_ACT == "relu"


def test_inference_configs_of_the_clip_transformer():
    for name, dataset in (("test", "MSCoCoFeatDataset"), ("test_raw", "MSCoCoRawDataset")):
        cfg = config_of(f"transformer/clip_transformer_{name}")
        assert (dataset, "", "") == (cfg.DATASETS.TEST, cfg.DATASETS.TRAIN, cfg.DATASETS.VAL)
        assert (cfg.INFERENCE.NAME, cfg.DATALOADER.TEST_BATCH_SIZE) == ("COCOPrinter", 1)
        assert len(cfg.DATALOADER.SAMPLE_IDS) == len(cfg.DATALOADER.FILE_PATHS) > 0


def test_no_path_belongs_to_one_person():
    for file in CONFIGS.rglob("*.yaml"):
        for line in file.read_text(encoding="utf-8").splitlines():
            value = line.split("#")[0].partition(":")[2].strip().strip("'\"")
            assert not value.startswith(("/", "~")), f"{file}: {line}"
