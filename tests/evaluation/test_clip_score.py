"""CLIPScore and RefCLIPScore: by hand, and through a tiny CLIP of transformers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.evaluation import compare_captions
from xmodaler.evaluation.clip_score import (
    ClipScorer,
    TransformersDualEncoder,
    clip_score,
    ref_clip_score,
)
from xmodaler.utils.errors import UserError


def test_clip_score_by_hand():
    images = np.array([[2.0, 0], [0, 3], [1, 0]])
    texts = torch.tensor([[1.0, 1], [0, 1], [-1, 0]])
    # Cosines 1/sqrt(2), 1 and -1, the last cut off at 0.
    assert clip_score(images, texts) == pytest.approx([2.5 / np.sqrt(2), 2.5, 0])
    assert clip_score(images, texts, w=1) == pytest.approx([1 / np.sqrt(2), 1, 0])
    assert clip_score(np.zeros((1, 2)), texts[:1]).tolist() == [0]


def test_ref_clip_score_by_hand():
    images, texts = np.array([[1.0, 0], [1, 0], [0, 1]]), np.array([[1.0, 0], [1, 0], [1, 0]])
    references = [[[0, 1], [3, 4]], [[-1, 0]], [[1, 0]]]
    # CLIPScore 2.5 and nearest reference 0.6; no similar reference; no similar image.
    expected = [2 * 2.5 * 0.6 / 3.1, 0, 0]
    assert ref_clip_score(images, texts, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_score(np.ones((2, 3)), np.ones((1, 3))), r"\(2, 3\).*\(1, 3\)"),
        (lambda: clip_score(np.ones(3), np.ones(3)), r"shape \(3,\)"),
        (lambda: ref_clip_score(np.ones((1, 2)), np.ones((1, 2)), []), "references of 0 captions"),
        (
            lambda: ref_clip_score(np.ones((1, 2)), np.ones((1, 2)), [np.ones((0, 2))]),
            "caption 0 has no reference",
        ),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(UserError, match=message):
        call()


class Letters:
    """Embeds texts by their letters, and pictures as their names."""

    def encode_images(self, paths):
        return self._embed([path.split(".")[0] for path in paths])

    def encode_texts(self, texts):
        assert all(text.startswith("A photo depicts ") for text in texts)
        return self._embed([text.removeprefix("A photo depicts ") for text in texts])

    def _embed(self, words):
        return torch.tensor([[float(word.count(letter)) for letter in "abc"] for word in words])


def test_any_dual_encoder_will_do():
    found = ClipScorer(Letters(), ["ab.jpg", "c.jpg"], [["c", "a"], ["a"]])(["ab", "a"])
    assert found["CLIPScore"] == pytest.approx([2.5, 0])
    nearest = 1 / np.sqrt(2)
    assert found["RefCLIPScore"] == pytest.approx([2 * 2.5 * nearest / (2.5 + nearest), 0])
    assert list(ClipScorer(Letters(), ["ab.jpg"])(["ab"])) == ["CLIPScore"]


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """The folder of a random CLIP with a vocabulary of letters."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: k for k, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    pictures = transformers.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    sizes["num_hidden_layers"] = 2
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    text = {**sizes, **ends, "vocab_size": len(tokens), "max_position_embeddings": 32}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


def test_a_clip_of_transformers(tiny_clip, photos):
    encoder = TransformersDualEncoder(tiny_clip, device="cpu", batch_size=2)
    images = encoder.encode_images(photos)
    texts = ["a dog", "cat", "a very long text " * 20]
    embedded = encoder.encode_texts(texts)
    assert images.shape == embedded.shape == (3, 8) and images.dtype == np.float32
    # Neither batches nor padding change anything.
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    assert embedded == pytest.approx(alone, abs=1e-5)
    assert np.abs(images[0] - images[1]).max() > 1e-4

    # The similarities are those that the model itself computes.
    inputs = encoder.processor(
        text=texts[:2],
        images=[Image.open(p) for p in photos[:2]],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = encoder.model(**inputs).logits_per_image / encoder.model.logit_scale.exp()
    expected = 2.5 * np.maximum(logits.diagonal().numpy(), 0)
    assert clip_score(images[:2], embedded[:2]) == pytest.approx(expected, abs=1e-5)

    scores = ClipScorer(encoder, photos, [["a dog", "dogs"], ["a cat"], ["text"]])(texts)
    assert {name: values.shape for name, values in scores.items()} == {
        "CLIPScore": (3,),
        "RefCLIPScore": (3,),
    }


def test_systems_are_compared_by_their_pictures(tmp_path):
    references = {
        "images": [{"id": 1, "file_name": "ab.jpg"}, {"id": 2, "file_name": "c.jpg"}],
        "annotations": [{"image_id": 1, "caption": "a b"}, {"image_id": 2, "caption": "c"}],
    }
    systems = {"good": {1: "ab", 2: "c"}, "bad": {1: "c", 2: "c"}}
    settings = {"samples": 20, "metrics": ["ROUGE_L"], "dual_encoder": Letters()}
    report = compare_captions(references, systems, pictures="", **settings)
    assert report.systems["good"].corpus["CLIPScore"] == pytest.approx(2.5)
    assert report.systems["bad"].corpus["CLIPScore"] == pytest.approx(1.25)
    assert report.systems["bad"].per_image["1"]["RefCLIPScore"] == 0
    assert report.comparisons["good", "bad"]["CLIPScore"].difference == pytest.approx(1.25)
    named = {"001": "ab.jpg", 2: "c.jpg"}
    other = compare_captions({1: ["a b"], 2: ["c"]}, systems, pictures=named, **settings)
    assert other.systems == report.systems
    with pytest.raises(UserError, match="no picture of image 1 is known"):
        compare_captions({1: ["a b"], 2: ["c"]}, systems, pictures="", **settings)
    with pytest.raises(UserError, match="needs pictures"):
        compare_captions(references, systems, **settings)


def test_folders_without_a_dual_encoder(tmp_path):
    with pytest.raises(UserError, match=r"lacks config\.json"):
        TransformersDualEncoder(tmp_path)
    pytest.importorskip("transformers", reason="transformers is not installed")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UserError, match="cannot be loaded"):
        TransformersDualEncoder(tmp_path)
