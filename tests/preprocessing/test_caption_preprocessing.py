"""From published caption files to vocabulary, arrays, references, and back through the loaders."""

import contextlib
import importlib.util
import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.datasets.annotations import read_captions, read_encoded_captions
from xmodaler.preprocessing import caption_files
from xmodaler.preprocessing.caption_sources import read_karpathy, read_videodatainfo
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR") or ROOT.parent / "shared" / "data")


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sentence(text, k=0):
    return {"tokens": text.lower().rstrip(".").split(), "raw": text, "imgid": 0, "sentid": k}


def image(cocoid, split, *texts, **more):
    return {
        "filepath": "val2014",
        "filename": f"COCO_val2014_{cocoid:012d}.jpg",
        "imgid": cocoid % 100,
        "cocoid": cocoid,
        "split": split,
        "sentences": [sentence(text, k) for k, text in enumerate(texts)],
        **more,
    }


IMAGES = [
    image(391895, "train", "A man rides a bike.", "A man on a red bike."),
    image(60623, "restval", "A girl eats a cake."),
    image(113588, "val", "A man and a girl."),
    image(7, "test", "A zebra on a bike.", "A bike."),
]


def written(tmp_path, images, rules=caption_files.COCO, **options):
    (tmp_path / "in.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    items, problems = read_karpathy(tmp_path / "in.json")
    options = {"min_count": 2, "max_bad_fraction": 0.5, **options}
    return caption_files.write_caption_files(items, problems, rules, tmp_path / "out", **options)


def test_coco_vocabulary_arrays_and_references(tmp_path):
    summary = written(tmp_path, IMAGES, max_length=5)
    words = (tmp_path / "out" / "vocabulary.txt").read_text().split("\n")[:-1]
    # Order of first appearance, over all splits; the unknown word last.
    assert words == ["a", "man", "bike", "on", "girl", "UNK"]
    records = read_encoded_captions(tmp_path / "out" / "mscoco_caption_anno_train.pkl")
    assert [record["image_id"] for record in records] == ["391895", "60623"]
    np.testing.assert_array_equal(records[0]["tokens_ids"][0], [0, 1, 2, 6, 1, 3])
    np.testing.assert_array_equal(records[0]["target_ids"][0], [1, 2, 6, 1, 3, 0])
    # Six words fill the target; there is no end.
    np.testing.assert_array_equal(records[0]["tokens_ids"][1], [0, 1, 2, 4, 1, 6])
    np.testing.assert_array_equal(records[0]["target_ids"][1], [1, 2, 4, 1, 6, 3])
    np.testing.assert_array_equal(records[1]["target_ids"][0], [1, 5, 6, 1, 6, 0])
    images, problems = read_captions(tmp_path / "out" / "captions_test5k.json")
    assert not problems and images[0].image_id == "7"
    assert images[0].captions == ["A zebra on a bike.", "A bike."]
    assert images[0].file_name == "val2014/COCO_val2014_000000000007.jpg"
    assert summary.items == {"train": 2, "val": 1, "test": 1}
    assert summary.sentences == {"train": 3, "val": 1, "test": 2}
    assert summary.clipped == {"train": 1, "val": 0, "test": 0}
    assert (summary.words, summary.seen_words) == (6, 11)
    assert summary.unknown["test"] == pytest.approx(1 / 7)
    assert "set MODEL.VOCAB_SIZE 7" in str(summary)


def test_arrays_as_npz_are_the_same(tmp_path):
    written(tmp_path, IMAGES)
    expected = read_encoded_captions(tmp_path / "out" / "mscoco_caption_anno_test.json")
    summary = written(tmp_path, IMAGES, suffix=".npz")
    found = read_encoded_captions(tmp_path / "out" / "mscoco_caption_anno_test.npz")
    np.testing.assert_array_equal(found[0]["tokens_ids"], expected[0]["tokens_ids"])
    np.testing.assert_array_equal(found[0]["target_ids"], expected[0]["target_ids"])
    # The .json of the first run would be found first.
    assert any("anno_train.json lies in the same folder" in note for note in summary.warnings)


def test_the_captioners_read_what_is_written(tmp_path):
    from xmodaler.config import get_cfg, kfg
    from xmodaler.datasets import DATASETS_REGISTRY

    written(tmp_path, [{**entry, "filepath": ""} for entry in IMAGES], caption_files.MSVD)
    cfg = get_cfg()
    cfg.DATALOADER.ANNO_FOLDER, cfg.DATALOADER.SEQ_PER_SAMPLE = str(tmp_path / "out"), 1
    cfg.MODEL.VOCAB_SIZE = 7
    dataset = DATASETS_REGISTRY.get("MSVDDataset")(cfg, "train")
    records = dataset.load_data(cfg)
    assert [record["video_id"] for record in records] == ["391895", "391895", "60623"]
    sample = dataset(records[2])
    assert sample[kfg.G_TARGET_IDS][0][:6].tolist() == [1, 5, 6, 1, 6, 0]
    assert len(sample[kfg.G_TARGET_IDS][0]) == 21
    dataset = DATASETS_REGISTRY.get("MSVDDataset")(cfg, "test")
    assert [record["video_id"] for record in dataset.load_data(cfg)] == ["7"]


VIDEOS = {
    "info": {"year": "2016"},
    "videos": [
        {"category": 9, "url": "x", "video_id": "video0", "split": "train", "id": 0},
        {"category": 9, "url": "x", "video_id": "video1", "split": "validate", "id": 1},
    ],
    "sentences": [
        {"caption": "a car is  shown", "video_id": "video0", "sen_id": 0},
        {"caption": "a car drives", "video_id": "video0", "sen_id": 1},
        {"caption": "a dog runs", "video_id": "video1", "sen_id": 2},
        {"caption": "a car", "video_id": "video1", "sen_id": 3},
    ],
}
TEST_VIDEOS = {
    "videos": [{"video_id": "video2", "split": "test", "id": 2}],
    "sentences": [{"caption": "a car is a dog", "video_id": "video2", "sen_id": 0}],
}


def videodatainfo(tmp_path, *contents):
    paths = []
    for k, content in enumerate(contents):
        paths.append(tmp_path / f"videodatainfo{k}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def test_msrvtt_counts_training_words_and_keeps_one_caption_for_testing(tmp_path, capsys):
    paths = videodatainfo(tmp_path, VIDEOS, TEST_VIDEOS)
    arguments = ["msrvtt", "--annotations", *map(str, paths), "--out", str(tmp_path / "out")]
    assert tool("preprocess").main([*arguments, "--min-count", "2"]) == 0
    assert (tmp_path / "out" / "vocabulary.txt").read_text() == "a\ncar\nUNK\n"
    train = read_encoded_captions(tmp_path / "out" / "msrvtt_caption_anno_train.json")
    assert [record["video_id"] for record in train] == ["0"]
    assert train[0]["target_ids"][:, :5].tolist() == [[1, 2, 3, 3, 0], [1, 2, 3, 0, -1]]
    val = read_encoded_captions(tmp_path / "out" / "msrvtt_caption_anno_val.json")
    assert val[0]["target_ids"].shape == (1, 21)
    images, _ = read_captions(tmp_path / "out" / "captions_val.json")
    assert images[0].captions == ["a dog runs", "a car"]
    printed = capsys.readouterr().out
    assert "val: 1 items, 2 captions" in printed and "vocabulary: 3 of 5 words" in printed


def test_msrvtt_ids_may_be_names(tmp_path):
    items, problems = read_videodatainfo(videodatainfo(tmp_path, VIDEOS), use_names=True)
    assert [item.item_id for item in items] == ["video0", "video1"] and not problems


def test_an_id_may_be_the_name_of_the_file_without_its_ending(tmp_path):
    entry = {"imgid": 4, "filename": "mv89psg6zh4_33_46.avi", "split": "train"}
    entry["sentences"] = [sentence("A bird.")]
    (tmp_path / "in.json").write_text(json.dumps({"images": [entry]}))
    items, _ = read_karpathy(tmp_path / "in.json", "filename")
    assert [item.item_id for item in items] == ["mv89psg6zh4_33_46"]


def test_what_is_unusable_is_dropped_counted_and_named(tmp_path):
    bad = [
        image(1, "train", "...", "A fine cake."),
        image(2, "train"),
        image(7, "train", "Twice the same id."),
        image(3, "extra", "In no split."),
        {"split": "train", "sentences": []},
        {**image(4, "train"), "sentences": [{"raw": "no tokens"}]},
        "text",
        {**image(5, "train", "x"), "split": None},
    ]
    bad[0]["sentences"][0]["tokens"] = [" "]
    summary = written(tmp_path, [*IMAGES, *bad], max_bad_fraction=0.9)
    assert summary.items == {"train": 3, "val": 1, "test": 1}
    text = "\n".join(str(problem) for problem in summary.problems)
    for part in (
        "images[4] (id 1): sentence 0 has no word",
        "id 2: has no caption",
        "the id 7 occurs 2 times; the first is kept",
        "its split 'extra' is none of train, val, test",
        "images[8]: no 'cocoid' and no 'imgid' that is an id",
        "sentence 0 has no list 'tokens' of words",
        "images[10]: not an object",
        "images[11]: 'split' is missing",
    ):
        assert part in text
    assert str(summary).count("dropped ") == len(summary.problems)
    with pytest.raises(UserError, match=r"7 of 12 items are unusable, more than 0\.1"):
        written(tmp_path, [*IMAGES, *bad], max_bad_fraction=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no Karpathy-style file"),
        ('{"images": [{"id": 1}], "annotations": []}', "is no Karpathy-style file"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(tmp_path, content, message):
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_karpathy(tmp_path / "in.json")
    assert "\n" not in str(caught.value)
    if content != "{":
        with pytest.raises(UserError, match="is no videodatainfo file"):
            read_videodatainfo([tmp_path / "in.json"])


def test_a_missing_split_is_named_with_those_found(tmp_path):
    with pytest.raises(UserError, match=r"the split 'test'; found: train \(2\), val \(1\)"):
        written(tmp_path, IMAGES[:3])
    assert not (tmp_path / "out").exists()
    assert written(tmp_path, IMAGES[:3], splits=["train", "val"]).items.total() == 3
    paths = videodatainfo(tmp_path, TEST_VIDEOS)
    items, problems = read_videodatainfo(paths)
    with pytest.raises(UserError, match="words are counted in the split train"):
        caption_files.write_caption_files(
            items, problems, caption_files.MSRVTT, tmp_path / "o", splits=["test"]
        )


def test_rare_words_only_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="no word occurs 50 times"):
        written(tmp_path, IMAGES, min_count=50)


def test_sentences_of_unknown_videos_are_told(tmp_path):
    content = {**TEST_VIDEOS, "sentences": [{"caption": "x", "video_id": "video9"}, {"caption": 3}]}
    _, problems = read_videodatainfo(videodatainfo(tmp_path, content))
    assert "unknown video 'video9'" in str(problems[0])
    assert "no 'caption' that is text" in str(problems[1])


def test_words_are_one_line_of_text_each(tmp_path):
    odd = image(1, "train", "x")
    odd["sentences"] = [{"tokens": ["hot dog", "a\nb", "c"], "raw": "hot"}, {"tokens": ["\ud83d"]}]
    summary = written(tmp_path, [odd, *IMAGES[1:]], min_count=1)
    words = (tmp_path / "out" / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    assert words[:5] == ["hot", "dog", "a", "b", "c"]
    assert "sentence 1 has characters that are not Unicode text" in str(summary.problems[0])


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 9),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.sampled_from(["train", "val", "test", "validate", "video1", "a dog"]),
)
NAMES = ("images", "sentences", "tokens", "raw", "split", "cocoid", "videos", "video_id", "id")
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from([*NAMES, "caption"]), inner, max_size=6),
    ),
    max_leaves=12,
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"split": st.sampled_from(["train", "val", "test"])},
        optional={
            "sentences": st.lists(st.one_of(st.fixed_dictionaries({"tokens": VALUES}), VALUES)),
            **{name: VALUES for name in ("cocoid", "imgid", "filename", "video_id", "id")},
        },
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(entries=st.one_of(ENTRIES, VALUES), sentences=VALUES)
def test_any_json_is_read_or_refused_in_one_sentence(tmp_path_factory, entries, sentences):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").write_text(json.dumps({"images": entries}))
    (folder / "b.json").write_text(json.dumps({"videos": entries, "sentences": sentences}))
    for read, name in ((read_karpathy, "a"), (lambda path: read_videodatainfo([path]), "b")):
        with contextlib.suppress(UserError):
            items, problems = read(folder / f"{name}.json")
            caption_files.write_caption_files(
                items, problems, caption_files.COCO, folder / "out", splits=["train"], min_count=1
            )
            assert (folder / "out" / "captions_train.json").is_file()


