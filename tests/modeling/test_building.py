"""From a config, or from explicit keywords, to a model."""

import pytest
import torch
from torch import nn

from xmodaler.config import CfgNode, get_cfg, kfg
from xmodaler.losses import CrossEntropy
from xmodaler.modeling import add_config, build_model
from xmodaler.modeling.attention import (
    ATTENTION_REGISTRY,
    AdditiveAttention,
    MultiHeadQueryAttention,
)
from xmodaler.modeling.decoder import (
    DECODER_REGISTRY,
    Decoder,
    TransformerDecoder,
    UpDownDecoder,
)
from xmodaler.modeling.embedding import (
    EMBEDDING_REGISTRY,
    TokenBaseEmbedding,
    VisualBaseEmbedding,
    VisualGridEmbedding,
    VisualIdentityEmbedding,
)
from xmodaler.modeling.encoder import (
    ENCODER_REGISTRY,
    Encoder,
    GTransformerEncoder,
    TransformerEncoder,
    UpDownEncoder,
)
from xmodaler.modeling.layers.bert import (
    BertAttention,
    BertCrossAttention,
    BertGenerationLayer,
    BertIntermediate,
    BertLayer,
    BertOutput,
    BertSelfAttention,
    BertSelfOutput,
    BertXAttention,
)
from xmodaler.modeling.meta_arch import (
    META_ARCH_REGISTRY,
    RnnAttEncoderDecoder,
    TransformerEncoderDecoder,
    resolve_device,
)
from xmodaler.modeling.predictor import PREDICTOR_REGISTRY, BasePredictor
from xmodaler.utils.errors import UserError


def attention(size=16):
    return BertAttention(
        bert_self_attention=BertSelfAttention(
            hidden_size=size, num_attention_heads=4, attention_probs_dropout_prob=0.1
        ),
        bert_self_output=self_output(size),
    )


def self_output(size):
    return BertSelfOutput(hidden_size=size, layer_norm_eps=1e-12, hidden_dropout_prob=0.1)


def feed_forward(size):
    return {
        "bert_intermediate": BertIntermediate(
            hidden_size=size, hidden_act="gelu", intermediate_size=24, intermediate_drop=0.1
        ),
        "bert_output": BertOutput(
            hidden_size=size, intermediate_size=24, layer_norm_eps=1e-12, ffn_dropout_prob=0.1
        ),
    }


def encoder_layers(size=16):
    layers = [BertLayer(bert_attention=attention(size), **feed_forward(size)) for _ in range(2)]
    return nn.ModuleList(layers)


def generation_layers(size=16):
    cross = [
        BertCrossAttention(
            bert_cross_attention=BertXAttention(
                hidden_size=size, num_attention_heads=4, attention_probs_dropout_prob=0.1
            ),
            bert_self_output=self_output(size),
        )
        for _ in range(2)
    ]
    layers = [
        BertGenerationLayer(
            bert_attention=attention(size), bert_cross_attention=part, **feed_forward(size)
        )
        for part in cross
    ]
    return nn.ModuleList(layers)


def explicit_updown():
    return RnnAttEncoderDecoder(
        vocab_size=23,
        max_seq_len=7,
        token_embed=TokenBaseEmbedding(dim=12, vocab_size=23, embeddings_act=nn.ReLU()),
        visual_embed=VisualBaseEmbedding(in_dim=10, out_dim=16, embeddings_dropout=nn.Dropout(0.5)),
        encoder=UpDownEncoder(),
        decoder=UpDownDecoder(
            hidden_size=20,
            token_embed_dim=12,
            visual_embed_dim=16,
            att_embed_size=8,
            dropout1=0.1,
            dropout2=0.1,
            att_embed_dropout=0.1,
        ),
        predictor=BasePredictor(hidden_size=20, vocab_size=23, dropout=0.5),
        greedy_decoder=None,
        beam_searcher=None,
    )


