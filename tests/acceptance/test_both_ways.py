"""Parts are built from a config or from explicit arguments, with the same result."""

import importlib
import inspect

import pytest
import torch
from torch import nn

from xmodaler.config import get_cfg, kfg
from xmodaler.modeling import build_model

REGISTRIES = {
    "xmodaler.modeling.attention.build": "ATTENTION_REGISTRY",
    "xmodaler.modeling.decode_strategy.build": "DECODE_STRATEGY_REGISTRY",
    "xmodaler.modeling.decoder.build": "DECODER_REGISTRY",
    "xmodaler.modeling.embedding.build": "EMBEDDING_REGISTRY",
    "xmodaler.modeling.encoder.build": "ENCODER_REGISTRY",
    "xmodaler.modeling.meta_arch.build": "META_ARCH_REGISTRY",
    "xmodaler.modeling.predictor.build": "PREDICTOR_REGISTRY",
    "xmodaler.losses.build": "LOSSES_REGISTRY",
}


# What a decoder tells its attention, beside the config.
EXTRA = {"ATTENTION_REGISTRY": {"query_dim": 16, "memory_dim": 12, "embed_dim": 8, "dropout": 0.1}}


EXTRA_OF_PART = {"CoAttention": {"image_dim": 12, "text_dim": 16, "embed_dim": 8, "dropout": 0.1}}
# Settings of parts whose own sizes, or partners, must fit the others.
BILINEAR = {"DIM": 16, "HEAD": 4, "ENCODE": {"ATT_MID_DIM": [4, 2, 4]}}
BILINEAR["DECODE"] = BILINEAR["ENCODE"]
MESHED = {side: {"DIM_MODEL": 16, "NUM_ATT_HEAD": 4} for side in ("ENCODER", "DECODER")}
DEFORMABLE = {"ENCODER": {"HIDDEN_SIZE": 16}, "DECODER": {"HIDDEN_SIZE": 16}}
TOWERS = {
    "ENCODER": "TextFusionEncoder",
    "DECODER": "",
    "PREDICTOR": "",
    "VISUAL_EMBED": {"NAME": "VisionTowerEmbedding"},
    "VISION": {"WIDTH": 16, "LAYERS": 1, "HEADS": 2},
    "FUSION": {"LAYERS": 1, "MEMORY_WIDTH": 16},
    "X2VLM": {"EMBED_DIM": 8},
}
UNITER = {
    "ENCODER": "SingleStreamBertEncoder",
    "DECODER": "",
    "PREDICTOR": "BertPredictionHead",
    "ITM_PREDICTOR": "BertIsMatchedPredictor",
    "V_REGRESSOR": "BertVisualFeatureRegressionHead",
    "V_PREDICTOR": "BertVisualPredictionHead",
    "BERT": {"V_TARGET_SIZE": 5},
}
SIZES = {
    "CoAttentionBertEncoder": {"BERT": {"V_NUM_HIDDEN_LAYERS": 1, "NUM_UNDERSTANDING_LAYERS": 1}},
    "UniterPretrain": UNITER,
    "X2VLMPretrain": {**TOWERS, "PREDICTOR": "BertPredictionHead"},
    "X2VLMCaptioner": {**TOWERS, "PREDICTOR": "BertPredictionHead"},
    "X2VLMRetrieval": TOWERS,
    "X2VLMVQA": TOWERS,
    "X2VLMReasoning": TOWERS,
    "X2VLMGrounding": TOWERS,
    "X2VLMClassifier": TOWERS,
    "XLANDecoder": {"BILINEAR": BILINEAR},
    "LowRankBilinearEncoder": {"BILINEAR": BILINEAR},
    "MeshedDecoder": {"ENCODER": "MemoryAugmentedEncoder", "MESHEDMEORY": MESHED},
    "MemoryAugmentedEncoder": {"DECODER": "MeshedDecoder", "MESHEDMEORY": MESHED},
    "TDConvEDDecoder": {"ENCODER": "TDConvEDEncoder", "TDCONVED": DEFORMABLE},
    "TDConvEDEncoder": {"DECODER": "TDConvEDDecoder", "TDCONVED": DEFORMABLE},
    "GCNEncoder": {"GCN": {"IN_DIM": 16, "OUT_DIM": 16}},
    "TagEncoder": {"TAGS": {"ATTRIBUTE_NUM": 7}},
    "SemComphderLoss": {"ENCODER": "COSNetEncoder"},
}


def registered():
    found = []
    for module, name in REGISTRIES.items():
        importlib.import_module(module.rsplit(".", 1)[0])
        found += [
            pytest.param(
                part, EXTRA_OF_PART.get(part.__name__, EXTRA.get(name, {})), id=part.__name__
            )
            for _, part in getattr(importlib.import_module(module), name)
            if hasattr(part, "from_config")
        ]
    return found


