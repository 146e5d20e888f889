"""Tokenizer, masking, boxes and data sets of understanding against the reference's."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from xmodaler import functional
from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import build_dataset_mapper, build_xmodaler_train_loader, collate
from xmodaler.losses import build_losses
from xmodaler.tokenization import BertTokenizer


@pytest.fixture(scope="module")
def tokenizer(vlp_shared):
    return BertTokenizer.from_pretrained(vlp_shared / "datasets" / "vocab.txt", do_lower_case=True)


class Script:
    """Random numbers given beforehand, in the order in which they are asked for."""

    def __init__(self, monkeypatch, uniform, integers):
        self.uniform, self.integers = list(uniform), list(integers)
        monkeypatch.setattr(random, "random", lambda: self.uniform.pop(0))
        monkeypatch.setattr(np.random, "randint", lambda *_, **__: self.integers.pop(0))

    def used_up(self):
        return not self.uniform and not self.integers


def test_texts_become_the_same_pieces_and_ids(vlp_shared, tokenizer):
    cases = json.loads((vlp_shared / "tokenizer" / "cases.json").read_text())
    for case in cases["cases"]:
        assert tokenizer.tokenize(case["text"]) == case["tokens"]
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.add_special_tokens_single_sentence(case["ids"]) == case["single"]
    ids = np.array(cases["decode"]["ids"])
    sentences = functional.decode_sequence_bert(tokenizer, ids, tokenizer.sep_token_id)
    assert sentences == cases["decode"]["sentences"]


def _scripted(vlp_shared, name):
    return json.loads((vlp_shared / "masking" / "scripted.json").read_text())[name]


def test_words_are_hidden_by_the_same_draws(vlp_shared, tokenizer, monkeypatch):
    for case in _scripted(vlp_shared, "random_word"):
        script = Script(monkeypatch, case["random"], case["randint"])
        tokens, labels = functional.random_word(case["tokens"], tokenizer, case["must_mask"])
        assert (tokens, labels) == (case["out_tokens"], case["labels"])
        assert script.used_up()


def test_captions_are_hidden_by_the_same_draws(vlp_shared, tokenizer, monkeypatch):
    for case in _scripted(vlp_shared, "caption_to_mask_tokens"):
        script = Script(monkeypatch, case["random"], case["randint"])
        returned = functional.caption_to_mask_tokens(
            case["caption"],
            case["max_seq_length"],
            tokenizer,
            need_g_tokens=case["need_g_tokens"],
            need_no_mask_tokens=case["need_no_mask_tokens"],
            must_mask=case["must_mask"],
        )
        assert [array.tolist() for array in returned] == case["returned"]
        assert script.used_up()


def test_regions_are_hidden_by_the_same_draws(vlp_shared, monkeypatch):
    for case in _scripted(vlp_shared, "random_region"):
        script = Script(monkeypatch, case["random"], [])
        boxes = np.array(case["boxes"], dtype=np.float32)
        features = np.array(case["features"], dtype=np.float32)
        hidden, labels, count = functional.random_region(features, functional.iou(boxes, boxes))
        np.testing.assert_array_equal(hidden, np.array(case["out_features"], dtype=np.float32))
        assert list(labels) == case["labels"] and count == case["masked_num"]
        assert script.used_up()


def _close_to_count(count, total, expected_share):
    """Within five standard deviations of a binomial count."""
    spread = 5 * (expected_share * (1 - expected_share) / total) ** 0.5
    return abs(count / total - expected_share) < spread + 1e-9


def test_statistics_of_hiding(vlp_shared, tokenizer):
    counts = json.loads((vlp_shared / "masking" / "meta.json").read_text())
    words = counts["random_word_counts"]
    random.seed(3)
    np.random.seed(3)
    total = 60_000
    given = [7 + index % 100 for index in range(total)]
    tokens, labels = functional.random_word(list(given), tokenizer)
    chosen = [k for k, label in enumerate(labels) if label != -1]
    hidden = sum(tokens[k] == tokenizer.mask_token_id for k in chosen)
    same = sum(tokens[k] == given[k] for k in chosen)
    assert _close_to_count(len(chosen), total, words["selected"] / words["tokens"])
    assert _close_to_count(hidden, len(chosen), words["mask"] / words["selected"])
    assert _close_to_count(same, len(chosen), words["same"] / words["selected"])
    low, high = counts["random_replacement_id_range_seen"]
    assert {min(tokens), max(tokens)} == {low, high}

    regions = counts["random_region_counts"]
    chosen = kept = 0
    for _ in range(2000):
        features = np.ones((8, 2), dtype=np.float32)
        features, labels, _ = functional.random_region(features, np.eye(8))
        chosen += labels.count(1)
        kept += sum(label == 1 and row.any() for label, row in zip(labels, features, strict=True))
    assert _close_to_count(chosen, 16_000, regions["selected"] / regions["regions"])
    assert kept == regions["selected_not_zeroed"] == 0


def test_boxes(vlp_shared):
    folder = vlp_shared / "boxes"
    given = load_file(str(folder / "inputs.safetensors"))
    expected = load_file(str(folder / "expected.safetensors"))
    anchors, boxes = given["anchors"].numpy(), given["gt"].numpy()
    _assert_close(functional.iou(anchors, boxes), expected["iou_anchors_gt"])
    _assert_close(functional.iou(anchors, anchors), expected["iou_self"])
    locations = functional.boxes_to_locfeats(anchors, int(given["image_w"]), int(given["image_h"]))
    _assert_close(locations, expected["locfeats"])
    readings = sorted({key.rsplit("/", 1)[0] for key in expected if key.startswith("read_np_bbox")})
    assert readings
    for reading in readings:
        _, most, mean = reading.split("/")
        features, locations = functional.read_np_bbox(
            folder / "sample.npz", int(most.removeprefix("max")), mean == "global1"
        )
        _assert_close(features, expected[f"{reading}/features"])
        _assert_close(locations, expected[f"{reading}/loc"])


def _assert_close(found, expected):
    expected = expected.float() if expected.is_floating_point() else expected
    torch.testing.assert_close(torch.as_tensor(found), expected, atol=1e-5, rtol=1e-5)


# -- data sets -----------------------------------------------------------------------------------

SETTINGS = {
    "conceptual_captions": "features/up_down",
    "flickr30k": "features/up_down",
    "mscoco": "features/up_down_with_bbox",
    "vcr": "features/up_down",
    "vqa": "features/up_down",
}


class Corpus:
    """The data sets of the fixtures with a config for each, and what they must give."""

    def __init__(self, shared):
        self.shared = shared
        self.meta = json.loads((shared / "datasets_expected" / "meta.json").read_text())

    def config(self, corpus, **loader):
        limits = self.meta["config"]
        length = limits["MAX_SEQ_LEN"]
        folder = self.shared / "datasets" / corpus
        cfg = get_cfg()
        vocabulary = self.shared / "datasets" / "vocab.txt"
        cfg.MODEL.PRETRAINING.MODEL_NAME = str(vocabulary)
        cfg.MODEL.VOCAB_SIZE = len(vocabulary.read_text().splitlines())
        cfg.MODEL.MAX_SEQ_LEN = length["tden_caption" if corpus == "mscoco" else "default"]
        cfg.DATALOADER.ANNO_FOLDER = str(folder)
        cfg.DATALOADER.FEATS_FOLDER = str(folder / SETTINGS[corpus])
        cfg.DATALOADER.MAX_FEAT_NUM = limits["MAX_FEAT_NUM"]
        cfg.DATALOADER.NEGATIVE_SIZE = 2
        for key, value in loader.items():
            cfg.DATALOADER[key] = value
        return cfg

    def expected(self, name):
        return load_file(str(self.shared / "datasets_expected" / f"{name}.safetensors"))

    def order(self, name):
        return self.meta["order"][name]

    def draws(self):
        path = self.shared / "datasets_expected" / "conceptual_captions_draws.json"
        return json.loads(path.read_text())


@pytest.fixture(scope="module")
def corpus(vlp_shared):
    if not (vlp_shared / "datasets_expected" / "meta.json").is_file():
        pytest.skip(f"no data sets in {vlp_shared}")
    return Corpus(vlp_shared)


def build(name, cfg, stage="train"):
    """A mapper and its records."""
    mapper = build_dataset_mapper(cfg, name, stage)
    return mapper, mapper.load_data(cfg)


def flat(value, prefix=""):
    """Nested samples as ``key`` and ``key/place``."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{key}").items()}
    if isinstance(value, list):
        return {
            k: v for n, part in enumerate(value) for k, v in flat(part, f"{prefix}/{n}").items()
        }
    return {prefix: value}


