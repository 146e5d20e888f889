"""Feature stores: folders, packed files, files beside them."""

import os
import pickle
import re
import struct

import numpy as np
import pytest

from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.feature_store import SideFile, open_feature_store, read_arrays
from xmodaler.datasets.packed_store import MAGIC
from xmodaler.datasets.packing import pack, records_of_array, records_of_folder
from xmodaler.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Three records: one array under a name of its own, a bare array, one with boxes."""
    random = np.random.default_rng(0)
    path = tmp_path / "features"
    path.mkdir()
    np.savez(path / "10.npz", feat=random.normal(size=(3, 4)).astype(np.float32))
    np.save(path / "9.npy", random.normal(size=(5, 4)).astype(np.float32))
    np.savez(
        path / "b.npz",
        features=random.normal(size=(2, 4)).astype(np.float32),
        boxes=random.uniform(size=(2, 4)).astype(np.float32),
        image_h=np.array([7]),
        g_feature=np.ones(6, np.float32),
    )
    (path / "notes.txt").write_text("not a feature")
    return path


def test_folder(folder):
    store = open_feature_store(folder)
    assert store.ids == ["10", "9", "b"] and len(store) == 3
    assert "9" in store and "notes" not in store
    assert list(store.get("10")) == ["features"] and store.get("9")["features"].shape == (5, 4)
    assert set(store.get("b")) == {"features", "boxes", "image_h", "g_feature"}


def test_packed_file_gives_what_the_folder_gives(folder, tmp_path):
    out = tmp_path / "packed"
    assert pack(records_of_folder(folder), out) == (3, [])
    packed, loose = open_feature_store(out), open_feature_store(folder)
    assert packed.ids == loose.ids and len(packed) == 3 and "x" not in packed
    for record_id in loose.ids:
        mine, theirs = packed.get(record_id), loose.get(record_id)
        assert set(mine) == set(theirs)
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])
            mine[name][...] = 0  # a copy: the file must not change
            np.testing.assert_array_equal(packed.get(record_id)[name], theirs[name])


def test_files_in_folders_below_are_packed_too(tmp_path):
    folder = tmp_path / "feats"
    (folder / "movie" / "scene").mkdir(parents=True)
    np.save(folder / "1.npy", np.ones((2, 3)))
    np.save(folder / "movie" / "scene" / "7.npy", np.zeros((4, 3)))
    store = open_feature_store(folder)
    assert store.ids == ["1", "movie/scene/7"]
    packed = tmp_path / "feats.xmf"
    pack(records_of_folder(folder), packed)
    assert open_feature_store(packed).get("movie/scene/7")["features"].shape == (4, 3)


def test_packed_store_travels_to_workers(folder, tmp_path):
    pack(records_of_folder(folder), tmp_path / "p")
    store = open_feature_store(tmp_path / "p")
    store.get("9")
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.get("9")["features"], store.get("9")["features"])
    assert len(pickle.dumps(store)) < 2000


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_smaller_types(tmp_path, dtype):
    values = np.random.default_rng(1).uniform(0, 5, size=(3, 4)).astype(np.float32)
    scale = 5 / 255 if dtype == "uint8" else None
    pack([("a", {"features": values})], tmp_path / "p", dtype=dtype, scale=scale)
    got = open_feature_store(tmp_path / "p").get("a")["features"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, values, atol=0.5 * 5 / 255 + 1e-6)


def test_stored_units_are_scaled_exactly(tmp_path):
    units = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "f.npz", features=units)
    (tmp_path / "ids.json").write_text('{"images": [{"id": 5, "row": 1}, {"id": 7, "row": 0}]}')
    records = records_of_array(f"{tmp_path}/f.npz:features", tmp_path / "ids.json")
    assert pack(records, tmp_path / "p", scale=0.25) == (2, [])
    store = open_feature_store(tmp_path / "p")
    np.testing.assert_array_equal(store.get("5")["features"], units[1] * np.float32(0.25))
    assert (tmp_path / "p").stat().st_size < 1000


def test_rows_of_vectors_and_ids_in_order(tmp_path):
    np.save(tmp_path / "f.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    (tmp_path / "ids.json").write_text('["x", "y"]')
    pack(records_of_array(f"{tmp_path}/f.npy", tmp_path / "ids.json"), tmp_path / "p")
    assert open_feature_store(tmp_path / "p").get("y")["features"].tolist() == [[3, 4, 5]]


def test_bad_records_are_left_out_and_named(tmp_path):
    good = {"features": np.ones((1, 2), np.float32)}
    records = [(str(k), good) for k in range(6)]
    records += [
        ("nan", {"features": np.full((1, 2), np.nan, np.float32)}),
        ("3", good),
        ("text", {"features": np.array(["a"])}),
        ("flat", {"features": np.ones(2, np.float32)}),
        ("none", {"boxes": np.ones((1, 4))}),
    ]
    written, problems = pack(records, tmp_path / "p", max_bad_fraction=0.5)
    assert written == 6
    reasons = [str(problem) for problem in problems]
    for text in (
        "'nan'.*NaN",
        "'3'.*twice",
        "'text'.*not numbers",
        "'flat'.*1-dim",
        "'none'.*none",
    ):
        assert any(re.search(text, reason) for reason in reasons), text
    with pytest.raises(UserError, match="5 of 11 records are bad"):
        pack(records, tmp_path / "q")
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"dtype": "int4"}, "dtype 'int4' is unknown"),
        ({"dtype": "uint8"}, "need a scale"),
        ({"scale": 0.0}, "scale 0.0 is impossible"),
        ({"dtype": "uint8", "scale": 0.001}, "outside 0 .. 0.255"),
    ],
)
def test_impossible_wishes(tmp_path, kwargs, words):
    with pytest.raises(UserError, match=words):
        pack([("a", {"features": np.ones((1, 2), np.float32)})], tmp_path / "p", **kwargs)


def test_overflow_of_half_precision_is_found(tmp_path):
    with pytest.raises(UserError, match="do not fit into float16"):
        pack([("a", {"features": np.full((1, 2), 1e6)})], tmp_path / "p", dtype="float16")


def test_damaged_packed_files(folder, tmp_path):
    path = tmp_path / "p"
    pack(records_of_folder(folder), path)
    whole = path.read_bytes()
    later = MAGIC + struct.pack("<I", 9) + whole[12:]
    cases = [
        (whole[:-5], "cut off or damaged"),
        (whole[:10], "not a feature file"),
        (b"", "not a feature file"),
        (b"PK" + whole, "not a feature file"),
        (later, "version 9"),
    ]
    for content, words in cases:
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            open_feature_store(path)
    path.write_bytes(whole.replace(b'"dimensions": 2', b'"dimensions": 9'))
    with pytest.raises(SampleError, match=r"record '9': its entry in .* is damaged"):
        open_feature_store(path).get("9")
    with pytest.raises(UserError, match=r"do not exist; DATALOADER\.FEATS_FOLDER"):
        open_feature_store(tmp_path / "nowhere")


def test_damaged_feature_files(folder):
    store = open_feature_store(folder)
    with pytest.raises(SampleError, match=r"neither nix\.npz nor nix\.npy"):
        store.get("nix")
    for content in (b"", b"PK\x03\x04 cut off", (folder / "b.npz").read_bytes()[:300]):
        (folder / "bad.npz").write_bytes(content)
        with pytest.raises(SampleError, match=r"bad\.npz.*not readable"):
            store.get("bad")


def test_objects_in_feature_files_are_not_executed(folder, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    np.save(folder / "evil.npy", np.array([Attack()], dtype=object), allow_pickle=True)
    with pytest.raises(SampleError, match="not readable"):
        read_arrays(folder / "evil.npy")
    assert not (tmp_path / "attacked").exists()


def test_side_files(tmp_path, folder):
    arrays = {"1": np.ones(3, np.float32), "2": np.zeros(3, np.float32)}
    np.savez(tmp_path / "side.npz", **arrays)
    with open(tmp_path / "side.pkl", "wb") as file:
        pickle.dump({int(key): value for key, value in arrays.items()}, file)
    pack(((key, {"features": value}) for key, value in arrays.items()), tmp_path / "side.packed")
    for name in ("side.npz", "side.pkl", "side.packed"):
        side_file = SideFile(str(tmp_path / name))
        assert side_file and side_file.get("1").tolist() == [1, 1, 1]
        assert side_file.get("000002").tolist() == [0, 0, 0]
        with pytest.raises(SampleError, match="has no entry"):
            side_file.get("3")
    assert not SideFile("")
    with pytest.raises(UserError, match="RELATION_FILE"):
        SideFile(str(tmp_path / "none.pkl")).load()


def test_what_a_config_names_is_found_under_its_packed_name(folder, tmp_path):
    packed = tmp_path / "up_down.xmf"
    pack(records_of_folder(folder), packed)
    assert open_feature_store(tmp_path / "up_down").ids == open_feature_store(packed).ids
    np.savez(tmp_path / "relation.npz", **{"7": np.ones((2, 2))})
    assert SideFile(str(tmp_path / "relation.pkl")).get("7").shape == (2, 2)
    packed.rename(tmp_path / "attributes.xmf")
    assert len(SideFile(str(tmp_path / "attributes.pkl")).load()) == 3
