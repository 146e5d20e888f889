"""TDEN: what it computes does not depend on padding, repetition, caches or how it saves memory."""

import pytest
import torch
from torch import nn

from xmodaler.config import get_cfg, kfg
from xmodaler.losses import build_losses
from xmodaler.losses.scored_rows import G_SELECTED, U_SELECTED, V_SELECTED
from xmodaler.modeling import add_config, build_model
from xmodaler.utils.errors import UserError

VOCAB, FEATURES, CLASSES, WORDS, REGIONS = 29, 10, 7, 8, 6
LENGTHS, COUNTS = [8, 3, 5, 2], [6, 2, 4, 5]
SIMILARITY = "tden_pretrain_similarity"


def tiny(architecture, predictor, losses, layers=(2, 2, 2, 2), **bert):
    """A tiny model without dropout: text, region, understanding and generation layers."""
    cfg = get_cfg()
    model = cfg.MODEL
    model.META_ARCHITECTURE, model.PREDICTOR = architecture, predictor
    model.ENCODER = "TwoStreamBertEncoder"
    model.DECODER = "" if architecture == "TDENRetrieval" else "DecoupleBertDecoder"
    model.V_PREDICTOR = "BertVisualPredictionHead" if architecture == "TDENPretrain" else ""
    model.TOKEN_EMBED.NAME, model.VISUAL_EMBED.NAME = "TokenBaseEmbedding", "VisualBaseEmbedding"
    model.DEVICE, model.VOCAB_SIZE, model.MAX_SEQ_LEN = "cpu", VOCAB, WORDS
    add_config(cfg)
    for node, width in ((model.TOKEN_EMBED, "DIM"), (model.VISUAL_EMBED, "OUT_DIM")):
        node[width], node.USE_NORM, node.DROPOUT = 16, True, 0.0
    model.TOKEN_EMBED.POSITION, model.TOKEN_EMBED.TYPE_VOCAB_SIZE = "NNEmbeddingEncoding", 3
    model.TOKEN_EMBED.POSITION_MAX_LEN = 12
    model.VISUAL_EMBED.IN_DIM, model.VISUAL_EMBED.LOCATION_SIZE = FEATURES, 5
    node = model.BERT
    node.HIDDEN_SIZE, node.INTERMEDIATE_SIZE, node.NUM_ATTENTION_HEADS = 16, 24, 4
    node.V_TARGET_SIZE = CLASSES
    for key in ("HIDDEN_DROPOUT_PROB", "INTERMEDIATE_DROP", "FFN_DROPOUT_PROB"):
        node[key] = 0.0
    node.ATTENTION_PROBS_DROPOUT_PROB = 0.0
    names = ("NUM_HIDDEN", "V_NUM_HIDDEN", "NUM_UNDERSTANDING", "NUM_GENERATION")
    for name, count in zip(names, layers, strict=True):
        node[f"{name}_LAYERS"] = count
    for key, value in bert.items():
        node[key] = value
    if "MM_PREDICTOR" in model:
        heads = model.MM_PREDICTOR
        heads.POOLER_INPUT_SIZE, heads.POOLER_OUTPUT_SIZE, heads.POOLER_DROPOUT = 16, 12, 0.0
        if "LABELS_NUM" in heads:
            heads.LABELS_NUM = 5
    cfg.LOSSES.NAMES, cfg.INFERENCE.VOCAB = losses, ""
    cfg.DECODE_STRATEGY.BEAM_SIZE = 3
    return cfg


def pretrainer(**bert):
    return tiny("TDENPretrain", "BertPredictionHead", ["PretrainLosses"], **bert)


def answerer(labels=5, layers=(2, 2, 2, 2)):
    cfg = tiny("TDENBiTransformer", "MultiModalPredictor", ["BCEWithLogits"], layers)
    cfg.MODEL.MM_PREDICTOR.LABELS_NUM = labels
    return cfg


def retriever():
    return tiny("TDENRetrieval", "MultiModalSimilarity", ["BatchTriplet"], (2, 2, 0, 0))


def captioner():
    return tiny("TDENCaptioner", "BertPredictionHead", ["CrossEntropy"], (2, 2, 0, 2))


def build(cfg):
    torch.manual_seed(3)
    return build_model(cfg)


def pictures(images=4):
    torch.manual_seed(1)
    return {
        kfg.IDS: [str(number) for number in range(images)],
        kfg.ATT_FEATS: torch.randn(images, REGIONS, FEATURES),
        kfg.ATT_FEATS_LOC: torch.rand(images, REGIONS, 5),
        kfg.ATT_MASKS: torch.arange(REGIONS) < torch.tensor(COUNTS[:images])[:, None],
    }