MSVD_CAPTIONS = DATA / "msvd_text" / "train_1450_captions.json"


@pytest.mark.skipif(not MSVD_CAPTIONS.exists(), reason="the captions of MSVD are not here")
def test_real_msvd_captions(tmp_path):
    clips = json.loads(MSVD_CAPTIONS.read_text(encoding="utf-8"))
    images = []
    for k, clip in enumerate(clips):
        sentences = [
            {"tokens": re.findall(r"[a-z0-9']+", text.lower()), "raw": text, "sentid": n}
            for n, text in enumerate(clip["captions"])
        ]
        split = ("train", "val", "test")[0 if k < 1200 else 1 if k < 1300 else 2]
        images.append(
            {"imgid": k, "filename": clip["video"], "split": split, "sentences": sentences}
        )
    summary = written(tmp_path, images, caption_files.MSVD, min_count=None)
    assert summary.items == {"train": 1200, "val": 100, "test": 150}
    counts = Counter(w for i in images for s in i["sentences"] for w in s["tokens"])
    words = (tmp_path / "out" / "vocabulary.txt").read_text(encoding="utf-8").split()
    assert sorted(words[:-1]) == sorted(w for w in counts if counts[w] > 3) and words[-1] == "UNK"
    records = read_encoded_captions(tmp_path / "out" / "msvd_caption_anno_train.json")
    assert sum(len(r["tokens_ids"]) for r in records) == summary.sentences["train"]
    # Every stored caption reads back as its words.
    row = records[5]["target_ids"][2]
    kept = [words[k - 1] for k in row[row > 0]]
    expected = [w if counts[w] > 3 else "UNK" for w in images[5]["sentences"][2]["tokens"]]
    assert kept == expected[:21]


COCO_CAPTIONS = DATA / "coco_val2017_text" / "captions_val2017.json"


@pytest.mark.skipif(not COCO_CAPTIONS.exists(), reason="the captions of COCO are not here")
@pytest.mark.slow
def test_real_coco_captions(tmp_path):
    images, _ = read_captions(COCO_CAPTIONS)
    entries = [
        image(int(found.image_id), ("train", "restval", "val", "test")[k % 4], *found.captions)
        for k, found in enumerate(images)
    ]
    summary = written(tmp_path, entries, min_count=None)
    assert summary.items == {"train": 2500, "val": 1250, "test": 1250}
    assert 2000 < summary.words < 4000 and summary.unknown["train"] < 0.05
    found, problems = read_captions(tmp_path / "out" / "captions_val5k.json")
    assert not problems and len(found) == 1250