def explicit_transformer(grid=False):
    embed, encoder = VisualBaseEmbedding(in_dim=10, out_dim=16), TransformerEncoder
    if grid:
        position = nn.Parameter(torch.zeros(1, 6, 16))
        embed = VisualGridEmbedding(in_dim=10, g_in_dim=9, out_dim=16, embeddings_pos=position)
    kwargs = {"hidden_size": 16} if grid else {}
    encoder = GTransformerEncoder if grid else TransformerEncoder
    return TransformerEncoderDecoder(
        vocab_size=23,
        max_seq_len=7,
        token_embed=TokenBaseEmbedding(dim=16, vocab_size=23, embeddings_norm=nn.LayerNorm(16)),
        visual_embed=embed,
        encoder=encoder(num_hidden_layers=2, bert_layers=encoder_layers(), **kwargs),
        decoder=TransformerDecoder(
            num_generation_layers=2, bert_generation_layers=generation_layers()
        ),
        predictor=BasePredictor(hidden_size=16, vocab_size=23, dropout=0.0),
        v_predictor=None,
    )


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (explicit_updown, "updown"),
        (explicit_transformer, "transformer"),
        (lambda: explicit_transformer(grid=True), "grid"),
    ],
)
def test_explicit_keywords_equal_a_config(tiny, build, kind):
    explicit, configured = build(), tiny.model(kind)
    state = configured.state_dict()
    pe = state.pop("token_embed.embeddings_pos.pe", None)
    norms = [name for name in state if name.startswith("visual_embed.embeddings_norm")]
    if pe is not None:
        configured.token_embed.embeddings_pos = None
    if norms:
        configured.visual_embed.embeddings_norm = None
    if kind == "updown":
        configured.token_embed.embeddings_act = nn.ReLU()
        explicit.visual_embed.embeddings_act = nn.ReLU()
    else:
        explicit.visual_embed.embeddings_act = nn.ReLU()
    explicit.load_state_dict(configured.state_dict())
    batch = tiny.batch(global_dim=9 if kind == "grid" else None)
    with torch.no_grad():
        one = explicit.eval()(batch)[kfg.G_LOGITS]
        torch.testing.assert_close(one, configured.eval()(batch)[kfg.G_LOGITS])
    with pytest.raises(UserError, match="cannot generate"):
        explicit(batch, use_beam_search=True)


def test_same_seed_same_weights(tiny):
    one, other = tiny.model("transformer", seed=5), tiny.model("transformer", seed=5)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_registries_hold_the_documented_names():
    assert {"RnnAttEncoderDecoder", "TransformerEncoderDecoder"} <= set(dict(META_ARCH_REGISTRY))
    assert {"Encoder", "UpDownEncoder", "TransformerEncoder", "GTransformerEncoder"} <= set(
        dict(ENCODER_REGISTRY)
    )
    assert {"UpDownDecoder", "TransformerDecoder"} <= set(dict(DECODER_REGISTRY))
    assert "BasePredictor" in PREDICTOR_REGISTRY
    assert {"AdditiveAttention", "MultiHeadQueryAttention"} <= set(dict(ATTENTION_REGISTRY))
    assert {"TokenBaseEmbedding", "VisualGridEmbedding", "TimmEmbedding"} <= set(
        dict(EMBEDDING_REGISTRY)
    )


def test_keys_are_created_by_the_classes_that_are_named():
    cfg = get_cfg()
    file = CfgNode({"MODEL": {"META_ARCHITECTURE": "RnnAttEncoderDecoder"}})
    file.MODEL.update({"ENCODER": "", "DECODER": "UpDownDecoder", "PREDICTOR": "BasePredictor"})
    add_config(cfg, file)
    assert dict(cfg.MODEL.UPDOWN) == {
        "ATT_EMBED_SIZE": 512,
        "DROPOUT1": 0.0,
        "DROPOUT2": 0.0,
        "ATT_EMBED_DROPOUT": 0.0,
    }
    assert "TIMM" not in cfg.MODEL and "MULTIHEAD_ATTENTION" not in cfg.MODEL
    file.MODEL.update({"ATTENTION": "MultiHeadQueryAttention", "ENCODER": "GTransformerEncoder"})
    file.MODEL.VISUAL_EMBED = CfgNode({"NAME": "TimmEmbedding"})
    add_config(cfg, file)
    assert cfg.MODEL.MULTIHEAD_ATTENTION.NUM_HEADS == 8
    assert cfg.MODEL.TIMM.MODEL_NAME == "resnet18"
    assert cfg.MODEL.COSNET.NUM_CLASSES == 906


