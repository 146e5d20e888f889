"""Single layers, heads and embeddings of TDEN give what the reference's give."""

from types import SimpleNamespace

import pytest
import torch

from xmodaler.config import kfg

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


class Layers(SimpleNamespace):
    """Inputs, weights and expected values of single modules, by case."""

    def of(self, what, case):
        return {
            key.removeprefix(f"{case}/"): value
            for key, value in getattr(self, what).items()
            if key == case or key.startswith(f"{case}/")
        }


@pytest.fixture(scope="module")
def layers(vlp_shared):
    from safetensors.torch import load_file

    folder = vlp_shared / "layers"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    names = ("inputs", "weights", "expected")
    return Layers(**{name: load_file(str(folder / f"{name}.safetensors")) for name in names})


def built(layer, layers, case):
    """A module in eval mode with the weights of a case."""
    layer.load_state_dict(layers.of("weights", case))
    return layer.eval()


@pytest.fixture(scope="module")
def sizes(layers):
    """A config of the widths of the single modules."""
    from xmodaler.config import get_cfg

    cfg, weights = get_cfg(), layers.weights
    inner, width = weights["bert_layer/intermediate.dense.weight"].shape
    bert = cfg.MODEL.BERT
    bert.INTERMEDIATE_SIZE, bert.HIDDEN_SIZE = inner, width
    bert.NUM_ATTENTION_HEADS = 4
    cfg.MODEL.TOKEN_EMBED.DIM = cfg.MODEL.VISUAL_EMBED.OUT_DIM = width
    cfg.MODEL.VOCAB_SIZE = weights["prediction_head/bias"].shape[0]
    bert.V_TARGET_SIZE = weights["visual_prediction_head/decoder.bias"].shape[0]
    return cfg


def test_bert_layers(layers, sizes):
    from xmodaler.modeling.layers.bert import BertLayer, BertPooler

    for case in ("bert_layer", "bert_layer_history"):
        given = layers.of("inputs", case)
        layer = built(BertLayer(sizes), layers, case)
        value, _ = layer(given["hidden"], given["mask"], given.get("history"))
        torch.testing.assert_close(value, layers.expected[case], **CLOSE)
    pooler = built(BertPooler(sizes), layers, "bert_pooler")
    value = pooler(layers.inputs["bert_pooler/hidden"])
    torch.testing.assert_close(value, layers.expected["bert_pooler"], **CLOSE)


def test_layers_of_the_decoder(layers, sizes):
    from xmodaler.modeling.layers.bert import BertGenerationLayer, BertUnderstandingLayer

    given = layers.of("inputs", "understanding_layer")
    layer = built(BertUnderstandingLayer(sizes), layers, "understanding_layer")
    v, t = layer(given["v"], given["v_mask"], given["t"], given["t_mask"])
    torch.testing.assert_close(v, layers.expected["understanding_layer/v"], **CLOSE)
    torch.testing.assert_close(t, layers.expected["understanding_layer/t"], **CLOSE)
    given = layers.of("inputs", "generation_layer")
    layer = built(BertGenerationLayer(sizes), layers, "generation_layer")
    value = layer(given["t"], given["v"], given["t_mask"], given["v_mask"])
    torch.testing.assert_close(value, layers.expected["generation_layer"], **CLOSE)


def test_the_whole_decoder(layers, sizes):
    from xmodaler.modeling.decoder import DecoupleBertDecoder

    cfg = sizes.clone()
    bert = cfg.MODEL.BERT
    bert.NUM_UNDERSTANDING_LAYERS = bert.NUM_GENERATION_LAYERS = 2
    decoder = built(DecoupleBertDecoder(cfg), layers, "decoder_both")
    given = layers.of("inputs", "decoder_both")
    outputs = decoder(
        {
            kfg.ATT_FEATS: [given["v"]],
            kfg.EXT_ATT_MASKS: given["v_mask"],
            kfg.U_TOKEN_EMBED: [given["t_u"]],
            kfg.G_TOKEN_EMBED: given["t_g"],
            kfg.EXT_U_TOKENS_MASKS: given["t_mask"],
            kfg.EXT_G_TOKENS_MASKS: given["g_mask"],
        }
    )
    for key, expected in layers.of("expected", "decoder_both").items():
        name, layer = key.split("/")
        torch.testing.assert_close(outputs[name][int(layer)], expected, **CLOSE)


def test_heads(layers, sizes):
    from xmodaler.modeling.predictor import BertPredictionHead, BertVisualPredictionHead

    for head, case, states, logits in (
        (BertPredictionHead, "prediction_head", kfg.U_HIDDEN_STATES, kfg.U_LOGITS),
        (BertVisualPredictionHead, "visual_prediction_head", kfg.ATT_FEATS, kfg.V_LOGITS),
    ):
        module = built(head(sizes), layers, case)
        value = module({states: [layers.inputs[f"{case}/hidden"]]})[logits]
        torch.testing.assert_close(value, layers.expected[case], **CLOSE)