def texts(rows=4):
    torch.manual_seed(2)
    lengths = torch.tensor((LENGTHS * rows)[:rows])
    shown = torch.arange(WORDS) < lengths[:, None]
    return {
        kfg.U_TOKENS_IDS: torch.randint(1, VOCAB, (rows, WORDS)) * shown,
        kfg.U_TOKENS_TYPE: torch.zeros(rows, WORDS, dtype=torch.long),
        kfg.TOKENS_MASKS: shown,
    }


def pretraining_batch():
    batch = {**pictures(), **texts(), SIMILARITY: True}
    shown, ids = batch[kfg.TOKENS_MASKS], batch[kfg.U_TOKENS_IDS]
    masked = shown & (torch.arange(WORDS) % 2 == 1)
    following = torch.cat([ids[:, 1:], ids.new_zeros(len(ids), 1)], dim=1)
    batch[kfg.G_TOKENS_IDS], batch[kfg.G_TOKENS_TYPE] = ids, torch.ones_like(ids)
    batch[kfg.U_TARGET_IDS] = ids.masked_fill(~masked, -1)
    batch[kfg.G_TARGET_IDS] = following.masked_fill(following == 0, -1)
    # Of the mean region, the first one, nothing is predicted.
    batch[kfg.V_TARGET] = torch.rand(4, REGIONS - 1, CLASSES).softmax(-1)
    labels = (batch[kfg.ATT_MASKS] & (torch.arange(REGIONS) % 2 == 1))[:, 1:]
    batch[kfg.V_TARGET_LABELS] = torch.where(labels, 1, -1)
    return batch


def total(cfg, outputs):
    return sum(v for loss in build_losses(cfg) for v in loss(outputs).values())


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value is None) == (other[name] is None), name
        if value is not None:
            torch.testing.assert_close(value, other[name], atol=2e-6, rtol=1e-4, msg=name)


def in_training_without_selection(model):
    """Training mode for the heads alone, so that every position of every row is computed."""
    model.eval()
    model.similarity_predictor.training = True
    return model


def test_selected_rows_are_those_of_all_positions():
    cfg, batch = pretrainer(), pretraining_batch()
    model = build(cfg)
    whole = in_training_without_selection(model)(batch)
    expected = gradients(model, total(cfg, whole))
    selected = model.train()(batch)
    assert kfg.U_LOGITS not in selected and kfg.G_LOGITS not in selected
    for key, logits, offset in (
        (U_SELECTED, kfg.U_LOGITS, 0),
        (G_SELECTED, kfg.G_LOGITS, 0),
        (V_SELECTED, kfg.V_LOGITS, 1),
    ):
        rows = selected[key]
        all_rows = whole[logits][:, offset:].flatten(0, 1)[rows.positions]
        torch.testing.assert_close(rows.logits, all_rows, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(total(cfg, selected), total(cfg, whole))
    assert_same(gradients(model, total(cfg, selected)), expected)


@pytest.mark.parametrize("setting", ["GRAD_CHECKPOINT", "RECOMPUTE_INNER"])
def test_recomputing_changes_nothing(setting):
    batch = pretraining_batch()
    found = []
    for recompute in (False, True):
        # With dropout: what is computed again has to drop the same.
        cfg = pretrainer(FFN_DROPOUT_PROB=0.3, ATTENTION_PROBS_DROPOUT_PROB=0.3)
        cfg.MODEL.BERT.HIDDEN_DROPOUT_PROB = cfg.MODEL.BERT.INTERMEDIATE_DROP = 0.3
        cfg.MODEL.BERT[setting] = recompute
        model = build(cfg).train()
        torch.manual_seed(7)
        found.append(gradients(model, total(cfg, model(batch))))
    assert_same(*found)


def test_without_the_flag_nothing_is_compared():
    batch = pretraining_batch()
    model = build(pretrainer()).train()
    del batch[SIMILARITY]
    assert kfg.OUTPUT not in model(batch)
    assert kfg.OUTPUT not in model({**batch, SIMILARITY: False})


def test_the_generating_text_sees_only_words_before():
    """Through its own stack; the regions it attends to have seen the other text."""
    model, batch = build(pretrainer()).eval(), pretraining_batch()
    before = model(batch)[kfg.G_LOGITS]
    changed = batch[kfg.G_TOKENS_IDS].clone()
    changed[:, 2] = (changed[:, 2] + 1) % VOCAB
    after = model({**batch, kfg.G_TOKENS_IDS: changed})[kfg.G_LOGITS]
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2:], before[:, 2:])
    other = model({**batch, kfg.U_TOKENS_IDS: changed})[kfg.G_LOGITS]
    assert not torch.allclose(other[:, 0], before[:, 0])


