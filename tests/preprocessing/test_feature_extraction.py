"""Pictures and videos to stored features: what is stored, what is skipped, how a run goes on."""

import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.datasets.feature_store import open_feature_store
from xmodaler.preprocessing import features
from xmodaler.preprocessing.feature_sink import FeatureSink
from xmodaler.preprocessing.grid_extractor import GridExtractor
from xmodaler.preprocessing.region_extractor import RegionExtractor
from xmodaler.utils.errors import MissingDependencyError, UserError
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR") or ROOT.parent / "shared" / "data")


def picture(seed, size=(48, 40)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    picture(0).save(folder / "COCO_val2014_000000000042.jpg")
    picture(1, (30, 64)).save(folder / "deep" / "b_7.png")
    picture(2).convert("L").save(folder / "c_8.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(*arguments):
    spec = importlib.util.spec_from_file_location("extract", ROOT / "tools" / "extract_features.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main([str(argument) for argument in arguments])


TINY = ("--model", "resnet18", "--size", 64, "--device", "cpu", "--batch-size", 2)


def test_grid_and_global_vectors_of_a_folder(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("--pictures", pictures, "--out", out, "--kind", "both", "--numbers", *TINY) == 0
    store = open_feature_store(out)
    assert store.ids == ["42", "7", "8"]
    arrays = store.get("7")
    assert arrays["features"].shape == (4, 512) and arrays["g_feature"].shape == (512,)
    np.testing.assert_allclose(arrays["g_feature"], arrays["features"].mean(axis=0), rtol=1e-4)
    printed = capsys.readouterr().out
    assert "those of random weights" in printed
    assert "wrote 3, had 0 already, left out 0; 3 records" in printed


def test_captioners_read_the_grids(pictures, tmp_path):
    from xmodaler.config import kfg
    from xmodaler.datasets.images.mscoco_cosnet import grid_sample

    run("--pictures", pictures, "--out", tmp_path / "out", "--kind", "both", *TINY)
    arrays = open_feature_store(tmp_path / "out").get("c_8")
    sample = grid_sample(arrays, "c_8", -1, 512)
    assert sample[kfg.ATT_FEATS].shape == (4, 512) and sample[kfg.GLOBAL_FEATS].shape == (512,)


def test_features_are_those_of_the_backbone(pictures, tmp_path):
    torch.manual_seed(0)
    extractor = GridExtractor("resnet18", size=64, cells=1, device="cpu")
    pixels = [extractor.prepare(picture(seed)) for seed in (5, 6)]
    together = extractor.pictures(pixels)
    alone = extractor.pictures(pixels[1:])[0]["features"]
    np.testing.assert_allclose(together[1]["features"], alone, atol=1e-5)
    image = torch.stack(pixels).float() / 255
    mean, std = (torch.tensor(extractor.backbone.pretrained_cfg[k]) for k in ("mean", "std"))
    with torch.no_grad():
        maps = extractor.backbone((image - mean[:, None, None]) / std[:, None, None])[-1]
    np.testing.assert_allclose(together[0]["features"][0], maps[0].mean(dim=(1, 2)), atol=1e-5)
    extractor.kind = "global"
    np.testing.assert_allclose(extractor.pictures(pixels)[1]["features"], alone, atol=1e-5)


def test_a_weights_file_decides_the_features(pictures, tmp_path):
    import timm

    torch.manual_seed(3)
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    options = ("--pictures", pictures, "--weights", tmp_path / "weights.pth", *TINY)
    for name in ("a", "b"):
        run(*options, "--out", tmp_path / name)
    first, second = (open_feature_store(tmp_path / name).get("c_8") for name in ("a", "b"))
    np.testing.assert_array_equal(first["features"], second["features"])
    run("--pictures", pictures, *TINY, "--out", tmp_path / "c")
    other = open_feature_store(tmp_path / "c").get("c_8")["features"]
    assert np.abs(other - first["features"]).max() > 0.01


def test_bad_files_are_skipped_counted_and_named(pictures, tmp_path, capsys):
    (pictures / "cut.jpg").write_bytes((pictures / "c_8.png").read_bytes()[:60])
    (pictures / "empty.png").touch()
    options = ("--pictures", pictures, "--out", tmp_path / "out", *TINY)
    with pytest.raises(UserError, match=r"2 of 5 files are unusable, more than 0\.01"):
        run(*options)
    # What was fine is kept, and not done again.
    run(*options, "--max-bad-fraction", 0.5)
    printed = capsys.readouterr().out
    assert "5 files, 3 of them done before" in printed
    assert "wrote 0, had 3 already, left out 2; 3 records" in printed
    assert re.search(r"left out .*empty\.png: Picture .* is empty \(0 bytes\)", printed)


def test_a_packed_file_and_a_second_run(pictures, tmp_path, capsys):
    options = ("--pictures", pictures, "--out", tmp_path / "f.xmf", "--dtype", "float16", *TINY)
    run(*options)
    picture(9).save(pictures / "new.png")
    run(*options)
    assert "wrote 1, had 3 already, left out 0; 4 records" in capsys.readouterr().out
    store = open_feature_store(tmp_path / "f.xmf")
    assert len(store) == 4 and store.get("new")["features"].shape == (4, 512)
    with pytest.raises(UserError, match="made with size 64, not 32"):
        run(*options[:-6], *("--model", "resnet18", "--size", 32, "--device", "cpu"))


def test_random_weights_are_the_same_in_every_run(pictures, tmp_path):
    state = torch.random.get_rng_state()
    for name in ("a", "b"):
        run("--pictures", pictures, *TINY, "--out", tmp_path / name)
    first, second = (open_feature_store(tmp_path / name).get("c_8") for name in ("a", "b"))
    np.testing.assert_array_equal(first["features"], second["features"])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_files_and_ids_of_annotations(pictures, tmp_path):
    images = [{"id": 5, "file_name": "deep/b_7.png"}, {"id": 6, "file_name": "gone.png"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": []}))
    options = ("--pictures", pictures, "--annotations", tmp_path / "a.json", *TINY)
    run(*options, "--out", tmp_path / "out", "--max-bad-fraction", 0.5)
    assert open_feature_store(tmp_path / "out").ids == ["5"]


def test_frames_of_videos(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    frames = [picture(seed) for seed in range(5)]
    frames[0].save(tmp_path / "clips" / "five.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "clips" / "one.gif")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video at all, really")
    options = ("--videos", tmp_path / "clips", "--frames", 3, *TINY, "--max-bad-fraction", 0.5)
    run(*options, "--out", tmp_path / "out")
    store = open_feature_store(tmp_path / "out")
    assert store.get("five")["features"].shape == (3, 512)
    assert store.get("one")["features"].shape == (1, 512)
    assert re.search(r"left out .*broken\.mp4", capsys.readouterr().out)


CLIPS = DATA / "msvd_clips" / "videos"


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the clips of MSVD are not here")
def test_real_clips(tmp_path):
    pytest.importorskip("av")
    run("--videos", CLIPS, "--frames", 4, *TINY, "--out", tmp_path / "out.xmf")
    store = open_feature_store(tmp_path / "out.xmf")
    assert store.ids == sorted(path.stem for path in CLIPS.iterdir())
    assert all(store.get(name)["features"].shape == (4, 512) for name in store.ids)


def test_regions(pictures, tmp_path):
    run(
        *("--pictures", pictures, "--regions", "--out", tmp_path / "out", "--device", "cpu"),
        *("--model", "fasterrcnn_mobilenet_v3_large_320_fpn", "--min-regions", 3),
        *("--max-regions", 6),
    )
    arrays = open_feature_store(tmp_path / "out").get("b_7")
    count = int(arrays["num_boxes"][0])
    assert 1 <= count <= 6
    assert (int(arrays["image_w"][0]), int(arrays["image_h"][0])) == (30, 64)
    assert arrays["features"].shape == (count, 1024) and arrays["boxes"].shape == (count, 4)
    assert (arrays["boxes"] >= 0).all() and (arrays["boxes"] <= [30, 64, 30, 64]).all()
    assert (arrays["boxes"][:, 2:] > arrays["boxes"][:, :2]).all()
    np.testing.assert_allclose(arrays["cls_prob"].sum(axis=1), 1, rtol=1e-4)


def test_salient_regions_are_the_winners_of_their_class():
    extractor = RegionExtractor.__new__(RegionExtractor)
    extractor.min_regions, extractor.max_regions = 1, 2
    extractor.min_score, extractor.max_overlap = 0.2, 0.3
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.3, 0.6, 0.1], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05]])
    # The second is beaten by the first in class 1, and in class 2 too; the last is below 0.2.
    assert extractor._salient(boxes, scores).tolist() == [0, 2]
    extractor.min_regions = extractor.max_regions = 3
    assert extractor._salient(boxes, scores).tolist() == [0, 2, 3]


def test_two_files_with_one_id_and_names_without_number(pictures):
    picture(3).save(pictures / "deep" / "c_8.jpg")
    with pytest.raises(UserError, match="would both have the id 'c_8'"):
        features.files_of_folder(pictures, PICTURE_SUFFIXES)
    picture(3).save(pictures / "plain.jpg")
    with pytest.raises(UserError, match=r"plain\.jpg' has no number"):
        features.files_of_folder(pictures, PICTURE_SUFFIXES, numbers=True)
    with pytest.raises(UserError, match=r"no file below .* ends with one of \.mp4"):
        features.files_of_folder(pictures, {".mp4"})
    with pytest.raises(UserError, match="is not a folder"):
        features.files_of_folder(pictures / "nothing", {".mp4"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "resnet1800"), "is no timm model"),
        (("--cells", -1), "is impossible"),
        (("--regions", "--model", "yolo"), "detector 'yolo' is unknown"),
        (("--regions", "--min-regions", 9, "--max-regions", 3), "9 to 3 regions"),
    ],
)
def test_impossible_arguments_are_one_sentence(pictures, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        run("--pictures", pictures, "--out", tmp_path / "out", *arguments)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_missing_library_is_no_bad_file(tmp_path):
    def read(path):
        raise MissingDependencyError("Videos need PyAV; pip install xmodaler[video]")

    sources = [features.Source("1", "1.mp4")]
    with pytest.raises(MissingDependencyError, match="Videos need PyAV"):
        features.extract_features(sources, read, list, FeatureSink(tmp_path / "out", {}))


def test_features_that_are_not_finite_are_a_bad_file(tmp_path):
    sources = [features.Source(str(k), str(k)) for k in range(3)]

    def compute(values):
        return [{"features": np.array([[float(value)]])} for value in values]

    def read(path):
        return "nan" if path == "1" else path

    sink = FeatureSink(tmp_path / "out", {})
    summary = features.extract_features(
        sources, read, compute, sink, batch_size=2, workers=1, max_bad_fraction=0.5
    )
    assert (summary.written, summary.total) == (2, 2)
    assert "not finite" in str(summary.problems[0])