@pytest.fixture
def cfg(pristine_layout):
    """Sizes that fit every part; classes add what is theirs."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.VOCAB_SIZE, cfg.MODEL.MAX_SEQ_LEN = 13, 8
    cfg.MODEL.META_ARCHITECTURE = "RnnAttEncoderDecoder"
    cfg.MODEL.ENCODER, cfg.MODEL.DECODER = "UpDownEncoder", "UpDownDecoder"
    cfg.MODEL.PREDICTOR = "BasePredictor"
    cfg.MODEL.TOKEN_EMBED.NAME, cfg.MODEL.VISUAL_EMBED.NAME = (
        "TokenBaseEmbedding",
        "VisualBaseEmbedding",
    )
    cfg.MODEL.TOKEN_EMBED.DIM = cfg.MODEL.VISUAL_EMBED.OUT_DIM = cfg.MODEL.DECODER_DIM = 16
    cfg.MODEL.VISUAL_EMBED.IN_DIM, cfg.MODEL.VISUAL_EMBED.LOCATION_SIZE = 8, 5
    cfg.MODEL.TOKEN_EMBED.POSITION, cfg.MODEL.TOKEN_EMBED.USE_NORM = "SinusoidEncoding", True
    cfg.MODEL.BERT.HIDDEN_SIZE, cfg.MODEL.BERT.NUM_ATTENTION_HEADS = 16, 4
    cfg.MODEL.BERT.INTERMEDIATE_SIZE = 32
    cfg.MODEL.BERT.NUM_HIDDEN_LAYERS = cfg.MODEL.BERT.NUM_GENERATION_LAYERS = 1
    cfg.DATALOADER.MAX_FEAT_NUM = 6
    cfg.INFERENCE.VOCAB = str(pristine_layout.data / "vocabulary.txt")
    return cfg


@pytest.mark.parametrize("part, extra", registered())
def test_the_same_from_config_and_from_arguments(part, extra, cfg):
    from xmodaler.modeling import add_config

    sizes = SIZES.get(part.__name__, {})
    for stage in ("ENCODER", "DECODER", "PREDICTOR"):
        cfg.MODEL[stage] = sizes.get(stage, cfg.MODEL[stage])
    picture = sizes.get("VISUAL_EMBED", cfg.MODEL.VISUAL_EMBED)
    cfg.MODEL.VISUAL_EMBED.NAME = picture["NAME"]
    add_config(cfg, cfg)
    extend = getattr(part, "add_config", None)
    if extend is not None:
        # Stages take the config, whole models also the view of a file.
        extend(*[cfg] * len(inspect.signature(extend).parameters))
    cfg.merge_from_other_cfg({"MODEL": sizes})
    torch.manual_seed(0)
    from_config = part(cfg, **extra)
    torch.manual_seed(0)
    explicit = part(**part.from_config(cfg, **extra))
    assert repr(from_config) == repr(explicit)
    left, right = from_config.state_dict(), explicit.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_model_assembled_by_hand_equals_the_configured_one(cfg, coco):
    """No config at all: every stage by its own arguments."""
    from xmodaler.modeling import add_config
    from xmodaler.modeling.decoder import UpDownDecoder
    from xmodaler.modeling.embedding import TokenBaseEmbedding, VisualBaseEmbedding
    from xmodaler.modeling.encoder import UpDownEncoder
    from xmodaler.modeling.meta_arch import RnnAttEncoderDecoder
    from xmodaler.modeling.predictor import BasePredictor

    cfg.MODEL.TOKEN_EMBED.POSITION, cfg.MODEL.TOKEN_EMBED.USE_NORM = "none", False
    cfg.MODEL.VISUAL_EMBED.LOCATION_SIZE = 0
    add_config(cfg, cfg)
    configured = build_model(cfg).eval()
    by_hand = RnnAttEncoderDecoder(
        vocab_size=13,
        max_seq_len=8,
        token_embed=TokenBaseEmbedding(dim=16, vocab_size=13),
        visual_embed=VisualBaseEmbedding(in_dim=8, out_dim=16),
        encoder=UpDownEncoder(),
        decoder=UpDownDecoder(
            hidden_size=16,
            token_embed_dim=16,
            visual_embed_dim=16,
            att_embed_size=512,
            dropout1=0.0,
            dropout2=0.0,
            att_embed_dropout=0.0,
        ),
        predictor=BasePredictor(hidden_size=16, vocab_size=13, dropout=0.0),
        greedy_decoder=None,
        beam_searcher=None,
    ).eval()
    assert isinstance(by_hand, nn.Module)
    by_hand.load_state_dict(configured.state_dict())
    batch = {
        kfg.ATT_FEATS: torch.randn(2, 3, 8),
        kfg.ATT_MASKS: torch.ones(2, 3),
        kfg.G_TOKENS_IDS: torch.randint(1, 13, (4, 8)),
        kfg.G_TARGET_IDS: torch.randint(1, 13, (4, 8)),
    }
    outputs = [model(dict(batch))[kfg.G_LOGITS] for model in (configured, by_hand)]
    assert outputs[0].shape == (4, 8, 13) and torch.equal(*outputs)
