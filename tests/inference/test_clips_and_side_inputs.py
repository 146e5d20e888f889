"""Captioning of clips in every form, and of what models read beside features."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.cli import run_cli
from xmodaler.inference import load
from xmodaler.inference.predicting import predict
from xmodaler.utils.errors import UserError

WIDTH, SIZE = 6, 32  # of the runs that `write_run` makes
VIDEO = {
    "MODEL.VISUAL_EMBED.NAME": "TimmEmbedding",
    "MODEL.TIMM.MODEL_NAME": "test_resnet",
    "DATASETS.TEST": "VideoCaptionDataset",
    "DATALOADER.VIDEO_FOLDER": "somewhere",
    "DATALOADER.FEATS_FOLDER": "",
    "DATALOADER.MAX_FEAT_NUM": 4,
}


@pytest.fixture(scope="module")
def on_videos(write_run, tmp_path_factory):
    return load(write_run(tmp_path_factory.mktemp("videos"), **VIDEO), device="cpu")


def frames_of(seed, count):
    random = np.random.default_rng(seed)
    base = random.integers(0, 200, (1, 30, 40, 3))
    return np.clip(base + 10 * np.arange(count)[:, None, None, None], 0, 255).astype(np.uint8)


def write_animation(path, frames):
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=100)
    return path


def write_mp4(path, frames):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 40, 30, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def scores(captions):
    return [round(caption.score, 3) for caption in captions]


def test_the_same_clip_in_every_form(on_videos, tmp_path):
    assert on_videos.kind == "videos" and "on videos" in repr(on_videos)
    frames = frames_of(0, 8)
    animation = write_animation(tmp_path / "clip.png", frames)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    pictures = [Image.fromarray(frame) for frame in frames]
    captions = on_videos.caption([animation, folder, frames, pictures, list(frames)])
    assert len(set(scores(captions))) == 1 and len({c.text for c in captions}) == 1
    assert [c.id for c in captions] == [str(animation), str(folder), "2", "3", "4"]


def test_folders_of_clips_and_lists(on_videos, tmp_path):
    write_mp4(tmp_path / "b.mp4", frames_of(1, 5))
    write_animation(tmp_path / "a.png", frames_of(2, 5))
    (tmp_path / "c").mkdir()
    Image.fromarray(frames_of(3, 1)[0]).save(tmp_path / "c" / "1.jpg")
    (tmp_path / "notes.md").write_text("no clip")
    (tmp_path / "list.txt").write_text("b.mp4\nc\n")
    names = [Path(caption.id).name for caption in on_videos.caption(tmp_path)]
    assert names == ["a.png", "b.mp4", "c"]
    listed = on_videos.caption(tmp_path / "list.txt")
    assert [Path(caption.id).name for caption in listed] == ["b.mp4", "c"]


def test_batches_of_mixed_lengths_do_not_change_captions(on_videos):
    clips = [frames_of(seed, count) for seed, count in enumerate((1, 9, 3, 4, 2))]
    together = on_videos.caption(clips, batch_size=5, return_attention=True)
    alone = [on_videos.caption([clip], return_attention=True)[0] for clip in clips]
    for one, other, count in zip(together, alone, (1, 4, 3, 4, 2), strict=True):
        assert one.text == other.text and one.score == pytest.approx(other.score, abs=1e-4)
        assert one.attention.shape == (len(one.words), count)  # of the frames that were seen
        np.testing.assert_allclose(one.attention, other.attention, atol=1e-4)
        np.testing.assert_allclose(one.attention.sum(1), 1, atol=1e-3)


def test_attention_to_several_tokens_of_a_frame_is_added(write_run, tmp_path):
    changes = {**VIDEO, "MODEL.TIMM.FRAME_GRID": 2, "MODEL.TIMM.GLOBAL_TOKEN": True}
    changes |= {"DATALOADER.IMAGE_SIZE": 64}
    captioner = load(write_run(tmp_path, **changes), device="cpu")
    few, many = captioner.caption([frames_of(0, 2), frames_of(1, 9)], return_attention=True)
    assert few.attention.shape[1] == 2 and many.attention.shape[1] == 4
    assert (many.attention.sum(1) <= 1.001).all() and (many.attention.sum(1) > 0.3).all()


def test_regions_of_mixed_numbers_get_attention_each(feature_run):
    captioner = load(str(feature_run), device="cpu")
    random = np.random.default_rng(0)
    few, many = random.normal(size=(2, WIDTH)), random.normal(size=(7, WIDTH))
    first, second = captioner.caption([few, many], return_attention=True)
    assert first.attention.shape[1] == 2 and second.attention.shape[1] == 7
    np.testing.assert_allclose(first.attention.sum(1), 1, atol=1e-3)


def test_features_of_frames_are_sampled_as_the_data_set_does(write_run, tmp_path):
    changes = {"DATASETS.TEST": "MSVDDataset", "DATALOADER.MAX_FEAT_NUM": 3}
    captioner = load(write_run(tmp_path, **changes), device="cpu")
    frames = np.random.default_rng(0).normal(size=(9, WIDTH)).astype(np.float32)
    np.save(tmp_path / "clip.npy", frames)
    (chosen,), (whole,) = captioner.caption([frames[::3]]), captioner.caption([frames])
    (stored,) = captioner.caption([tmp_path / "clip.npy"])
    assert scores([chosen]) == scores([whole]) == scores([stored])


def test_pictures_and_clips_are_not_mixed_up(on_videos, picture_run, feature_run, tmp_path):
    clip = write_mp4(tmp_path / "clip.mp4", frames_of(0, 4))
    with pytest.raises(UserError, match=r"clip\.mp4' is a video, but this model captions pictures"):
        load(picture_run, device="cpu").caption(clip)
    with pytest.raises(UserError, match="is a list of frames, but this model captions pictures"):
        load(picture_run, device="cpu").caption([list(frames_of(0, 4))])
    with pytest.raises(UserError, match="trained on features of width 6, not on pictures or vid"):
        load(feature_run, device="cpu").caption(clip)
    with pytest.raises(UserError, match="holds features, but this model reads videos"):
        on_videos.caption({"features": np.zeros((3, 6))})
    still = on_videos.caption(Image.fromarray(frames_of(0, 1)[0]))  # a clip of one frame
    assert len(still) == 1


def test_predict_reports_bad_clips(on_videos, tmp_path, capsys, write_run):
    run = write_run(tmp_path / "run", **VIDEO) if (tmp_path / "run").mkdir() is None else None
    good = write_animation(tmp_path / "good.gif", frames_of(0, 3))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"\0" * 100)
    options = {"device": "cpu", "beam_size": 1, "batch_size": 2}
    status = run_cli(lambda _: predict(str(run), [str(good), str(bad)], **options), [])
    output = capsys.readouterr()
    assert status == 1 and output.out.startswith(f"{good}\t") and output.out.count("\n") == 1
    assert str(bad) in output.err and output.err.count("\n") == 1


# ---- what models read beside features

LSTM_A = {
    "base": "lstm-A/lstm-A.yaml",
    "MODEL.LSTMA.ATTRIBUTE_DIM": 4,
    "DATALOADER.FEATS_FOLDER": "",
    "DATALOADER.ATTRIBUTE_FILE": "",
    "DATALOADER.GV_FEAT_FILE": "",
}


@pytest.fixture(scope="module")
def lstm_a(write_run, tmp_path_factory):
    return load(write_run(tmp_path_factory.mktemp("lstm_a"), **LSTM_A), device="cpu")


def test_attributes_and_a_global_vector(lstm_a, tmp_path):
    random = np.random.default_rng(0)
    one = {"attributes": random.random(4), "global_features": random.normal(size=WIDTH)}
    other = {"attributes": random.random(4), "global_features": random.normal(size=(1, WIDTH))}
    np.savez(tmp_path / "one.npz", attribute=one["attributes"], g_feature=one["global_features"])
    with_regions = {**one, "features": np.zeros((3, 9))}  # which this model does not look at
    captions = lstm_a.caption([one, other, tmp_path / "one.npz", with_regions])
    assert scores(captions)[0] == scores(captions)[2] == scores(captions)[3]
    assert scores(captions)[0] != scores(captions)[1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"attributes": np.ones(4)}, r"no 'global_features' \(or .*g_feature\).* GLOBAL_FEATS"),
        ({"global_features": np.ones(WIDTH)}, "item 0 has no 'attributes'"),
        (
            {"attributes": np.ones(5), "global_features": np.ones(WIDTH)},
            "ATTRIBUTE has width 5, but MODEL.LSTMA.ATTRIBUTE_DIM is 4",
        ),
        (
            {"attributes": np.ones(4), "global_features": np.ones(9)},
            "GLOBAL_FEATS has width 9, but MODEL.VISUAL_EMBED.IN_DIM is 6",
        ),
    ],
)
def test_lacking_or_unfitting_attributes(lstm_a, arrays, message):
    with pytest.raises(UserError, match=message):
        lstm_a.caption(arrays)


def test_files_of_the_run_serve_where_a_feature_file_lacks_something(write_run, tmp_path):
    np.savez(tmp_path / "attributes.npz", **{"7": np.full(4, 0.3)})
    np.savez(tmp_path / "vectors.npz", **{"7": np.ones(WIDTH)})
    changes = {
        **LSTM_A,
        "DATALOADER.ATTRIBUTE_FILE": str(tmp_path / "attributes.npz"),
        "DATALOADER.GV_FEAT_FILE": str(tmp_path / "vectors.npz"),
    }
    captioner = load(write_run(tmp_path, **changes), device="cpu")
    for name in ("7", "8"):
        np.savez(tmp_path / f"{name}.npz", features=np.zeros((2, WIDTH)))
    (found,) = captioner.caption(tmp_path / "7.npz")
    (given,) = captioner.caption({"attributes": np.full(4, 0.3), "global_features": np.ones(WIDTH)})
    assert scores([found]) == scores([given])
    with pytest.raises(UserError, match=r"8\.npz' has no 'attributes'"):
        captioner.caption(tmp_path / "8.npz")


def test_relations_of_mixed_numbers_of_regions(write_run, tmp_path):
    changes = {
        "MODEL.ENCODER": "GCNEncoder",
        "MODEL.VISUAL_EMBED.NAME": "VisualIdentityEmbedding",
        "MODEL.VISUAL_EMBED.OUT_DIM": WIDTH,
        "MODEL.GCN.IN_DIM": WIDTH,
        "MODEL.GCN.OUT_DIM": WIDTH,
        "MODEL.GCN.RELATION_NUM": 5,
    }
    captioner = load(write_run(tmp_path, **changes), device="cpu")
    random = np.random.default_rng(0)
    items = [
        {
            "features": random.normal(size=(count, WIDTH)),
            "relations": random.integers(0, 5, (count, count)),
        }
        for count in (3, 5)
    ]
    together = captioner.caption(items)
    assert scores(together) == scores([captioner.caption(item)[0] for item in items])
    with pytest.raises(UserError, match="item 0 has no 'relations'"):
        captioner.caption({"features": np.zeros((3, WIDTH))})
    with pytest.raises(UserError, match="RELATION is for 5 regions, but the features have 3"):
        captioner.caption({**items[0], "relations": items[1]["relations"]})
    with pytest.raises(UserError, match="RELATION has the label 5"):
        captioner.caption({**items[0], "relations": np.full((3, 3), 5)})


def test_semantic_words_and_a_global_vector(write_run, tmp_path):
    small = {"HIDDEN_SIZE": 16, "INTERMEDIATE_SIZE": 16, "NUM_ATTENTION_HEADS": 2}
    small |= {"NUM_HIDDEN_LAYERS": 1, "NUM_GENERATION_LAYERS": 1}
    changes = {
        **{f"MODEL.BERT.{key}": value for key, value in small.items()},
        "MODEL.VISUAL_EMBED.G_IN_DIM": 5,
        "MODEL.COSNET.NUM_CLASSES": 9,
        "MODEL.COSNET.NUM_SEMCOMPHDER_LAYERS": 1,
        "DATALOADER.MAX_FEAT_NUM": 5,
    }
    captioner = load(write_run(tmp_path, base="cosnet/cosnet.yaml", **changes), device="cpu")
    random = np.random.default_rng(0)
    items = [
        {
            "features": random.normal(size=(4, WIDTH)),
            "g_feature": random.normal(size=5),
            "semantics_ids": random.integers(0, 9, count),
        }
        for count in (3, 6)
    ]
    together = captioner.caption(items)
    alone = [captioner.caption(item)[0] for item in items]
    np.testing.assert_allclose([c.score for c in together], [c.score for c in alone], atol=1e-3)
    for key, value, message in (
        ("semantics_ids", [9], "attr_pred has the label 9; it must be 0 to 8"),
        ("semantics_ids", None, "item 0 has no 'semantics_ids'"),
        ("g_feature", np.ones(4), "GLOBAL_FEATS has width 4, but MODEL.VISUAL_EMBED.G_IN_DIM is 5"),
        ("g_feature", None, "item 0 has no 'global_features'"),
    ):
        changed = {k: v for k, v in {**items[0], key: value}.items() if v is not None}
        with pytest.raises(UserError, match=message):
            captioner.caption(changed)