@pytest.mark.parametrize("name", ["AdditiveAttention", "MultiHeadQueryAttention"])
def test_attention_is_switched_by_config_and_learns(tiny, name):
    model = tiny.model("updown", MODEL__ATTENTION=name)
    expected = {"AdditiveAttention": AdditiveAttention, "MultiHeadQueryAttention": None}[name]
    assert isinstance(model.decoder.att, expected or MultiHeadQueryAttention)
    batch, optimizer = tiny.batch(), torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        (loss,) = CrossEntropy()(model.train()(batch)).values()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.decoder.att.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_ones_own_attention(tiny):
    """A mean over regions, written as a user would."""

    class MeanAttention(nn.Module):
        def __init__(self, cfg, query_dim, memory_dim, embed_dim, dropout):
            super().__init__()

        def memory_projection(self):
            return nn.Identity()

        def precompute(self, memory, mask, projected):
            return {"memory": memory}

        def forward(self, query, memory, need_weights=False):
            mean = memory["memory"].mean(1)
            return mean.repeat_interleave(len(query) // len(mean), dim=0), None

    ATTENTION_REGISTRY.register(MeanAttention)
    try:
        model = tiny.model("updown", MODEL__ATTENTION="MeanAttention")
        model(tiny.batch())[kfg.G_LOGITS].sum().backward()
        assert model.eval()(tiny.batch(), use_beam_search=False)[kfg.G_SENTS_IDS].shape == (3, 7)
    finally:
        del ATTENTION_REGISTRY._objects["MeanAttention"]


def test_a_decoder_of_ones_own_that_knows_nothing_of_groups(tiny):
    """A decoder in the documented style reads one visual row per text row."""

    class PlainDecoder(Decoder):
        def __init__(self, cfg):
            super().__init__()
            self.num_layers, self.hidden_size = 1, cfg.MODEL.DECODER_DIM
            self.cell = nn.LSTMCell(
                cfg.MODEL.TOKEN_EMBED.DIM + cfg.MODEL.VISUAL_EMBED.OUT_DIM, self.hidden_size
            )

        def preprocess(self, batched_inputs):
            return self.init_states(batched_inputs[kfg.ATT_FEATS].shape[0])

        def forward(self, batched_inputs):
            feats, masks = batched_inputs[kfg.ATT_FEATS], batched_inputs[kfg.ATT_MASKS]
            mean = (feats * masks[..., None]).sum(1) / masks.sum(1, keepdim=True)
            x = torch.cat([batched_inputs[kfg.G_TOKEN_EMBED], mean], dim=-1)
            h, c = batched_inputs[kfg.G_HIDDEN_STATES][0], batched_inputs[kfg.G_CELL_STATES][0]
            h, c = self.cell(x, (h, c))
            return {kfg.G_HIDDEN_STATES: [h], kfg.G_CELL_STATES: [c]}

    DECODER_REGISTRY.register(PlainDecoder)
    try:
        cfg = tiny.cfg("updown")
        cfg.MODEL.DECODER = "PlainDecoder"
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        batch = tiny.batch()
        repeated = {
            key: value.repeat_interleave(2, dim=0) if key.startswith("ATT_") else value
            for key, value in batch.items()
        }
        grouped = model(batch)[kfg.G_LOGITS]
        torch.testing.assert_close(grouped, model(repeated)[kfg.G_LOGITS])
        assert model(batch, use_beam_search=True)[kfg.G_SENTS_IDS].shape[0] == 3
    finally:
        del DECODER_REGISTRY._objects["PlainDecoder"]


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("updown", {"MODEL__META_ARCHITECTURE": ""}, "MODEL.META_ARCHITECTURE is empty"),
        ("updown", {"MODEL__VISUAL_EMBED__NAME": ""}, "MODEL.VISUAL_EMBED.NAME is empty"),
        ("updown", {"MODEL__TOKEN_EMBED__NAME": ""}, "MODEL.TOKEN_EMBED.NAME is empty"),
        ("updown", {"MODEL__DECODER": "UpDwnDecoder"}, "did you mean 'UpDownDecoder'"),
        ("updown", {"MODEL__DEVICE": "gpu"}, "MODEL.DEVICE 'gpu'"),
        ("updown", {"MODEL__TOKEN_EMBED__ACTIVATION": "rellu"}, "did you mean 'relu'"),
        ("transformer", {"MODEL__BERT__NUM_ATTENTION_HEADS": 3}, "3 attention heads"),
        ("transformer", {"MODEL__TOKEN_EMBED__DIM": 12}, "MODEL.TOKEN_EMBED.DIM"),
        ("transformer", {"MODEL__VISUAL_EMBED__OUT_DIM": 12}, "MODEL.VISUAL_EMBED.OUT_DIM"),
        ("transformer", {"MODEL__DECODER_DIM": 12}, "MODEL.DECODER_DIM"),
        ("transformer", {"MODEL__MAX_SEQ_LEN": 6000}, "POSITION_MAX_LEN"),
        ("transformer", {"MODEL__BERT__HIDDEN_ACT": "relux"}, "did you mean 'relu'"),
        ("grid", {"DATALOADER__MAX_FEAT_NUM": -1}, "DATALOADER.MAX_FEAT_NUM is -1"),
    ],
)
def test_mistakes_in_a_config_are_explained(tiny, kind, changes, message):
    with pytest.raises(UserError, match=message):
        tiny.model(kind, **changes)


