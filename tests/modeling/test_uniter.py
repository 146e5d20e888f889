"""Encoder-only models of texts and pictures: UNITER, and ViLBERT's co-attention in its place."""

import random

import pytest
import torch

from xmodaler.checkpoint import XmodalerCheckpointer, rng_state, save_weights, set_rng_state
from xmodaler.config import get_cfg, kfg
from xmodaler.engine import DefaultTrainer
from xmodaler.losses import build_losses
from xmodaler.losses.scored_rows import R_SELECTED, U_SELECTED, V_SELECTED
from xmodaler.modeling import add_config, build_model
from xmodaler.modeling.stage_keys import SCORES_ONLY, SPARSE_GRADIENT
from xmodaler.optim import build_optimizer
from xmodaler.optim.sparse_rows import sparse_word_gradients
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

VOCAB, FEATURES, CLASSES, LABELS = 31, 10, 7, 9
TASKS = ("itm", "mlm", "mrfr", "mrc-kl")
ENCODERS = ("SingleStreamBertEncoder", "CoAttentionBertEncoder")
TEXT = (kfg.U_TOKENS_IDS, kfg.U_TOKENS_TYPE, kfg.TOKENS_MASKS)
VISUAL = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS)
HEADS = {
    "vqa": ("UniterForMMUnderstanding", LABELS, "BCEWithLogits"),
    "vcr": ("UniterForMMUnderstanding", 1, "CrossEntropy"),
    "retrieval": ("UniterRetrieval", 1, "Triplet"),
}


def config(encoder, task, **changes):
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.VOCAB_SIZE, model.MAX_SEQ_LEN, model.ENCODER = "cpu", VOCAB, 12, encoder
    model.TOKEN_EMBED.NAME, model.VISUAL_EMBED.NAME = "TokenBaseEmbedding", "VisualBaseEmbedding"
    model.TOKEN_EMBED.POSITION, model.TOKEN_EMBED.POSITION_MAX_LEN = "NNEmbeddingEncoding", 14
    model.TOKEN_EMBED.TYPE_VOCAB_SIZE, model.VISUAL_EMBED.LOCATION_SIZE = 3, 5
    model.TOKEN_EMBED.USE_NORM = model.VISUAL_EMBED.USE_NORM = True
    model.TOKEN_EMBED.DIM = model.VISUAL_EMBED.OUT_DIM = model.BERT.HIDDEN_SIZE = 16
    model.VISUAL_EMBED.IN_DIM, model.BERT.INTERMEDIATE_SIZE = FEATURES, 24
    model.BERT.NUM_ATTENTION_HEADS, model.BERT.NUM_HIDDEN_LAYERS = 4, 3
    model.BERT.V_NUM_HIDDEN_LAYERS, model.BERT.NUM_UNDERSTANDING_LAYERS = 3, 2
    model.BERT.NUM_GENERATION_LAYERS = 0
    cfg.DECODE_STRATEGY.NAME = cfg.INFERENCE.VOCAB = ""
    if task == "pretrain":
        model.META_ARCHITECTURE, model.PREDICTOR = "UniterPretrain", "BertPredictionHead"
        model.V_PREDICTOR, model.BERT.V_TARGET_SIZE = "BertVisualPredictionHead", CLASSES
        cfg.LOSSES.NAMES = ["PretrainLosses"]
        add_config(cfg, cfg)
        model.V_REGRESSOR = "BertVisualFeatureRegressionHead"
        model.ITM_PREDICTOR = "BertIsMatchedPredictor"
    else:
        model.META_ARCHITECTURE, labels, loss = HEADS[task]
        model.PREDICTOR = "SingleStreamMultiModalPredictor"
        if encoder == "CoAttentionBertEncoder":
            model.PREDICTOR = "MultiModalPredictor"
        elif task == "retrieval":
            model.PREDICTOR = "SingleStreamMultiModalSimilarity"
        cfg.LOSSES.NAMES = [loss]
        add_config(cfg, cfg)
        model.MM_PREDICTOR.LABELS_NUM = labels
        if "POOLER_INPUT_SIZE" in model.MM_PREDICTOR:
            model.MM_PREDICTOR.POOLER_INPUT_SIZE = model.MM_PREDICTOR.POOLER_OUTPUT_SIZE = 16
    for key, value in changes.items():
        setattr(model, key, value)
    return cfg