def check(sample, expected, prefix):
    """A sample holds exactly the tensors below a prefix."""
    wanted = {k.removeprefix(prefix): v for k, v in expected.items() if k.startswith(prefix)}
    found = {k: v for k, v in flat(sample).items() if isinstance(v, torch.Tensor)}
    assert wanted, prefix
    assert set(found) == set(wanted), prefix
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype, (prefix, key)
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5, msg=f"{prefix}{key}")


@pytest.mark.parametrize("model", ["tden", "uniter"])
def test_conceptual_captions(corpus, monkeypatch, model):
    suffix = "" if model == "tden" else "ForSingleStream"
    expected, order = corpus.expected("conceptual_captions"), corpus.order("conceptual_captions")
    cfg = corpus.config("conceptual_captions")
    cfg.MODEL.ITM_NEG_PROB = 0.0
    mapper, records = build(f"ConceptualCaptionsDataset{suffix}", cfg)
    assert [record["image_id"] for record in records] == order["order"]
    assert {record["image_id"]: record["caption"] for record in records} == order["captions"]
    draws = corpus.draws()
    for record in records:
        image = record["image_id"]
        for name, draw in (("nomask", 0.99), ("allmask", 0.0)):
            if f"{model}/{name}/{image}/ATT_FEATS" in expected:
                monkeypatch.setattr(random, "random", lambda draw=draw: draw)
                check(mapper(record), expected, f"{model}/{name}/{image}/")
        case = draws[f"{model}/{image}"]
        script = Script(monkeypatch, case["random"], case["randint"])
        check(mapper(record), expected, f"{model}/scripted/{image}/")
        assert script.used_up()
        monkeypatch.undo()


