"""Text models that Hugging Face transformers saved, as weights of this package's models."""

import json
import logging

import pytest
import torch

from xmodaler.checkpoint import XmodalerCheckpointer, load_weights, transformers_weights
from xmodaler.config import get_cfg, kfg
from xmodaler.modeling import add_config, build_model
from xmodaler.utils.errors import UserError
from xmodaler.utils.hub import NotOnHubError

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 41,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}


@pytest.fixture(scope="module", params=["safetensors", "bin"])
def bert(request, tmp_path_factory):
    """A random BERT with both pre-training heads, and the folder it was saved to."""
    torch.manual_seed(0)
    model = transformers.BertForPreTraining(transformers.BertConfig(**SIZES)).eval()
    for parameter in model.parameters():  # also biases and norms, which begin at 0 and 1
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("bert")
    if request.param == "safetensors":
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model, folder


def pretrain_model(positions=20, types=3):
    cfg = get_cfg()
    model = cfg.MODEL
    model.META_ARCHITECTURE, model.ENCODER = "UniterPretrain", "SingleStreamBertEncoder"
    model.PREDICTOR, model.DEVICE, model.MAX_SEQ_LEN = "BertPredictionHead", "cpu", 12
    model.VOCAB_SIZE, model.TOKEN_EMBED.NAME = SIZES["vocab_size"], "TokenBaseEmbedding"
    model.VISUAL_EMBED.NAME, model.VISUAL_EMBED.IN_DIM = "VisualBaseEmbedding", 6
    model.TOKEN_EMBED.DIM = model.VISUAL_EMBED.OUT_DIM = model.BERT.HIDDEN_SIZE = 16
    model.TOKEN_EMBED.USE_NORM, model.TOKEN_EMBED.TYPE_VOCAB_SIZE = True, types
    model.TOKEN_EMBED.POSITION, model.TOKEN_EMBED.POSITION_MAX_LEN = (
        "NNEmbeddingEncoding",
        positions,
    )
    model.BERT.NUM_ATTENTION_HEADS, model.BERT.INTERMEDIATE_SIZE = 4, 24
    model.BERT.NUM_HIDDEN_LAYERS, cfg.DECODE_STRATEGY.NAME = 3, ""
    add_config(cfg, cfg)
    model.ITM_PREDICTOR = "BertIsMatchedPredictor"
    model.PRETRAIN_TASKS, model.PRETRAIN_TASKS_MIX_RATIO = ["itm", "mlm"], [1, 1]
    torch.manual_seed(1)
    built = build_model(cfg).eval()
    # BERT's norms all have this epsilon; models here have torch's own in embeddings.
    built.token_embed.embeddings_norm.eps = 1e-12
    return built


def words(rows=3, length=9):
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, SIZES["vocab_size"], (rows, length), generator=generator)
    shown = torch.arange(length) < torch.tensor([[9], [5], [7]])
    return tokens, (torch.arange(length) > 3).long().expand(rows, length), shown


@torch.no_grad()
def run(model):
    """Words alone through the text side: states (R, T, D), word logits, pooled (R, D)."""
    tokens, types, shown = words()
    x = model.token_embed.embed(tokens, types)
    mask = torch.zeros(shown.shape).masked_fill(~shown, -1e4)[:, None, None]
    for layer in model.encoder.layers:
        x, _ = layer(x, mask)
    logits = model.predictor({kfg.U_HIDDEN_STATES: x})[kfg.U_LOGITS]
    return x, logits, model.itm_predictor.pooler(x)


@torch.no_grad()
def run_reference(model):
    tokens, types, shown = words()
    given = {"input_ids": tokens, "token_type_ids": types, "attention_mask": shown.long()}
    core = model.bert(**given)
    return core.last_hidden_state, model(**given).prediction_logits, core.pooler_output


@pytest.mark.parametrize("prefix", ["", "transformers:"])
def test_same_numbers_as_transformers(bert, prefix):
    reference, folder = bert
    model = pretrain_model()
    XmodalerCheckpointer(model).load(f"{prefix}{folder}")
    shown = words()[2]
    states, logits, pooled = run(model)
    expected_states, expected_logits, expected_pooled = run_reference(reference)
    torch.testing.assert_close(states[shown], expected_states[shown], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[shown], expected_logits[shown], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, expected_pooled, atol=1e-5, rtol=1e-5)


def test_a_file_is_recognised_by_its_names(bert):
    _, folder = bert
    file = next(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    state = load_weights(file)
    assert "encoder.layers.2.attention.self.query.weight" in state
    assert torch.equal(state["predictor.decoder.weight"], state["token_embed.embeddings.weight"])
    assert not any("seq_relationship" in key or "bert" in key for key in state)


def test_old_names_and_a_model_without_heads(tmp_path):
    torch.manual_seed(0)
    core = transformers.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False)
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in core.state_dict().items()
    }
    torch.save(old, tmp_path / "old.bin")
    state = load_weights(tmp_path / "old.bin")
    assert not any(key.startswith("predictor") for key in state)
    assert "token_embed.embeddings_norm.weight" in state
    own = pretrain_model().state_dict()
    assert state.keys() <= own.keys()


def test_tables_of_other_lengths_are_filled_as_far_as_they_go(bert, caplog):
    reference, folder = bert
    model = pretrain_model(positions=12, types=3)
    own_third = model.token_embed.embeddings_token_type.weight[2].clone()
    with caplog.at_level(logging.INFO):
        XmodalerCheckpointer(model).load(str(folder))
    embeddings = reference.bert.embeddings
    types = model.token_embed.embeddings_token_type.weight
    assert torch.equal(types[:2], embeddings.token_type_embeddings.weight)
    assert torch.equal(types[2], own_third)
    positions = model.token_embed.embeddings_pos.position_embeddings.weight
    assert torch.equal(positions, embeddings.position_embeddings.weight[:12])
    # The report: all but the visual embedding and the matching score were there.
    assert "visual_embed.embeddings.weight" in caplog.text
    assert "is_match_cls" in caplog.text
    assert "reshaped" not in caplog.text and "encoder.layers" not in caplog.text


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    model = pretrain_model()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match=r"'gpt2'.*bert"):
        XmodalerCheckpointer(model).load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match=r"model\.safetensors"):
        XmodalerCheckpointer(model).load(str(tmp_path))

    def unreachable(name, patterns):
        raise NotOnHubError("no network")

    monkeypatch.setattr(transformers_weights, "hub_files", unreachable)
    with pytest.raises(UserError, match=r"not-a-model.*Hugging Face hub"):
        XmodalerCheckpointer(model).load("transformers:not-a-model")


def test_weights_in_several_files(bert, tmp_path):
    reference, _ = bert
    reference.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = pretrain_model()
    XmodalerCheckpointer(model).load(str(tmp_path))
    shown = words()[2]
    expected = run_reference(reference)[0]
    torch.testing.assert_close(run(model)[0][shown], expected[shown], atol=1e-5, rtol=1e-5)