def build(encoder, task, seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(config(encoder, task, **changes))


def quiet(model):
    """Without dropout, so that training mode is deterministic."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_probs_dropout_prob"):
            module.attention_probs_dropout_prob = 0.0
    return model


def batch_of(task, images=3, groups=4, length=8, regions=6, seed=0):
    """A padded batch; ``groups`` texts for every picture, one for pre-training and VQA."""
    groups = 1 if task in ("pretrain", "vqa") else groups
    rows, generator = images * groups, torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    words = torch.randint(3, length + 1, (rows, 1), generator=generator)
    shown = torch.arange(length) < words
    boxes = torch.arange(regions) < torch.randint(2, regions + 1, (images, 1), generator=generator)
    tokens = torch.randint(1, VOCAB, (rows, length), generator=generator) * shown
    batch = {
        kfg.U_TOKENS_IDS: tokens,
        kfg.U_TOKENS_TYPE: (torch.arange(length) > 2).long().expand(rows, length),
        kfg.TOKENS_MASKS: shown,
        kfg.ATT_FEATS: draw(images, regions, FEATURES) * boxes[..., None],
        kfg.ATT_FEATS_LOC: draw(images, regions, 5) * boxes[..., None],
        kfg.ATT_MASKS: boxes,
    }
    if task == "vqa":
        batch[kfg.U_TARGET_IDS] = draw(rows, LABELS)
    if task == "vcr":
        batch[kfg.U_TARGET_IDS] = torch.randint(0, 4, (images, 1), generator=generator)
    if task == "retrieval":
        batch[kfg.SAMPLE_PER_SAMPLE] = groups
    if task == "pretrain":
        asked = shown & (torch.arange(length) % 3 == 1)
        chosen = boxes & (torch.arange(regions) % 2 == 0)
        batch |= {
            kfg.U_TOKENS_IDS_WO_MASK: tokens,
            kfg.U_TOKENS_IDS: tokens.masked_fill(asked, 2),
            kfg.U_TARGET_IDS: tokens.masked_fill(~asked, -1),
            kfg.ATT_FEATS_WO_MASK: batch[kfg.ATT_FEATS],
            kfg.ATT_FEATS: batch[kfg.ATT_FEATS] * ~chosen[..., None],
            kfg.V_TARGET: draw(images, regions, CLASSES).softmax(-1),
            kfg.V_TARGET_LABELS: chosen * 2 - 1,
            kfg.ITM_NEG_LABEL: torch.arange(images) % 3 // 2,
        }
    return batch


def total(cfg, outputs):
    return sum(sum(loss(outputs).values()) for loss in build_losses(cfg))


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", HEADS)
def test_a_step_of_training_reaches_every_part_and_lowers_the_loss(encoder, task):
    cfg = config(encoder, task)
    model = quiet(build(encoder, task)).train()
    batch = batch_of(task)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = total(cfg, model(batch))
        loss.backward()
        values.append(loss.item())
        optimizer.step()
    assert values[-1] < values[0]
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in unused} == {"itm_predictor"}  # kept for its weights


@pytest.mark.parametrize("encoder", ENCODERS)
def test_pretraining_reaches_every_part(encoder):
    cfg = config(encoder, "pretrain")
    model = quiet(build(encoder, "pretrain")).train()
    reached = set()
    for task in TASKS:
        model.sampling_pool = [task]
        model.zero_grad(set_to_none=True)
        total(cfg, model(batch_of("pretrain"))).backward()
        reached |= gradients(model).keys()
    assert reached == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", TASKS)
def test_training_computes_what_losses_need_alone(encoder, task):
    """The loss and the gradients are those of all states; logits come for targets only."""
    cfg = config(encoder, "pretrain")
    model, batch = quiet(build(encoder, "pretrain")), batch_of("pretrain")
    model.sampling_pool = [task]
    losses, norms = [], []
    for mode in (False, True):
        model.train(mode).zero_grad(set_to_none=True)
        outputs = model(batch)
        losses.append(total(cfg, outputs))
        losses[-1].backward()
        norms.append(gradients(model))
    torch.testing.assert_close(losses[0], losses[1])
    for name, value in norms[0].items():  # what nobody reads is not computed, its gradient was 0
        other = norms[1].get(name, torch.zeros_like(value))
        torch.testing.assert_close(other, value, atol=1e-6, rtol=1e-4)
    selected = {"mlm": U_SELECTED, "mrfr": R_SELECTED, "mrc-kl": V_SELECTED}.get(task)
    if selected:
        mismatched = batch[kfg.ITM_NEG_LABEL] > 0
        wanted = batch[kfg.U_TARGET_IDS] if task == "mlm" else batch[kfg.V_TARGET_LABELS]
        count = (wanted.masked_fill(mismatched[:, None], -1) > 0).sum()
        assert len(outputs[selected].logits) == count
        assert kfg.U_LOGITS not in outputs and kfg.V_LOGITS not in outputs
    assert kfg.U_HIDDEN_STATES not in outputs


def test_a_batch_of_mismatches_alone_teaches_nothing_but_matching():
    cfg, batch = config(ENCODERS[0], "pretrain"), batch_of("pretrain")
    batch[kfg.ITM_NEG_LABEL] = torch.ones(3, dtype=torch.long)
    model = build(ENCODERS[0], "pretrain").train()
    for task in TASKS:
        model.sampling_pool = [task]
        model.zero_grad(set_to_none=True)
        loss = total(cfg, model(batch))
        loss.backward()
        assert (loss > 0) == (task == "itm")
        assert all(grad.isfinite().all() for grad in gradients(model).values())


def test_only_one_side_is_masked():
    """What a task does not ask for is shown unmasked."""
    model, batch = build(ENCODERS[0], "pretrain").eval(), batch_of("pretrain")
    seen = {}
    words, regions = kfg.U_TOKENS_IDS, kfg.ATT_FEATS
    for part, key in ((model.token_embed, words), (model.visual_embed, regions)):
        part.register_forward_pre_hook(lambda _, args, key=key: seen.update({key: args[0][key]}))
    for task, masked in (("itm", ""), ("mlm", words), ("mrfr", regions), ("mrc-kl", regions)):
        model.sampling_pool = [task]
        model(batch)
        for key in (words, regions):
            assert torch.equal(seen[key], batch[key if key == masked else f"{key}_WO_MASK"])


@pytest.mark.parametrize("task", ["itm", "mlm", "mrfr"])
def test_features_without_classes_teach_all_but_classes(task):
    model, batch = build(ENCODERS[0], "pretrain").train(), batch_of("pretrain")
    del batch[kfg.V_TARGET]
    model.sampling_pool = [task]
    assert total(config(ENCODERS[0], "pretrain"), model(batch)) > 0


def test_tasks_are_drawn_by_ratio_and_with_the_seed():
    model = build(ENCODERS[0], "pretrain", PRETRAIN_TASKS_MIX_RATIO=[3, 4, 2, 2]).train()
    assert sorted(model.sampling_pool) == sorted(["itm"] * 3 + ["mlm"] * 4 + ["mrfr", "mrc-kl"] * 2)
    random.seed(5)
    state = random.getstate()
    first = [model.draw_task() for _ in range(300)]
    random.setstate(state)
    assert first == [model.draw_task() for _ in range(300)]
    assert set(first) == set(TASKS)
    assert 80 < first.count("mlm") < 140


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("scores_only", [False, True])
@torch.no_grad()
def test_a_row_does_not_depend_on_neighbours_or_padding(encoder, task, scores_only):
    model, batch = build(encoder, task).eval(), batch_of(task)
    rows, images = len(batch[kfg.U_TOKENS_IDS]), len(batch[kfg.ATT_FEATS])
    together = model({**batch, SCORES_ONLY: scores_only})
    for row in range(rows):
        image = row * images // rows
        words = int(batch[kfg.TOKENS_MASKS][row].sum())
        boxes = int(batch[kfg.ATT_MASKS][image].sum())
        alone = {key: batch[key][row : row + 1, :words] for key in TEXT}
        alone |= {key: batch[key][image : image + 1, :boxes] for key in VISUAL}
        out = model({**alone, SCORES_ONLY: scores_only})
        torch.testing.assert_close(
            out[kfg.U_LOGITS][0], together[kfg.U_LOGITS][row], atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(
            out[kfg.OUTPUT][0], together[kfg.OUTPUT][row], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_regions_once_per_picture_or_once_per_text(encoder):
    model, batch = build(encoder, "vcr").eval(), batch_of("vcr")
    repeated = {**batch, **{key: batch[key].repeat_interleave(4, dim=0) for key in VISUAL}}
    torch.testing.assert_close(model(batch)[kfg.U_LOGITS], model(repeated)[kfg.U_LOGITS])


@torch.no_grad()
def test_outputs_by_task():
    outputs = {task: build(ENCODERS[0], task).eval()(batch_of(task)) for task in HEADS}
    answers = outputs["vqa"][kfg.OUTPUT]
    assert answers.dtype == torch.int64
    assert torch.equal(answers, outputs["vqa"][kfg.U_LOGITS].argmax(-1))
    scores = outputs["retrieval"][kfg.OUTPUT]
    assert scores.shape == (12, 1) and torch.equal(scores, outputs["retrieval"][kfg.U_LOGITS])


def test_bad_batches_and_settings():
    model = build(ENCODERS[0], "vqa")
    batch = batch_of("vqa")
    with pytest.raises(UserError, match="U_TOKENS_IDS"):
        model({key: batch[key] for key in VISUAL})
    with pytest.raises(UserError, match="TOKENS_MASKS"):
        model({**batch, kfg.TOKENS_MASKS: batch[kfg.TOKENS_MASKS][:, 1:]})
    with pytest.raises(UserError, match="3 text rows do not divide over 2 images"):
        model({**batch, **{key: batch[key][:2] for key in VISUAL}})
    long = torch.ones(3, 15, dtype=torch.long)
    with pytest.raises(UserError, match="exceeds the 14 positions"):
        model({**{key: batch[key] for key in VISUAL}, kfg.U_TOKENS_IDS: long})
    with pytest.raises(UserError, match="V_TARGET"):
        pretrain = build(ENCODERS[0], "pretrain")
        pretrain.sampling_pool = ["mrc-kl"]
        wanting = batch_of("pretrain")
        del wanting[kfg.V_TARGET]
        pretrain(wanting)
    with pytest.raises(UserError, match="'mlmm'"):
        build(ENCODERS[0], "pretrain", PRETRAIN_TASKS=["mlmm"], PRETRAIN_TASKS_MIX_RATIO=[1])
    with pytest.raises(UserError, match="every task needs one"):
        build(ENCODERS[0], "pretrain", PRETRAIN_TASKS=["mlm"])
    with pytest.raises(UserError, match="draws no task"):
        build(ENCODERS[0], "pretrain", PRETRAIN_TASKS_MIX_RATIO=[0, 0, 0, 0])
    with pytest.raises(UserError, match=r"MODEL\.ITM_PREDICTOR"):
        build(ENCODERS[0], "pretrain", ITM_PREDICTOR="")
    with pytest.raises(UserError, match="needs layers"):
        cfg = config(ENCODERS[0], "vqa")
        cfg.MODEL.BERT.NUM_HIDDEN_LAYERS = 0
        build_model(cfg)
    with pytest.raises(UserError, match="connections"):
        cfg = config(ENCODERS[1], "vqa")
        cfg.MODEL.BERT.NUM_UNDERSTANDING_LAYERS = 4
        build_model(cfg)


def test_the_task_goes_on_where_a_run_was_resumed():
    model = build(ENCODERS[0], "pretrain").train()
    state = rng_state()
    first = [model.draw_task() for _ in range(20)]
    random.seed(77)
    set_rng_state(state)
    assert first == [model.draw_task() for _ in range(20)]


def test_all_processes_train_the_task_of_the_first(monkeypatch):
    model = build(ENCODERS[0], "pretrain").train()
    model.sampling_pool = ["mlm"]
    monkeypatch.setattr(comm, "all_gather", lambda own: ["itm", own])
    assert model.draw_task() == "itm"
    assert model.eval().draw_task() == "mlm"  # evaluation may be uneven: nobody is waited for


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Weights of pre-training, and where they are."""
    model = build(ENCODERS[0], "pretrain", seed=3)
    path = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save_weights(model, path)
    return model, str(path)


def pooler_of(head):
    return torch.cat([value.flatten() for value in head.pooler.state_dict().values()])


@pytest.mark.parametrize("wrap", [lambda model: model, torch.nn.DataParallel])
@pytest.mark.parametrize("task", HEADS)
def test_fine_tuning_starts_from_the_pretrained_pooler(pretrained, task, wrap):
    model = build(ENCODERS[0], task)
    before = model.predictor.cls.weight.clone()
    XmodalerCheckpointer(wrap(model)).load(pretrained[1])
    itm_predictor = pretrained[0].itm_predictor
    assert torch.equal(pooler_of(model.predictor), pooler_of(itm_predictor))
    if task == "retrieval":
        assert torch.equal(model.predictor.cls.weight, itm_predictor.is_match_cls.weight[:1])
        assert torch.equal(model.predictor.cls.bias, itm_predictor.is_match_cls.bias[:1])
    else:
        assert torch.equal(model.predictor.cls.weight, before)


@pytest.mark.parametrize("task", HEADS)
def test_fine_tuned_weights_stay_as_they_are(task, tmp_path):
    tuned = build(ENCODERS[0], task, seed=4)  # both poolers differ, as after fine-tuning
    save_weights(tuned, tmp_path / "tuned.pth")
    assert not torch.equal(pooler_of(tuned.predictor), pooler_of(tuned.itm_predictor))
    cfg = config(ENCODERS[0], task)
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(tmp_path / "tuned.pth"), str(tmp_path / "run")
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    state = tuned.state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    # Nor does training bind what was not loaded.
    trainer.bind_or_init_weights()
    assert torch.equal(pooler_of(trainer.model.predictor), pooler_of(tuned.predictor))


def test_binding_by_hand():
    model = build(ENCODERS[0], "retrieval")
    model.bind_or_init_weights()
    assert torch.equal(pooler_of(model.predictor), pooler_of(model.itm_predictor))
    model.predictor.pooler.dense.bias.data.add_(1)  # a copy: the other pooler stays
    assert not torch.equal(pooler_of(model.predictor), pooler_of(model.itm_predictor))
    build(ENCODERS[1], "retrieval").bind_or_init_weights()  # nothing to bind in its head


def test_the_gradient_of_the_words_may_hold_the_read_rows_alone():
    cfg, batch = config(ENCODERS[0], "vqa"), batch_of("vqa")
    model = quiet(build(ENCODERS[0], "vqa")).train()
    assert sparse_word_gradients(model, build_optimizer(cfg, model), cfg)
    weight, read = model.token_embed.embeddings.weight, []
    for sparse in (False, True):
        model.zero_grad(set_to_none=True)
        total(cfg, model({**batch, SPARSE_GRADIENT: sparse})).backward()
        read.append(weight.grad)
    assert read[1].is_sparse and read[1].coalesce().values().shape[0] <= VOCAB
    torch.testing.assert_close(read[1].to_dense(), read[0])
    cfg.SOLVER.NAME = "SGD"  # which does not take them
    assert not sparse_word_gradients(model, build_optimizer(cfg, model), cfg)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_layers_may_be_computed_again_for_the_gradient(encoder):
    cfg, batch = config(encoder, "vqa"), batch_of("vqa")
    kept = []
    for again in (False, True):
        cfg.MODEL.BERT.GRAD_CHECKPOINT = again
        torch.manual_seed(0)
        model = build_model(cfg).train()  # dropout must draw the same numbers again
        torch.manual_seed(1)
        total(cfg, model(batch)).backward()
        kept.append(gradients(model))
    assert kept[0].keys() == kept[1].keys()
    for name, value in kept[0].items():
        torch.testing.assert_close(kept[1][name], value)