def test_texts_go_through_the_layers_together_or_apart(monkeypatch):
    from xmodaler.modeling.encoder import two_stream_bert_encoder

    model, batch = build(pretrainer()).eval(), pretraining_batch()
    together = model(batch)
    monkeypatch.setattr(two_stream_bert_encoder, "_fit_together", lambda *streams: False)
    apart = model(batch)
    for key in (kfg.U_LOGITS, kfg.G_LOGITS):
        torch.testing.assert_close(together[key], apart[key])


def test_layers_left_out_repeat_their_input(monkeypatch):
    cfg = pretrainer(LAYER_DROP=0.5, V_LAYER_DROP=0.5, U_LAYER_DROP=0.5)
    model = build(cfg).train()
    draws = iter([0.9, 0.1] * 4)  # of regions, both texts, understanding: the second is left out
    monkeypatch.setattr("random.random", lambda: next(draws))
    outputs = model(pretraining_batch())
    for key in (kfg.U_TOKEN_EMBED, kfg.G_TOKEN_EMBED, kfg.U_HIDDEN_STATES, kfg.ATT_FEATS):
        first, second = outputs[key]
        torch.testing.assert_close(first, second, atol=0, rtol=0)
    with pytest.raises(StopIteration):
        next(draws)
    model.eval()(pretraining_batch())  # draws nothing


@pytest.mark.parametrize("choices", [1, 4])
def test_pictures_are_given_once_or_once_per_text(choices):
    model = build(answerer()).eval()
    once = {**pictures(), **texts(4 * choices)}
    names = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS)
    repeated = {k: v.repeat_interleave(choices, 0) if k in names else v for k, v in once.items()}
    one, other = model(once), model(repeated)
    for key in (kfg.U_LOGITS, kfg.G_LOGITS, kfg.OUTPUT):
        torch.testing.assert_close(one[key], other[key])
    # In training, padding is left out.
    scored = model.train()(once)
    for key in (kfg.U_LOGITS, kfg.G_LOGITS):
        torch.testing.assert_close(scored[key], one[key], atol=1e-5, rtol=1e-4)
    assert kfg.OUTPUT not in scored


@pytest.mark.parametrize("layers", [(2, 2, 2, 2), (2, 2, 2, 0), (2, 2, 0, 2)])
def test_answers_are_labels_whatever_stacks_there_are(layers):
    outputs = build(answerer(layers=layers)).eval()({**pictures(), **texts()})
    assert outputs[kfg.OUTPUT].shape == (4,) and outputs[kfg.OUTPUT].dtype == torch.int64
    both = [outputs[key].softmax(-1) for key in (kfg.U_LOGITS, kfg.G_LOGITS) if key in outputs]
    assert len(both) == (layers[2] > 0) + (layers[3] > 0)
    assert torch.equal(outputs[kfg.OUTPUT], sum(both).argmax(-1))


def test_one_label_is_a_score():
    outputs = build(answerer(labels=1, layers=(2, 2, 2, 0))).eval()({**pictures(), **texts()})
    torch.testing.assert_close(outputs[kfg.OUTPUT], outputs[kfg.U_LOGITS])
    assert outputs[kfg.OUTPUT].shape == (4, 1)


def test_vectors_come_from_each_side_alone():
    model = build(retriever()).eval()
    images, captions = model({**pictures(), **texts(8)})[kfg.OUTPUT]
    assert images.shape == (4, 12) and captions.shape == (8, 12)
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(model.encode_images(pictures()), images)
    torch.testing.assert_close(model.encode_texts(texts(8)), captions)
    similarities = model.train()({**pictures(), **texts(8)})[kfg.OUTPUT]
    torch.testing.assert_close(similarities, captions @ images.t(), atol=1e-5, rtol=1e-4)


def captions_batch(groups):
    batch = pictures()
    rows = 4 * groups
    torch.manual_seed(4)
    words = torch.randint(1, VOCAB, (rows, WORDS))
    targets = torch.randint(1, VOCAB, (rows, WORDS))
    targets[1::2, 4:] = -1
    batch[kfg.G_TOKENS_IDS], batch[kfg.G_TARGET_IDS] = words, targets
    batch[kfg.G_TOKENS_TYPE] = torch.ones_like(words)
    return batch


