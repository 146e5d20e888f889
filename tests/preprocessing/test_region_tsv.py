"""Bottom-up-attention TSV files and the folders and packed files that features go to."""

import base64
import errno
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.feature_store import open_feature_store
from xmodaler.preprocessing.feature_sink import FeatureSink
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def encoded(array):
    return base64.b64encode(np.asarray(array, dtype="<f4").tobytes()).decode()


def line(image_id, count=2, width=3, seed=0):
    rng = np.random.default_rng(seed)
    boxes, features = rng.random((count, 4)), rng.random((count, width))
    cells = [image_id, 640, 480, count, encoded(boxes), encoded(features)]
    return "\t".join(map(str, cells)) + "\n", boxes, features


def convert(*arguments):
    spec = importlib.util.spec_from_file_location("conv", ROOT / "tools" / "convert_features.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main([str(argument) for argument in arguments])


def test_one_archive_a_picture_without_boxes(tmp_path, capsys):
    text, _, features = line("000042")
    (tmp_path / "a.tsv").write_text(text + "\n" + line("7", count=4)[0])
    assert convert("--infeats", tmp_path / "a.tsv", "--outfolder", tmp_path / "out") == 0
    store = open_feature_store(tmp_path / "out")
    assert store.ids == ["42", "7"]
    assert list(store.get("42")) == ["features"]
    np.testing.assert_array_equal(store.get("42")["features"], features.astype(np.float32))
    assert "wrote 2, had 0 already, left out 0; 2 records" in capsys.readouterr().out
    assert convert("--infeats", tmp_path / "a.tsv", "--out", tmp_path / "out") == 0
    assert "wrote 0, had 2 already" in capsys.readouterr().out


def test_a_packed_file_with_boxes_that_a_second_run_adds_to(tmp_path):
    text, boxes, _ = line("1")
    (tmp_path / "a.tsv").write_text(text)
    (tmp_path / "b.tsv").write_text(line("2", seed=1)[0])
    out = tmp_path / "features.xmf"
    convert("--infeats", tmp_path / "a.tsv", "--out", out, "--boxes", "--dtype", "float16")
    convert("--infeats", tmp_path / "b.tsv", "--out", out, "--boxes", "--dtype", "float16")
    store = open_feature_store(out)
    assert store.ids == ["1", "2"] and not (tmp_path / "features.xmf.parts").exists()
    arrays = store.get("1")
    np.testing.assert_array_equal(arrays["boxes"], boxes.astype(np.float32))
    assert [int(arrays[k][0]) for k in ("image_w", "image_h", "num_boxes")] == [640, 480, 2]


def test_bad_lines_are_left_out_and_named(tmp_path, capsys):
    good, _, _ = line("1")
    cells = good.rstrip("\n").split("\t")
    bad = [
        "only\ttwo\n",
        "\t".join([*cells[:3], "3", *cells[4:]]) + "\n",
        "\t".join([*cells[:1], "wide", *cells[2:]]) + "\n",
        "\t".join([*cells[:5], "!!!"]) + "\n",
        "\t".join(["5", *cells[1:4], cells[4], encoded([[np.nan] * 3] * 2)]) + "\n",
        good,
        "\t".join(["../x", *cells[1:]]) + "\n",
    ]
    (tmp_path / "a.tsv").write_text(good + "".join(bad))
    convert("--infeats", tmp_path / "a.tsv", "--out", tmp_path / "out")
    printed = capsys.readouterr().out
    for part in (
        "a.tsv line 2: 2 fields where 6 are due",
        "a.tsv line 3: 8 numbers of boxes and 6 of features do not make 3 regions",
        "a.tsv line 4: the sizes wide, 480, 2 are not numbers",
        "a.tsv line 5: 8 numbers of boxes and 0 of features",
        "record '5': its features are not finite",
        "picture 1: occurs twice",
        "record '../x': its id cannot be the name of a file",
        "wrote 1, had 0 already, left out 7; 1 records",
    ):
        assert part in printed
    assert open_feature_store(tmp_path / "out").ids == ["1"]


def test_files_without_a_picture_and_missing_files(tmp_path):
    (tmp_path / "a.tsv").write_text("x\n")
    with pytest.raises(
        UserError, match=r"no usable picture in .*a\.tsv; the first problem: a\.tsv"
    ):
        convert("--infeats", tmp_path / "a.tsv", "--out", tmp_path / "out")
    with pytest.raises(UserError, match=r"b\.tsv' cannot be read"):
        convert("--infeats", tmp_path / "b.tsv", "--out", tmp_path / "out")


ARRAYS = {"features": np.ones((1, 2), np.float32)}


def test_features_of_two_kinds_are_not_mixed(tmp_path):
    FeatureSink(tmp_path / "out", {"model": "a"}).write("1", ARRAYS)
    FeatureSink(tmp_path / "out", {"model": "a"})
    with pytest.raises(UserError, match="made with model 'a', not 'b'"):
        FeatureSink(tmp_path / "out", {"model": "b"})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        FeatureSink(tmp_path / "file", {})


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    sink = FeatureSink(tmp_path / "out", {})
    sink.write("1", ARRAYS)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("xmodaler.utils.atomic.os.fsync", full)
    with pytest.raises(UserError, match="disk is full") as caught:
        sink.write("2", ARRAYS)
    assert not isinstance(caught.value, SampleError)
    assert "1" in sink and "2" not in sink
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.npz"]


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    out = tmp_path / "features.xmf"
    FeatureSink(out, {"model": "a"}).write("1", ARRAYS)
    sink = FeatureSink(out, {"model": "a"})
    assert "1" in sink and not out.exists()
    sink.write("2", ARRAYS)
    assert sink.finish() == 2 == len(open_feature_store(out))
    assert FeatureSink(out, {"model": "a"}).finish() == 2
