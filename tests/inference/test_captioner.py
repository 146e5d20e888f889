"""Captioner: what it accepts, what it returns, and how it fails."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.inference import Caption, load
from xmodaler.utils.errors import UserError


@pytest.fixture(scope="module")
def captioner(picture_run):
    return load(picture_run, device="cpu")


@pytest.fixture(scope="module")
def on_features(feature_run):
    return load(str(feature_run), device="cpu")


def picture(seed, size=(40, 30), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def texts(captions):
    return [caption.text for caption in captions]


def test_a_caption_and_its_score(captioner):
    (caption,) = captioner.caption(picture(0), beam_size=3)
    assert isinstance(caption, Caption) and str(caption) == caption.text
    assert caption.words == caption.text.split() and caption.id == "0"
    assert len(caption.words) <= len(caption.log_probs) <= len(caption.words) + 1
    assert caption.score == pytest.approx(sum(caption.log_probs)) and caption.score < 0
    assert caption.attention is None and caption.alternatives == []


def test_the_same_picture_in_every_form(captioner, tmp_path):
    image = picture(1)
    image.save(tmp_path / "a.png")
    forms = [image, np.asarray(image), np.asarray(image) / 255, str(tmp_path / "a.png")]
    captions = captioner.caption([*forms, tmp_path / "a.png"])
    scores = {round(caption.score, 4) for caption in captions}
    assert len(set(texts(captions))) == len(scores) == 1
    assert captions[-1].id == str(tmp_path / "a.png") and captions[1].id == "1"


def test_batches_do_not_change_captions(captioner):
    images = [picture(seed, (20 + seed, 60)) for seed in range(7)]
    once = captioner.caption(images, batch_size=7)
    few = captioner.caption(iter(images), batch_size=2)
    assert texts(once) == texts(few)
    for a, b in zip(once, few, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4)


def test_n_best_samples_and_greedy(captioner):
    best = captioner.caption(picture(2), beam_size=4, num_return=4)[0]
    ranked = [best, *best.alternatives]
    assert len(ranked) == 4 and len({c.text for c in ranked}) == 4
    assert [c.score for c in ranked] == sorted((c.score for c in ranked), reverse=True)
    one = captioner.caption(picture(2), beam_size=4)[0]
    assert one.text == best.text and one.score == pytest.approx(best.score, abs=1e-4)

    torch.manual_seed(0)
    drawn = captioner.caption([picture(2), picture(3)], sample=True, num_return=5)
    assert all(len(caption.alternatives) == 4 for caption in drawn)
    assert len({c.text for c in [drawn[0], *drawn[0].alternatives]}) > 1

    greedy = captioner.caption(picture(2), beam_size=1)[0]
    assert greedy.score <= best.score + 1e-4 or greedy.text == best.text
    assert captioner.model.beam_searcher.beam_size == 3  # as the config says


def test_attention_maps(captioner, on_features):
    caption = captioner.caption(picture(4), return_attention=True)[0]
    assert caption.attention.shape == (len(caption.words), 4, 4)
    assert caption.attention.sum(axis=(1, 2)) == pytest.approx(
        np.ones(len(caption.words)), abs=1e-3
    )
    regions = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    caption = on_features.caption(regions, return_attention=True, beam_size=1)[0]
    assert caption.attention.shape == (len(caption.words), 5)
    drawn = captioner.caption(picture(4), return_attention=True, sample=True, num_return=2)[0]
    assert drawn.attention.shape == (len(drawn.words), 4, 4)


def test_features_of_mixed_sizes(on_features, tmp_path):
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(2, 6)), rng.normal(size=(9, 6))
    np.save(tmp_path / "few.npy", few)
    np.savez(tmp_path / "many.npz", features=many)
    together = on_features.caption([few, {"features": many}])
    from_folder = on_features.caption(tmp_path)
    assert texts(together) == texts(from_folder)
    alone = on_features.caption(tmp_path / "many.npz")[0]
    assert alone.score == pytest.approx(together[1].score, abs=1e-4)
    assert [caption.id for caption in from_folder] == [
        str(tmp_path / "few.npy"),
        str(tmp_path / "many.npz"),
    ]


def test_folders_and_lists(captioner, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.JPG", ".hidden.png"):
        picture(5).save(folder / name, "PNG")
    (folder / "readme.md").write_text("not a picture")
    (tmp_path / "list.txt").write_text("photos/b.png\n\n  photos/a.JPG  \n")
    assert [c.id for c in captioner.caption(folder)] == [
        str(folder / "a.JPG"),
        str(folder / "b.png"),
    ]
    assert len(captioner.caption(tmp_path / "list.txt")) == 2
    monkeypatch.chdir(tmp_path)
    assert [c.id for c in captioner.caption(["list.txt", "photos/b.png"])] == [
        "photos/b.png",
        "photos/a.JPG",
        "photos/b.png",
    ]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_every_mode_of_a_picture(captioner, mode):
    grey = picture(6).convert("L")
    image = Image.new("I;16", grey.size) if mode == "I;16" else grey.convert(mode)
    caption = captioner.caption([image])[0]
    assert math.isfinite(caption.score)


def test_arrays_of_every_kind(captioner):
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (20, 30), dtype=np.uint8),
        rng.integers(0, 65536, (20, 30), dtype=np.uint16),
        rng.integers(0, 256, (20, 30, 1), dtype=np.int64),
        rng.integers(0, 256, (20, 30, 4), dtype=np.uint8),
        rng.random((20, 30)) > 0.5,
    ]
    assert len(captioner.caption(arrays)) == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 4, 5)), "shape \\(2, 3, 4, 5\\); a picture is"),
        (np.zeros((0, 5), np.uint8), "shape \\(0, 5\\)"),
        (np.full((5, 5), np.nan), "not within 0 and 255"),
        (np.full((5, 5), -1), "not within 0 and 255"),
        ({"features": np.zeros((3, 6))}, "holds features, but this model reads pictures"),
        (7, "a int cannot be captioned"),
        ([object()], "a object cannot be captioned"),
        ("https://example.com/a.png", "is an address; download"),
        ("nowhere.png", "nowhere.png.*does not exist"),
    ],
)
def test_what_is_no_picture(captioner, source, message):
    with pytest.raises(UserError, match=message):
        captioner.caption(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 5)), "width 5, but MODEL.VISUAL_EMBED.IN_DIM is 6"),
        (np.full((3, 6), np.nan), "NaN or infinity"),
        (np.zeros((0, 6)), "regions >= 1"),
        ({"boxes": np.zeros((3, 4))}, "none is named 'features'|not both|boxes"),
        (Image.new("RGB", (4, 4)), "is a picture, but this model was trained on features"),
        ("a.png", "not a feature file .* trained on features of width 6"),
        ("missing.npz", "missing.npz' does not exist"),
    ],
)
def test_what_are_no_features(on_features, source, message):
    with pytest.raises(UserError, match=message):
        on_features.caption(source)


def test_empty_folders_and_lists(captioner, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    (tmp_path / "nested.txt").write_text("list.txt\n")
    for name, message in (
        ("empty", "holds no picture"),
        ("list.txt", "is empty; one path a line"),
        ("nested.txt", "line 1 names another list"),
    ):
        with pytest.raises(UserError, match=message):
            captioner.caption(tmp_path / name)
    assert captioner.caption([]) == []


def test_bad_pictures_can_be_skipped(captioner, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    sources = [picture(7), tmp_path / "bad.png", picture(8)]
    with pytest.raises(UserError, match=r"bad\.png"):
        captioner.caption(sources)
    assert [c.id for c in captioner.caption(sources, on_error="skip")] == ["0", "2"]
    seen = []
    captioner.caption(sources, on_error=lambda name, error: seen.append(name))
    assert seen == [str(tmp_path / "bad.png")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_return": 4}, "num_return is 4 but a search with beam_size 3"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
    ],
)
def test_options_out_of_range(captioner, options, message):
    with pytest.raises(UserError, match=message):
        captioner.caption(picture(0), **options)


def test_bfloat16(picture_run):
    captioner = load(picture_run, device="cpu", precision="bf16")
    assert math.isfinite(captioner.caption(picture(0))[0].score)
    with pytest.raises(UserError, match="precision is 'fp8'"):
        load(picture_run, device="cpu", precision="fp8")


def test_a_backbone_of_timm(write_run, tmp_path):
    changes = {"MODEL.VISUAL_EMBED.NAME": "TimmEmbedding", "MODEL.TIMM.MODEL_NAME": "resnet10t"}
    changes |= {"MODEL.TIMM.OUT_INDEX": 2, "MODEL.TIMM.GLOBAL_TOKEN": True}
    run = write_run(tmp_path, **changes)
    config = (run / "config.yaml").read_text()
    # The weights come from the file, so nothing may be fetched although training began so.
    (run / "config.yaml").write_text(config.replace("PRETRAINED: false", "PRETRAINED: true"))
    captioner = load(run, device="cpu")
    assert captioner.reads_pictures and "on pictures" in repr(captioner)
    caption = captioner.caption(picture(0), return_attention=True)[0]
    # 32 pixels at stride 8 are a 4 x 4 grid; the token of the whole picture is left out.
    assert caption.attention.shape == (len(caption.words), 4, 4)