def test_heads_that_do_not_divide_are_refused(tiny):
    cfg = tiny.cfg("updown", MODEL__ATTENTION="MultiHeadQueryAttention")
    cfg.MODEL.MULTIHEAD_ATTENTION.NUM_HEADS = 3
    with pytest.raises(UserError, match="3 attention heads"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop(kfg.ATT_FEATS), "ATT_FEATS"),
        (lambda b: b.update({kfg.ATT_FEATS: b[kfg.ATT_FEATS][..., :4]}), "width 4"),
        (lambda b: b.update({kfg.ATT_MASKS: b[kfg.ATT_MASKS][:, :2]}), "ATT_MASKS has shape"),
        (lambda b: b.update({kfg.G_TOKENS_IDS: b[kfg.G_TOKENS_IDS][:5]}), "5 text rows"),
        (lambda b: b.update({kfg.GLOBAL_FEATS: torch.zeros(3, 4)}), "GLOBAL_FEATS has width 4"),
    ],
)
def test_mistakes_in_a_batch_are_explained(tiny, change, message):
    batch = tiny.batch()
    change(batch)
    with pytest.raises(UserError, match=message):
        tiny.model("updown")(batch)


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no such device"):
            resolve_device("cuda")


def test_identity_embedding_and_no_encoder_steps(tiny):
    model = tiny.model(
        "updown",
        MODEL__VISUAL_EMBED__NAME="VisualIdentityEmbedding",
        MODEL__VISUAL_EMBED__OUT_DIM=10,
    )
    assert isinstance(model.visual_embed, VisualIdentityEmbedding)
    assert not list(model.visual_embed.parameters())
    assert Encoder()({}) == {}
    model(tiny.batch())[kfg.G_LOGITS].sum().backward()