@pytest.mark.parametrize("normalised", [False, True])
def test_attention_pooler(layers, normalised):
    from xmodaler.modeling.layers.attention_pooler import AttentionPooler

    case = f"attention_pooler_bn{int(normalised)}"
    given, expected = layers.of("inputs", case), layers.of("expected", case)
    size, width = layers.weights[f"{case}/embed.weight"].shape
    pooler = AttentionPooler(hidden_size=width, output_size=size, dropout=0.0, use_bn=normalised)
    built(pooler, layers, case)
    torch.testing.assert_close(pooler(**given_pooler(given)), expected["eval"], **CLOSE)
    value = pooler.train()(**given_pooler(given))
    torch.testing.assert_close(value, expected["train"], atol=1e-4, rtol=1e-4)


def given_pooler(given):
    return {"hidden_states": given["hidden"], "masks": given["mask"]}


def test_layer_drop(layers, sizes, monkeypatch):
    from xmodaler.modeling.encoder import TwoStreamBertEncoder

    cfg = without_probabilities(sizes.clone())
    bert = cfg.MODEL.BERT
    expected, given = layers.of("expected", "layer_drop"), layers.of("inputs", "layer_drop")
    bert.NUM_HIDDEN_LAYERS = sum(key.startswith("t/") for key in expected)
    bert.V_NUM_HIDDEN_LAYERS = sum(key.startswith("v/") for key in expected)
    bert.LAYER_DROP = bert.V_LAYER_DROP = 0.5
    encoder = built(TwoStreamBertEncoder(cfg), layers, "layer_drop").train()
    draws = iter(given["draws"].tolist())
    monkeypatch.setattr("random.random", lambda: next(draws))
    batch = {
        kfg.ATT_FEATS: given["v"],
        kfg.EXT_ATT_MASKS: given["v_mask"],
        kfg.U_TOKEN_EMBED: given["t"],
        kfg.EXT_U_TOKENS_MASKS: given["t_mask"],
    }
    outputs = {**encoder(batch, mode="v"), **encoder(batch, mode="t")}
    for key, value in expected.items():
        stream, layer = key.split("/")
        name = kfg.ATT_FEATS if stream == "v" else kfg.U_TOKEN_EMBED
        torch.testing.assert_close(outputs[name][int(layer)], value, **CLOSE)


def without_probabilities(cfg):
    bert = cfg.MODEL.BERT
    for key in ("HIDDEN_DROPOUT_PROB", "INTERMEDIATE_DROP", "FFN_DROPOUT_PROB"):
        bert[key] = 0.0
    bert.ATTENTION_PROBS_DROPOUT_PROB = 0.0
    return cfg


def test_embeddings(layers):
    from xmodaler.config import get_cfg
    from xmodaler.modeling.embedding import TokenBaseEmbedding, VisualBaseEmbedding

    cfg = get_cfg()
    cfg.MODEL.VOCAB_SIZE, width = layers.weights["token_embedding/embeddings.weight"].shape
    node = cfg.MODEL.TOKEN_EMBED
    node.DIM, node.USE_NORM, node.TYPE_VOCAB_SIZE = width, True, 3
    node.POSITION = "NNEmbeddingEncoding"
    name = "token_embedding/embeddings_pos.position_embeddings.weight"
    node.POSITION_MAX_LEN = layers.weights[name].shape[0]
    token = built(TokenBaseEmbedding(cfg), layers, "token_embedding")
    given, expected = (
        layers.of("inputs", "token_embedding"),
        layers.of("expected", "token_embedding"),
    )
    torch.testing.assert_close(token.embed(given["ids"]), expected["no_type"], **CLOSE)
    typed = token.embed(given["ids"], given["type"])
    torch.testing.assert_close(typed, expected["with_type"], **CLOSE)
    step = token.embed(given["ids"][:, 3], given["type"], 3)
    torch.testing.assert_close(step, expected["step3"], **CLOSE)
    node = cfg.MODEL.VISUAL_EMBED
    node.OUT_DIM, node.IN_DIM = layers.weights["visual_embedding/embeddings.weight"].shape
    node.USE_NORM, node.LOCATION_SIZE = True, 5
    visual = built(VisualBaseEmbedding(cfg), layers, "visual_embedding")
    given = layers.of("inputs", "visual_embedding")
    batch = {kfg.ATT_FEATS: given["feats"]}
    for name, extra in (("no_loc", {}), ("with_loc", {kfg.ATT_FEATS_LOC: given["loc"]})):
        value = visual({**batch, **extra})[kfg.ATT_FEATS]
        torch.testing.assert_close(value, layers.expected[f"visual_embedding/{name}"], **CLOSE)


def test_gelu(layers):
    from xmodaler.modeling.layers.create_act import get_activation

    value = get_activation("gelu")(layers.inputs["gelu/x"])
    torch.testing.assert_close(value, layers.expected["gelu"], **CLOSE)
