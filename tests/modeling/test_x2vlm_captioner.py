"""X²-VLM's captioner: caches, cost, sampling, and what it refuses."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xmodaler.config import get_cfg, kfg
from xmodaler.losses import LabelSmoothing
from xmodaler.losses.scored_rows import U_SELECTED
from xmodaler.modeling import add_config, build_model
from xmodaler.utils.errors import UserError

WORDS = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *"abcdefghijklmn", "picture", "of"]
CLS, MASK = 2, 4


@pytest.fixture
def captioner(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))

    def make(**settings):
        torch.manual_seed(0)
        cfg = get_cfg()
        model = cfg.MODEL
        model.META_ARCHITECTURE, model.ENCODER = "X2VLMCaptioner", "TextFusionEncoder"
        model.DECODER, model.PREDICTOR = "", "BertPredictionHead"
        model.VISUAL_EMBED.NAME = "VisionTowerEmbedding"
        model.TOKEN_EMBED.NAME = "TokenBaseEmbedding"
        add_config(cfg, cfg)
        sizes = {
            "MODEL.DEVICE": "cpu",
            "MODEL.VOCAB_SIZE": len(WORDS),
            "MODEL.MAX_SEQ_LEN": 12,
            "MODEL.PRETRAINING.MODEL_NAME": str(tmp_path / "vocab.txt"),
            "MODEL.VISION": {"PATCH_SIZE": 8, "WIDTH": 24, "LAYERS": 1, "HEADS": 2},
            "MODEL.TOKEN_EMBED.DIM": 32,
            "MODEL.TOKEN_EMBED.POSITION": "NNEmbeddingEncoding",
            "MODEL.TOKEN_EMBED.POSITION_MAX_LEN": 64,
            "MODEL.BERT.HIDDEN_SIZE": 32,
            "MODEL.BERT.NUM_ATTENTION_HEADS": 4,
            "MODEL.BERT.INTERMEDIATE_SIZE": 64,
            "MODEL.BERT.NUM_HIDDEN_LAYERS": 2,
            "MODEL.FUSION": {"LAYERS": 2, "MEMORY_WIDTH": 24},
            "DATALOADER.IMAGE_SIZE": 16,
            "DECODE_STRATEGY": {"NAME": "RefillingBeamSearcher", "BEAM_SIZE": 3},
            "INFERENCE.VOCAB": "BERT",
            **settings,
        }
        flat = []
        for key, value in sizes.items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            for name, part in parts:
                flat += [f"{key}.{name}".strip("."), part]
        cfg.merge_from_list(flat)
        return build_model(cfg).eval()

    return make


def images(number=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 3, 16, 16), dtype=torch.uint8, generator=generator)


def without_cache(model, pictures, words):
    """Logits of the next word from all words and a mask, computed in one piece.

    Args:
        words: (R, t), what was generated so far.
    """
    prompt = torch.tensor(model.prompt_ids).expand(len(words), -1)
    mask = torch.full((len(words), 1), MASK)
    tokens = torch.cat([prompt, words, mask], dim=1)
    memory = model.encoder.memory(model.see({kfg.IMAGES: pictures})[kfg.ATT_FEATS])
    states = model.caption_states({kfg.U_TOKENS_IDS: tokens}, memory)[:, -1]
    return model.predictor({kfg.U_HIDDEN_STATES: states})[kfg.U_LOGITS]


@pytest.mark.parametrize("prompt", ["a picture of", ""])
def test_steps_give_what_the_whole_caption_gives(captioner, prompt):
    model, pictures = captioner(**{"MODEL.X2VLM.PROMPT": prompt}), images()
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(5, len(WORDS), (6, 4), generator=generator)
    words[1::3, 0] = words[::3, 0]  # hypotheses that begin alike
    with torch.no_grad():
        state = model.start({kfg.IMAGES: pictures})
        first, state = model.step(torch.full((2,), CLS), state)
        torch.testing.assert_close(first, without_cache(model, pictures, words[::3, :0]))
        state["rows"] = {key: x.repeat_interleave(3, 0) for key, x in state["rows"].items()}
        for time in range(4):
            logits, state = model.step(words[:, time], state)
            expected = without_cache(model, pictures, words[:, : time + 1])
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
            # Hypotheses of a picture change places.
            order = torch.tensor([2, 0, 1, 4, 5, 3])
            state["rows"] = {key: x[order] for key, x in state["rows"].items()}
            words = words[order]


def test_a_word_costs_the_same_wherever_it_stands(captioner):
    model = captioner()
    costs = []
    with torch.no_grad():
        state = model.start({kfg.IMAGES: images(1)})
        words = torch.full((1,), CLS)
        for _ in range(12):
            with FlopCounterMode(display=False) as counter:
                _, state = model.step(words, state)
            costs.append(counter.get_flop_counts()["Global"])
    # Without the attention to earlier words, which the layers dwarf at any real width.
    products = [{op: n for op, n in cost.items() if "attention" not in str(op)} for cost in costs]
    assert all(product == products[0] for product in products[1:])
    whole = [sum(cost.values()) for cost in costs]
    assert whole[-1] <= 1.1 * whole[0]


def test_pictures_are_projected_once(captioner, monkeypatch):
    model, calls = captioner(), []
    for layer in model.encoder.fusion_layers:
        project = layer.x_att.self.project_memory
        monkeypatch.setattr(
            layer.x_att.self,
            "project_memory",
            lambda *args, project=project: calls.append(1) or project(*args),
        )
    with torch.no_grad():
        model({kfg.IMAGES: images()}, use_beam_search=True)
    assert len(calls) == len(model.encoder.fusion_layers)


def test_captions_do_not_depend_on_the_batch(captioner):
    model, pictures = captioner(), images(4)
    with torch.no_grad():
        together = model({kfg.IMAGES: pictures}, use_beam_search=True)[kfg.G_SENTS_IDS]
        for row in range(4):
            alone = model({kfg.IMAGES: pictures[row : row + 1]}, use_beam_search=True)
            assert torch.equal(alone[kfg.G_SENTS_IDS][0], together[row])


@pytest.mark.parametrize("use_beams", [False, True])
def test_gradients_reach_every_layer_from_generated_words(captioner, use_beams):
    model = captioner().train()
    asked = {kfg.DECODE_BY_SAMPLE: True, "SAMPLES_PER_IMAGE": 3}
    batch = {kfg.IMAGES: images(), **({"OUT_SIZE": 3} if use_beams else asked)}
    outputs = model(batch, use_beam_search=use_beams)
    assert outputs[kfg.G_SENTS_IDS].flatten(0, -2).shape == (6, 12)
    outputs[kfg.G_LOGP].sum().backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    # Pooling of the tower and the classification token of regions are not part of captions.
    assert not [name for name in silent if not name.startswith("visual_embed")], silent


def test_losses_see_masked_words_alone(captioner):
    model = captioner()
    tokens = torch.tensor([[CLS, 5, MASK, 6, 3], [CLS, MASK, 7, 3, 0]])
    places = torch.tensor([[0, 1, 2, 2, 3], [0, 1, 1, 2, 0]])
    targets = torch.tensor([[-1, -1, 6, -1, -1], [-1, 7, -1, -1, -1]])
    batch = {
        kfg.IMAGES: images(),
        kfg.U_TOKENS_IDS: tokens,
        kfg.U_POSITIONS: places,
        kfg.U_TARGET_IDS: targets,
        kfg.TOKENS_MASKS: tokens != 0,
    }
    outputs = model(batch)
    assert outputs[U_SELECTED].logits.shape == (2, len(WORDS))
    assert outputs[U_SELECTED].targets.tolist() == [6, 7]
    # What stands at and behind a mask does not reach it.
    other = tokens.clone()
    other[0, 3:], other[1, 2:] = 9, 9
    again = model({**batch, kfg.U_TOKENS_IDS: other})
    torch.testing.assert_close(again[U_SELECTED].logits, outputs[U_SELECTED].logits)
    (loss,) = LabelSmoothing(label_smoothing=0.1, excluded=CLS)(outputs).values()
    assert loss.isfinite()


def test_refusals(captioner):
    model = captioner()
    with pytest.raises(UserError, match="U_TARGET_IDS, the words behind the masks"):
        model({kfg.IMAGES: images()})
    words = torch.ones(2, 4, dtype=torch.int64)
    batch = {kfg.IMAGES: images(), kfg.U_TOKENS_IDS: words, kfg.U_TARGET_IDS: words}
    with pytest.raises(UserError, match=r"U_POSITIONS has shape \(2, 3\)"):
        model({**batch, kfg.U_POSITIONS: words[:, :3]})
    with pytest.raises(UserError, match="needs a word head"):
        captioner(**{"MODEL.PREDICTOR": ""})
    with pytest.raises(UserError, match="cannot generate"):
        captioner(**{"DECODE_STRATEGY.NAME": ""})({kfg.IMAGES: images()}, use_beam_search=True)


def test_what_new_words_and_masks_see():
    from xmodaler.modeling.meta_arch.x2vlm.captioning import visible_slots

    slots = torch.tensor([[0, 1, 3], [0, 2, 4]])
    later = [
        [1, 1, 0, 1, 0, 0, 0],
        [1, 0, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 0, 1, 0],
        [1, 0, 1, 0, 1, 0, 1],
    ]
    assert visible_slots(slots, 1, 3, 2).int().tolist() == [later]
    prompt = torch.tensor([[0, 1], [0, 1]])
    first = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert visible_slots(prompt, 1, 0, 2).int().tolist() == [first]