@pytest.mark.parametrize("groups", [1, 3])
def test_words_step_by_step_are_those_at_once(groups):
    model, batch = build(captioner()).eval(), captions_batch(groups)
    with torch.no_grad():
        expected = model(batch)[kfg.G_LOGITS]
        state = model.start(pictures() | {kfg.G_TOKENS_TYPE: torch.ones(4, WORDS).long()})
        index = torch.arange(4).repeat_interleave(groups)
        from xmodaler.functional.trees import reorder

        state = {**state, "rows": reorder(state["rows"], index)}
        for step, words in enumerate(batch[kfg.G_TOKENS_IDS].unbind(1)):
            logits, state = model.step(words, state)
            torch.testing.assert_close(logits, expected[:, step], atol=1e-5, rtol=1e-4)


def test_training_a_captioner_leaves_out_what_has_no_target():
    cfg, batch = captioner(), captions_batch(2)
    model = build(cfg)
    expected = gradients(model, total(cfg, model.eval()(batch)))
    batch[kfg.SS_PROB] = 1.0  # has no effect
    outputs = model.train()(batch)
    assert_same(gradients(model, total(cfg, outputs)), expected)


def test_sampling_can_be_learned_from():
    model, batch = build(captioner()).train(), pictures()
    batch |= {kfg.G_TOKENS_TYPE: torch.ones(4, WORDS).long(), kfg.DECODE_BY_SAMPLE: True}
    outputs = model({**batch, "SAMPLES_PER_IMAGE": 2}, use_beam_search=False)
    assert outputs[kfg.G_SENTS_IDS].shape == (8, WORDS)
    found = gradients(model, outputs[kfg.G_LOGP].sum())
    assert all(value is not None for value in found.values())


def test_beams_return_the_best_first():
    model, batch = build(captioner()).eval(), pictures()
    batch[kfg.G_TOKENS_TYPE] = torch.ones(4, WORDS).long()
    with torch.no_grad():
        best = model({**batch, "OUT_SIZE": 3}, use_beam_search=True)
        scores = best[kfg.G_LOGP].sum(-1)
        assert (scores[:, :-1] >= scores[:, 1:]).all()
        # Each is scored as teacher forcing scores it.
        ids = best[kfg.G_SENTS_IDS][:, 0]
        end = model.beam_searcher.eos_token_id
        given = torch.cat([torch.full((4, 1), model.beam_searcher.bos_token_id), ids[:, :-1]], 1)
        outputs = model({**batch, kfg.G_TOKENS_IDS: given})
        log_probs = outputs[kfg.G_LOGITS].log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        real = ((ids == end).cumsum(1) - (ids == end).long()) == 0
        torch.testing.assert_close((log_probs * real).sum(1), scores[:, 0], atol=1e-4, rtol=1e-4)


def test_sentences_are_not_generated_through_understanding_layers():
    model = build(pretrainer()).eval()
    with pytest.raises(UserError, match="NUM_UNDERSTANDING_LAYERS"):
        model(pictures(), use_beam_search=False)


def test_masks_that_do_not_fit_are_refused():
    batch = {**pictures(), **texts(), kfg.TOKENS_MASKS: torch.ones(4, WORDS + 1).bool()}
    with pytest.raises(UserError, match="TOKENS_MASKS"):
        build(answerer())(batch)
    batch = {**pictures(), **texts(6)}
    with pytest.raises(UserError, match="do not divide"):
        build(answerer())(batch)


def test_training_from_scratch_may_start_like_bert():
    cfg = pretrainer(INIT_STD=0.02)
    model = build(cfg)
    assert model.token_embed.embeddings.weight.abs().max() <= 0.04
    assert (model.predictor.decoder.bias == 0).all()
    assert isinstance(model.predictor.bias, nn.Parameter)
    assert model.predictor.bias is model.predictor.decoder.bias


def test_weights_are_learned():
    """A few steps on one batch bring every loss down."""
    cfg, batch = pretrainer(INIT_STD=0.1), pretraining_batch()
    model = build(cfg).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    (loss,) = build_losses(cfg)
    first = {name: value.item() for name, value in loss(model(batch)).items()}
    for _ in range(60):
        optimizer.zero_grad()
        sum(loss(model(batch)).values()).backward()
        optimizer.step()
    last = loss(model(batch))
    assert len(first) == 4
    for name, value in last.items():
        assert value.item() < 0.6 * first[name] + 0.05, name
