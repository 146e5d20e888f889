"""X-modaler's decoders on what X²-VLM fuses with the picture: one config away."""

from pathlib import Path

import pytest
import torch

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.config import kfg, load_config
from xmodaler.losses import CrossEntropy
from xmodaler.modeling import add_config, build_model

CONFIG = Path(__file__).resolve().parents[2] / "configs/x2vlm/captioning"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PROMPT = ("what", "does", "the", "picture", "show", "?")
WIDTH, WORDS = 32, 9
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VOCAB_SIZE": WORDS,
    "MODEL.MAX_SEQ_LEN": 6,
    "MODEL.DECODER_DIM": WIDTH,
    "MODEL.TOKEN_EMBED.DIM": WIDTH,
    "MODEL.VISION.WIDTH": 24,
    "MODEL.VISION.LAYERS": 1,
    "MODEL.VISION.HEADS": 2,
    "MODEL.VISION.PATCH_SIZE": 8,
    "MODEL.FUSION.LAYERS": 1,
    "MODEL.FUSION.MEMORY_WIDTH": 24,
    "MODEL.FUSION.PROMPT_VOCAB_SIZE": len(SPECIAL) + len(PROMPT),
    "MODEL.BERT.HIDDEN_SIZE": WIDTH,
    "MODEL.BERT.NUM_ATTENTION_HEADS": 4,
    "MODEL.BERT.INTERMEDIATE_SIZE": 48,
    "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
    "MODEL.BERT.NUM_GENERATION_LAYERS": 1,
    "DATALOADER.IMAGE_SIZE": 16,
}
DECODERS = {
    "TransformerDecoder": {},
    "UpDownDecoder": {
        "MODEL.META_ARCHITECTURE": "RnnAttEncoderDecoder",
        "MODEL.DECODER": "UpDownDecoder",
        "MODEL.VISUAL_EMBED.OUT_DIM": WIDTH,
        "MODEL.UPDOWN.ATT_EMBED_SIZE": 16,
    },
}


def small_config(tmp_path, **options):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *PROMPT]))
    vocabulary = {"MODEL.PRETRAINING.MODEL_NAME": str(tmp_path / "vocab.txt")}
    pairs = [part for pair in {**SMALL, **options, **vocabulary}.items() for part in pair]
    return load_config(str(CONFIG / "coco_transformer_on_fusion.yaml"), pairs, add_config)


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoder_learns_and_tells_from_fused_states(tmp_path, decoder):
    cfg = small_config(tmp_path, **DECODERS[decoder])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    assert type(model.decoder).__name__ == decoder
    assert model.encoder.prompt_ids == [2, *range(5, 11), 3]
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    tokens = torch.tensor([[0, 3, 4, 0], [0, 5, 6, 7], [0, 1, 0, 0], [0, 2, 2, 0]])
    targets = torch.tensor([[3, 4, 0, -1], [5, 6, 7, 0], [1, 0, -1, -1], [2, 2, 0, -1]])
    batch = {kfg.IMAGES: images, kfg.G_TOKENS_IDS: tokens, kfg.G_TARGET_IDS: targets}
    outputs = model(batch)
    assert outputs[kfg.G_LOGITS].shape == (4, 4, WORDS)
    assert outputs[kfg.ATT_FEATS].shape == (2, 8, WIDTH)
    (loss,) = CrossEntropy()(outputs).values()
    loss.backward()
    # The prompt, the fusion layers and the tower learn with the decoder.
    for part in (model.encoder.words, model.encoder.fusion_layers, model.visual_embed):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())
    with torch.no_grad():
        beams = model({kfg.IMAGES: images}, use_beam_search=True)[kfg.G_SENTS_IDS]
        greedy = model({kfg.IMAGES: images}, use_beam_search=False)[kfg.G_SENTS_IDS]
        other = model({**batch, kfg.IMAGES: images.flip(0)})[kfg.G_LOGITS]
        # Steps give what the whole caption gives.
        state = model.start({kfg.IMAGES: images})
        logits, state = model.step(tokens[::2, 0], state)
        torch.testing.assert_close(logits, outputs[kfg.G_LOGITS][::2, 0], atol=1e-5, rtol=1e-4)
    assert beams.shape == greedy.shape == (2, 6)
    assert not torch.allclose(other, outputs[kfg.G_LOGITS])


def test_what_x2vlm_has_learned_is_taken_over(tmp_path):
    captioner = build_model(small_config(tmp_path))
    parts = ("encoder.", "visual_embed.tower.")
    expected = {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in captioner.state_dict().items()
        if name.startswith(parts)
    }
    learned = {name.replace("encoder.words.", "token_embed."): v for name, v in expected.items()}
    learned |= {
        "predictor.bias": torch.zeros(30),
        "token_embed.embeddings.weight": torch.ones(11, WIDTH),
    }
    expected["encoder.words.embeddings.weight"] = torch.ones(11, WIDTH)
    own_words = captioner.token_embed.embeddings.weight.detach().clone()
    torch.save({"model": learned}, tmp_path / "x2vlm.pth")
    XmodalerCheckpointer(captioner, str(tmp_path)).load(str(tmp_path / "x2vlm.pth"))
    found = captioner.state_dict()
    assert "encoder.words.embeddings.weight" in found
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert torch.equal(captioner.token_embed.embeddings.weight, own_words)
    # A model with this encoder keeps its own names.
    assert captioner.adapt_weights(found) is found