def test_captions_of_other_pictures(corpus):
    cfg = corpus.config("conceptual_captions")
    mapper, records = build("ConceptualCaptionsDatasetForSingleStream", cfg)
    caption = records[1]["caption"]  # another picture has the same
    random.seed(0)
    np.random.seed(0)
    found = [mapper.random_cap(caption) for _ in range(4000)]
    share, _ = corpus.order("conceptual_captions")["itm_negative_fraction"]
    assert abs(sum(label for _, label in found) / 4000 - share) < 0.04
    assert all((text == caption) == (label == 0) for text, label in found)
    assert len({text for text, label in found if label}) == len({r["caption"] for r in records}) - 1


def test_coco_captions_in_word_pieces(corpus, monkeypatch):
    expected = corpus.expected("mscoco_bert")
    cfg = corpus.config("mscoco")
    for stage in ("train", "val", "test"):
        mapper, records = build("MSCoCoBertDataset", cfg, stage)
        assert [record["image_id"] for record in records] == corpus.order(f"mscoco_{stage}")
        for record in records:
            image = record["image_id"]
            assert record["tokens_ids"].dtype == np.uint32
            for key in ("tokens_ids", "target_ids"):
                _assert_close(record[key].astype(np.int64), expected[f"{stage}/{image}/{key}"])
            monkeypatch.setattr(random, "sample", lambda options, count: list(options)[:count])
            monkeypatch.setattr(random, "choices", lambda options, k: [next(iter(options))] * k)
            sample = mapper(record)
            assert sample[kfg.IDS] == image
            if stage == "train":
                check(sample, expected, f"train_first/{image}/")
            else:
                encoded = {k: v for k, v in expected.items() if not k.endswith("_ids")}
                check(sample, encoded, f"{stage}/{image}/")


@pytest.mark.parametrize(
    ("name", "stage", "mean", "draw"),
    [
        ("global/train/", "train", True, 0.1),
        ("global/train_mirror/", "train", True, 0.9),
        ("global/val/", "val", True, 0.5),
        ("noglobal/val/", "val", False, 0.5),
        ("global/test/", "test", True, 0.5),
    ],
)
def test_vqa(corpus, monkeypatch, name, stage, mean, draw):
    mapper, records = build("VQADataset", corpus.config("vqa", USE_GLOBAL_V=mean), stage)
    order = corpus.order(f"vqa_{stage}")
    assert [[str(r["question_id"]), str(r["image_id"])] for r in records] == order
    monkeypatch.setattr(random, "random", lambda: draw)
    expected = corpus.expected("vqa")
    for record in records:
        sample = mapper(record)
        check(sample, expected, f"{name}{sample[kfg.IDS]}/")


@pytest.mark.parametrize("task", ["VCR_Q-A", "VCR_QA-R"])
@pytest.mark.parametrize(
    ("name", "stage", "mean", "draw"),
    [
        ("global/train/", "train", True, 0.1),
        ("global/train_mirror/", "train", True, 0.9),
        ("global/val/", "val", True, 0.5),
        ("noglobal/val/", "val", False, 0.5),
    ],
)
def test_vcr(corpus, monkeypatch, name, stage, mean, draw, task):
    expected = corpus.expected("vcr")
    if not any(key.startswith(f"{name}{task}/") for key in expected):
        pytest.skip(f"the fixtures have no {name}{task}")
    mapper, records = build(
        "VCRDataset", corpus.config("vcr", USE_GLOBAL_V=mean), f"{stage};{task}"
    )
    monkeypatch.setattr(random, "random", lambda: draw)
    for place, record in enumerate(records):
        sample = mapper(record)
        assert sample[kfg.IDS] == str(place)
        check(sample, expected, f"{name}{task}/{place}/")


