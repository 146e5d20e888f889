"""Training on rewards."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.engine import RLMeanTrainer, build_engine
from xmodaler.engine.rl_batch import sample_scalars, without_captions
from xmodaler.losses import BeamRewardCriterion, build_rl_losses
from xmodaler.modeling import add_config
from xmodaler.scorer.cider_files import count_documents, write_frequencies, write_references
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TRAINERS = ("RLTrainer", "RLMeanTrainer", "RLBeamTrainer")
BERT = {"HIDDEN_SIZE": 12, "NUM_ATTENTION_HEADS": 2, "INTERMEDIATE_SIZE": 16}
BERT |= {"NUM_HIDDEN_LAYERS": 1, "NUM_GENERATION_LAYERS": 2, "HIDDEN_ACT": "relu"}
TRANSFORMER = {
    "MODEL__META_ARCHITECTURE": "TransformerEncoderDecoder",
    "MODEL__TOKEN_EMBED__POSITION": "SinusoidEncoding",
}
MODELS = {
    "recurrent": {},
    "transformer": {
        **TRANSFORMER,
        "MODEL__ENCODER": "TransformerEncoder",
        "MODEL__DECODER": "TransformerDecoder",
        **{f"MODEL__BERT__{key}": value for key, value in BERT.items()},
    },
    "convolutional": {
        **TRANSFORMER,
        "MODEL__ENCODER": "TDConvEDEncoder",
        "MODEL__DECODER": "TDConvEDDecoder",
        "MODEL__VISUAL_EMBED__NAME": "TDConvEDVisualBaseEmbedding",
        "MODEL__TDCONVED__ENCODER__HIDDEN_SIZE": 12,
        "MODEL__TDCONVED__DECODER__HIDDEN_SIZE": 12,
        "MODEL__TDCONVED__DECODER__ATT_EMBED_SIZE": 8,
    },
}


@pytest.fixture
def config(toy, tmp_path):
    """Makes configs of the toy task with a CIDEr-D reward."""
    dataset = toy.ToyDataset("train")
    references = {}
    for record in dataset.load_data(None):
        targets = dataset(record)[kfg.G_TARGET_IDS]
        references[record["image_id"]] = [row.tolist() for row in targets]
    write_references(tmp_path / "gts.json", references)
    write_frequencies(tmp_path / "df.json", *count_documents(references))

    def make(trainer="RLTrainer", folder="run", model="recurrent", **changes):
        options = {
            "ENGINE__NAME": trainer,
            "SCORER__NAME": "BaseScorer",
            "SCORER__TYPES": ["Cider"],
            "SCORER__GT_PATH": str(tmp_path / "gts.json"),
            "SCORER__CIDER_CACHED": str(tmp_path / "df.json"),
            "DECODE_STRATEGY__BEAM_SIZE": 3,
            "SOLVER__MAX_ITER": 4,
            "SOLVER__EVAL_PERIOD": 100,
            "SOLVER__CHECKPOINT_PERIOD": 100,
            "DATASETS__VAL": "",
            "DATASETS__TEST": "",
        }
        options |= {**MODELS[model], **changes}
        flat = toy.toy_options(tmp_path / folder, **options)
        pairs = dict(zip(flat[::2], flat[1::2], strict=True))
        if model != "recurrent":
            del pairs["MODEL.UPDOWN.ATT_EMBED_SIZE"]
        return merged([item for pair in pairs.items() for item in pair])

    return make


def merged(options):
    cfg, tmp = get_cfg(), get_cfg()
    tmp.set_new_allowed(True)
    tmp.merge_from_list(options)
    add_config(cfg, tmp)
    cfg.merge_from_list(options)
    return cfg


def train(cfg):
    trainer = build_engine(cfg)
    trainer.resume_or_load(resume=False)
    metrics = trainer.train()
    return trainer, metrics


def weights(trainer):
    return {k: v.clone() for k, v in trainer.bare_model.state_dict().items()}


@pytest.mark.parametrize("name", TRAINERS)
def test_same_seed_same_bits(config, toy, name):
    from xmodaler.engine import default_setup
    from xmodaler.utils.arguments import default_argument_parser

    runs = []
    for folder, seed in (("first", 7), ("second", 7), ("third", 8)):
        cfg = config(name, folder, SEED=seed)
        default_setup(cfg, default_argument_parser().parse_args([]))
        trainer, metrics = train(cfg)
        runs.append((weights(trainer), metrics["total_loss"]))
    assert toy.differences(runs[0], runs[1]) == []
    assert toy.differences(runs[0][0], runs[2][0]) != []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", TRAINERS)
def test_every_kind_of_model_takes_steps(config, name, model):
    cfg = config(name, model=model, SOLVER__BASE_LR=0.003)
    trainer = build_engine(cfg)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    unchanged = {k for k, v in before.items() if v.is_floating_point() and torch.equal(v, after[k])}
    assert all("pe" in key.split(".") or "type" in key for key in unchanged), unchanged
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    for line in map(json.loads, lines):
        for key in ("reward", "reward_std", "reward_spread", "baseline", "length", "unfinished"):
            assert math.isfinite(line[key])
        assert 0 <= line["unfinished"] <= 1 and 0 <= line["length"] <= cfg.MODEL.MAX_SEQ_LEN
        assert 0 < line["scoring_share"] < 1 and line["entropy"] > 0
        assert 0 < line["sampling_share"] + line["baseline_share"] < 1
        assert "Cider" in line


@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_sampling_are_those_of_teacher_forcing(config, model):
    """The log-probabilities of drawn sentences, and how every weight changes them."""
    dropouts = ["PRED_DROPOUT", "TOKEN_EMBED__DROPOUT", "VISUAL_EMBED__DROPOUT"]
    if model == "transformer":
        names = ("HIDDEN", "ATTENTION_PROBS", "FFN")
        dropouts += [f"BERT__{name}_DROPOUT_PROB" for name in names] + ["BERT__INTERMEDIATE_DROP"]
    if model == "convolutional":
        names = ("ENCODER__DROPOUT", "DECODER__DROPOUT", "DECODER__ATT_EMBED_DROPOUT")
        dropouts += [f"TDCONVED__{name}" for name in names]
    cfg = config(model=model, **{f"MODEL__{name}": 0.0 for name in dropouts})
    trainer = build_engine(cfg)
    data = trainer.next_batch()
    outputs = trainer.sample(without_captions(data))
    words = outputs[kfg.G_SENTS_IDS]
    assert words.shape == (len(data[kfg.IDS]) * 2, cfg.MODEL.MAX_SEQ_LEN)
    ends = words == 0
    shown = ends.cumsum(1) - ends.long() == 0
    log_probs = torch.where(shown, outputs[kfg.G_LOGP], 0.0)

    tokens = torch.cat([torch.zeros_like(words[:, :1]), words[:, :-1]], dim=1)
    forced = {
        **data,
        kfg.G_TOKENS_IDS: tokens,
        kfg.G_TARGET_IDS: torch.where(shown, words, -1),
        kfg.TOKENS_MASKS: torch.ones_like(tokens, dtype=torch.bool),
    }
    logits = trainer.model(forced)[kfg.G_LOGITS].log_softmax(-1)
    expected = torch.where(shown, logits.gather(2, words.unsqueeze(2)).squeeze(2), 0.0)
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)
    weighting = torch.randn(words.shape, generator=torch.Generator().manual_seed(0))
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)
    pair = [
        torch.autograd.grad((each * weighting).sum(), parameters, allow_unused=True)
        for each in (log_probs, expected)
    ]
    for key, own, other in zip(names, *pair, strict=True):
        if other is not None:
            torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4, msg=key)
    assert sum(own is not None for own in pair[0]) > 0.8 * len(names)


def test_images_are_encoded_once_for_all_sentences(config):
    trainer = build_engine(config(DATALOADER__SEQ_PER_SAMPLE=5))
    calls = []
    trainer.model.visual_embed.register_forward_hook(
        lambda module, args, out: calls.append((module.training, len(out[kfg.ATT_FEATS])))
    )
    trainer.train()
    assert calls[:2] == [(True, 4), (False, 4)]
    calls.clear()
    trainer = build_engine(config("RLMeanTrainer"))
    trainer.model.visual_embed.register_forward_hook(
        lambda module, args, out: calls.append(module.training)
    )
    trainer.train()
    assert calls == [True] * 4


def test_a_step_costs_little_more_than_its_parts(config):
    """Products of matrices, against drawing, greedy decoding and a pass with gradients."""
    from torch.utils.flop_counter import FlopCounterMode

    def count(function):
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops()

    widths = {"TOKEN_EMBED__DIM": 48, "VISUAL_EMBED__OUT_DIM": 48, "DECODER_DIM": 48}
    widths |= {"BERT__HIDDEN_SIZE": 48, "BERT__INTERMEDIATE_SIZE": 192}
    widths = {f"MODEL__{key}": value for key, value in widths.items()}
    trainer = build_engine(config(model="transformer", DATALOADER__SEQ_PER_SAMPLE=5, **widths))
    model, data = trainer.model, trainer.next_batch()
    data[kfg.ATT_FEATS] = torch.randn(4, 20, 8)
    data[kfg.ATT_MASKS] = torch.ones(4, 20, dtype=torch.bool)
    images = without_captions(data)
    # Every sentence runs to its full length, however the words are drawn.
    model.greedy_decoder.suppress_words = (0,)
    step = count(lambda: sum(trainer.compute_losses(data).values()).backward())

    words = trainer.sample(images)[kfg.G_SENTS_IDS]
    forced = {**images, kfg.G_TOKENS_IDS: words, kfg.G_TARGET_IDS: words}

    def with_gradients():
        logits = model(forced)[kfg.G_LOGITS]
        logits.log_softmax(-1).gather(2, words.unsqueeze(2)).sum().backward()

    encode = count(lambda: model.start(images))
    with torch.no_grad():
        draw = count(lambda: trainer.sample(images)) - encode
        greedy = count(lambda: model(images, use_beam_search=False)) - encode
    parts = draw + greedy + count(with_gradients)
    assert 0.5 * parts < step < 1.1 * parts


def test_drawn_sentences_are_scored_while_greedy_ones_are_decoded(config):
    trainer = build_engine(config(SOLVER__MAX_ITER=1))
    scorer, decode = trainer.scorer, trainer.rival
    decoding, scored = threading.Event(), []

    class Scorer:
        check_captions = staticmethod(scorer.check_captions)

        def __call__(self, batch):
            # Without the decoding beside it, this waits in vain.
            scored.append(decoding.wait(timeout=60))
            return scorer(batch)

    def rival(images):
        decoding.set()
        return decode(images)

    trainer.scorer, trainer.rival = Scorer(), rival
    trainer.train()
    assert scored == [True, True]


def test_a_mistake_found_while_decoding_stops_the_run(config):
    trainer = build_engine(config())
    scorer = trainer.scorer

    class Scorer:
        check_captions = staticmethod(scorer.check_captions)

        def __call__(self, batch):
            raise UserError("the reward Cider of a sentence is nan")

    trainer.scorer = Scorer()
    with pytest.raises(UserError, match="the reward Cider of a sentence is nan"):
        trainer.train()


def test_baselines():
    rewards = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    baseline = RLMeanTrainer.baseline(None, rewards, None)
    np.testing.assert_allclose(baseline, [[4.0, 3.5, 1.5], [1.5, 1.5, 0.0]])


def test_what_is_logged_about_sentences():
    words = torch.tensor([[4, 5, 0, 0], [4, 4, 4, 4]])
    log_probs = -torch.tensor([[1.0, 2.0, 3.0, 100.0], [1.0, 1.0, 1.0, 1.0]])
    scalars = sample_scalars(
        words, log_probs, np.array([[1.0], [3.0]]), np.array([[1.5], [1.0]]), 0
    )
    scalars = {name: float(value) for name, value in scalars.items()}
    expected = {"reward": 2.0, "reward_std": 1.0, "reward_spread": 0.0, "baseline": 1.25}
    assert scalars == pytest.approx(
        {**expected, "length": 3.0, "unfinished": 0.5, "entropy": 10 / 7}
    )


@pytest.mark.parametrize("name", TRAINERS)
def test_precision_accumulation_and_average_are_independent(config, name):
    cfg = config(
        name,
        SOLVER__PRECISION="bf16",
        SOLVER__ACCUM_STEPS=2,
        MODEL__USE_EMA=True,
        DATALOADER__TRAIN_BATCH_SIZE=3,
        SOLVER__MAX_ITER=2,
    )
    trainer, metrics = train(cfg)
    assert math.isfinite(metrics["total_loss"])
    average = trainer.ema.module.state_dict()
    assert any(not torch.equal(v, average[k]) for k, v in weights(trainer).items())


def test_extra_losses_join_the_reward(config):
    cfg = config(LOSSES__NAMES=["CrossEntropy", "LabelSmoothing"])
    assert [type(loss).__name__ for loss in build_rl_losses(cfg)] == ["RewardCriterion"]
    _, metrics = train(cfg)
    assert metrics["total_loss"] == pytest.approx(metrics["RewardCriterion"])


def test_slots_without_a_sentence_do_not_count():
    log_probs = torch.tensor([[[-1.0, -2.0], [float("-inf"), 0.0]]], requires_grad=True)
    loss = BeamRewardCriterion()({kfg.G_LOGP: log_probs, kfg.REWARDS: np.array([2.0, -2.0])})
    assert loss["BeamRewardCriterion"].item() == pytest.approx(1.5)


def test_mistakes_are_told(config, tmp_path):
    with pytest.raises(UserError, match="give 2 or more"):
        build_engine(config("RLMeanTrainer", DATALOADER__SEQ_PER_SAMPLE=1))
    with pytest.raises(UserError, match="give 2 or more"):
        build_engine(config("RLBeamTrainer", DECODE_STRATEGY__BEAM_SIZE=1))
    with pytest.raises(UserError, match=r"SCORER\.NAME is empty"):
        build_engine(config(SCORER__NAME="")).train()
    with pytest.raises(UserError, match=r"SCORER\.GT_PATH"):
        build_engine(config(SCORER__GT_PATH=str(tmp_path / "nothing.json"))).train()


def test_references_of_other_captions_are_refused(config, tmp_path):
    references = json.loads((tmp_path / "gts.json").read_text())
    names = list(references)
    swapped = dict(
        zip(names, [*[references[n] for n in names[1:]], references[names[0]]], strict=True)
    )
    write_references(tmp_path / "gts.json", swapped)
    with pytest.raises(UserError, match="no caption of the first training batch"):
        build_engine(config()).train()


def test_a_reward_that_is_always_zero_is_refused(config, tmp_path):
    references = json.loads((tmp_path / "gts.json").read_text())
    table, _ = count_documents(references)
    write_frequencies(tmp_path / "df.json", {ngram: 1 for ngram in table}, 0.0)
    with pytest.raises(UserError, match="is 0 even for the captions that people wrote"):
        build_engine(config()).train()


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_continues_bit_for_bit(config, toy, name):
    whole, _ = train(config(name, SOLVER__MAX_ITER=6, SOLVER__CHECKPOINT_PERIOD_ITERS=3))
    expected = weights(whole)
    resumed = build_engine(config(name, SOLVER__MAX_ITER=6))
    checkpoint = next(Path(resumed.output_dir).glob("*Iter_0000002.pth"))
    (Path(resumed.output_dir) / "last_checkpoint").write_text(checkpoint.name)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 3
    resumed.train()
    assert toy.differences(expected, weights(resumed)) == []


@pytest.mark.slow
def test_two_processes_train_like_one(config, train_net, tmp_path):
    """Searching draws nothing at random, so both ways see the same sentences."""
    cfg = config("RLBeamTrainer")
    changes = {
        "ENGINE__NAME": "RLBeamTrainer",
        "SCORER__NAME": "BaseScorer",
        "SCORER__TYPES": ["Cider"],
        "SCORER__GT_PATH": cfg.SCORER.GT_PATH,
        "SCORER__CIDER_CACHED": cfg.SCORER.CIDER_CACHED,
        "DECODE_STRATEGY__BEAM_SIZE": 3,
        "SOLVER__MAX_ITER": 3,
        "DATASETS__TRAIN": "QuietToyDataset",
        "MODEL__PRED_DROPOUT": 0.0,
    }
    one = train_net(tmp_path / "one", DATALOADER__TRAIN_BATCH_SIZE=8, **changes)
    assert one.wait(timeout=180) == 0, one.communicate()[0]
    flags = ("--num-gpus", "2", "--dist-url", "auto")
    two = train_net(tmp_path / "two", *flags, DATALOADER__TRAIN_BATCH_SIZE=4, **changes)
    assert two.wait(timeout=180) == 0, two.communicate()[0]
    expected, found = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("one", "two")
    )
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-5, msg=key)