def test_flickr30k(corpus):
    expected = corpus.expected("flickr30k")
    cfg = corpus.config("flickr30k")
    for stage in ("train", "test"):
        mapper, records = build("Flickr30kDataset", cfg, stage)
        for place, record in enumerate(records):
            sample = mapper(record)
            ids = sample[kfg.IDS]
            image = corpus.order(f"flickr_{stage}")[place]
            texts = len(sample[kfg.U_TOKENS_IDS])
            assert ids == (image if stage == "train" else [image, [image] * texts])
            check(sample, expected, f"{stage}/{place}/")


def test_flickr30k_pairs_for_one_stream(corpus):
    layout = corpus.order("flickr_single_stream_train")
    cfg = corpus.config("flickr30k", USE_GLOBAL_V=False)
    mapper, records = build("Flickr30kDatasetForSingleStream", cfg)
    captions = {tuple(record["tokens"][0]): record["image_id"] for record in records}
    for record in records:
        sample = mapper(record)
        assert int(sample[kfg.SAMPLE_PER_SAMPLE]) == layout["sample_per_sample"]
        assert sample[kfg.U_TARGET_IDS].tolist() == [[0]] and kfg.IDS not in sample
        regions, texts = sample[kfg.ATT_FEATS], sample[kfg.U_TOKENS_IDS]
        same_image = [torch.equal(feats, regions[0]) for feats in regions]
        same_text = [torch.equal(text, texts[0]) for text in texts]
        assert same_image == layout["same_image_as_positive"]
        assert same_text == layout["same_caption_as_positive"]
        owners = [captions[tuple(text.tolist())] for text in texts]
        assert all(
            (name == owners[0]) == same for name, same in zip(owners, same_text, strict=True)
        )


def test_flickr30k_all_pictures_for_one_stream(corpus):
    expected = corpus.expected("flickr30k")
    places = sorted({key.split("/")[1] for key in expected if key.startswith("single_stream_val/")})
    size = expected["single_stream_val/0/batch0/ATT_FEATS"].shape[0]
    cfg = corpus.config("flickr30k", USE_GLOBAL_V=False, INF_BATCH_SIZE=size)
    mapper, records = build("Flickr30kDatasetForSingleStreamVal", cfg, "val")
    for place in places:
        for number, batch in enumerate(mapper(records[int(place)])):
            check(batch, expected, f"single_stream_val/{place}/batch{number}/")


@pytest.mark.parametrize(
    ("folder", "corpus_name", "dataset", "stage"),
    [
        ("tden-vqa", "vqa", "VQADataset", "val"),
        ("uniter-vqa", "vqa", "VQADataset", "val"),
        ("tden-vcr", "vcr", "VCRDataset", "val;VCR_Q-A"),
        ("uniter-vcr", "vcr", "VCRDataset", "val;VCR_Q-A"),
        ("tden-retrieval", "flickr30k", "Flickr30kDataset", "val"),
    ],
)
def test_batches_of_the_models(corpus, folder, corpus_name, dataset, stage):
    """Collation gives the models' inputs, visual keys once per image."""
    path = corpus.shared.parent / folder
    if not (path / "config.yaml").is_file():
        pytest.skip(f"no {path}")
    name = "inputs_val" if folder.endswith("retrieval") else "inputs"
    wanted = load_file(str(path / f"{name}.safetensors"))
    ids = json.loads((path / "meta.json").read_text())["ids"][name]
    cfg = corpus.config(corpus_name, USE_GLOBAL_V=folder.startswith("tden"))
    mapper, records = build(dataset, cfg, stage)
    if corpus_name == "flickr30k":
        samples = [mapper(record) for record in records]
    else:
        samples = {sample[kfg.IDS]: sample for sample in map(mapper, records)}
        samples = [samples[name] for name in dict.fromkeys(ids)]
    batch = collate(samples)
    repeats = len(wanted[kfg.ATT_FEATS]) // len(samples)
    for key, value in wanted.items():
        found = batch[key]
        if key in (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS):
            found = found.repeat_interleave(repeats, dim=0)
        _assert_close(found.to(value.dtype), value)


def test_loaders_feed_the_models(model_task):
    """A training batch of the fixture's data goes through model, losses and back."""
    cfg = model_task.cfg.clone()
    cfg.SEED = 1
    task = ";VCR_QA-R" if cfg.DATASETS.TRAIN == "VCRDataset" else ""
    mapper = build_dataset_mapper(cfg, cfg.DATASETS.TRAIN, f"train{task}")
    batch = next(iter(build_xmodaler_train_loader(cfg, mapper, collate_fn=collate)))
    model = model_task.model.train()
    outputs = model(model.preprocess_batch({**batch, kfg.SS_PROB: 0.0}))
    losses = {k: v for loss in build_losses(cfg) for k, v in loss(outputs).items()}
    assert losses and all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
