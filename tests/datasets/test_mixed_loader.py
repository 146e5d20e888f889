"""Mixed batches: every record once, from anywhere, equal rows on all ranks, what is wrong."""

import json
import sys
from pathlib import Path

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.datasets import build_mixed_loader
from xmodaler.datasets.mixed_loader import CLEAN_GROUPS
from xmodaler.engine.running import import_modules
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

TOY = Path(__file__).parents[1] / "engine" / "toy_x2vlm.py"


@pytest.fixture(scope="module")
def lines():
    import_modules([str(TOY)])
    return sys.modules["toy_x2vlm"]


@pytest.fixture
def data(lines, tmp_path):
    return lines.write_lines(tmp_path / "lines")


@pytest.fixture
def config(lines, data, tmp_path):
    def make(kinds=("IMAGES",), **changes):
        short = {f"DATALOADER__GROUPS__{key}": value for key, value in changes.items()}
        return lines.config_of(data, tmp_path / "out", kinds, **short)

    return make


@pytest.fixture
def ranks(monkeypatch):
    """Runs a function as each of some ranks, whose gathered objects are those of all so far."""

    def run(world, function):
        found = []
        monkeypatch.setattr(comm, "get_world_size", lambda: world)
        for rank in range(world):
            monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
            found.append(function())
        return found

    return run


def names(batches, group):
    return [name for batch in batches for name in batch[kfg.GROUPS][group][kfg.IDS]]


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    return first == second


@pytest.mark.parametrize("workers", [0, 2])
def test_every_kind_is_read_once_an_epoch_of_its_own(config, ranks, workers):
    cfg = config(("IMAGES", "VIDEOS"), IMAGES__NUM_WORKERS=workers, VIDEOS__BATCH_SIZE=1)
    both = ranks(2, lambda: list(build_mixed_loader(cfg)))
    assert [len(batches) for batches in both] == [3, 3]
    pictures = [name for batches in both for name in names(batches, "images")]
    videos = [name for batches in both for name in names(batches, "videos")]
    assert sorted(pictures) == sorted(f"images.jsonl:{n}" for n in range(1, 13))
    assert sorted(videos) == sorted(f"videos.jsonl:{n}" for n in range(1, 7))


def test_a_kind_with_fewer_records_begins_its_next_epoch_by_itself(config):
    loader = build_mixed_loader(config(("IMAGES", "VIDEOS"), EPOCH_SIZE=24))
    batches = list(loader)
    assert len(batches) == 12
    for start in (0, 3, 6, 9):
        assert len(set(names(batches[start : start + 3], "videos"))) == 6
    orders = [names(batches[start : start + 3], "videos") for start in (0, 3, 6, 9)]
    assert len({tuple(order) for order in orders}) > 1
    # The next epoch goes on behind this one.
    following = names(list(loader), "videos")
    assert sorted(following) == sorted(orders[0] * 4) and following[:6] != orders[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_may_begin_anywhere(lines, data, config, workers):
    clean = {"IMAGES__CLEAN_ANNFILE": str(data / "clean.jsonl"), "IMAGES__CLEAN_SHARE": 0.4}
    for node in lines.ALL:
        clean[f"{node}__NUM_WORKERS"] = workers
    cfg = config(lines.ALL, EPOCH_SIZE=14, **clean)
    loader = build_mixed_loader(cfg)
    whole = [*loader, *loader]
    kept = loader.state_dict()
    assert kept["epoch"] == 2
    other = build_mixed_loader(cfg)
    other.load_state_dict({**kept, "seed": 3})
    for epoch, start in ((0, 5), (1, 3)):
        other.batch_sampler.set_epoch(epoch, start_batch=start)
        expected = whole[7 * epoch + start : 7 * (epoch + 1)]
        for found, batch in zip(other, expected, strict=True):
            assert equal(found, batch)


def test_clean_batches_come_as_often_as_asked_and_alike_on_all_ranks(data, config, ranks):
    clean = {"IMAGES__CLEAN_ANNFILE": str(data / "clean.jsonl"), "IMAGES__CLEAN_SHARE": 0.25}
    cfg = config(EPOCH_SIZE=160, IMAGES__BATCH_SIZE=1, **clean)
    first, second = ranks(2, lambda: list(build_mixed_loader(cfg)))
    drawn = [batch[CLEAN_GROUPS] for batch in first]
    assert drawn == [batch[CLEAN_GROUPS] for batch in second]
    assert 8 <= drawn.count(["images"]) <= 32
    for batch in first:
        source = batch[kfg.GROUPS]["images"][kfg.IDS][0].split(".")[0]
        assert source == ("clean" if batch[CLEAN_GROUPS] else "images")
    loader = build_mixed_loader(cfg)
    (source,) = loader.sources
    many = [source.is_clean(3, step) for step in range(5000)]
    assert source.clean_before(3, 5000) == sum(many) and 1150 < sum(many) < 1350


def test_regions_are_brought_to_a_number_of_rows(config):
    for rows in (1, 3, 9):
        for batch in build_mixed_loader(config(("REGIONS",), REGIONS__ROWS=rows)):
            group = batch[kfg.GROUPS]["regions"]
            for key in (kfg.REGION_INDEX, kfg.U_TOKENS_IDS, kfg.TOKENS_MASKS, kfg.TARGET_BBOX):
                assert len(group[key]) == rows, key
            assert group[kfg.IMAGES].shape[0] == 2


def test_all_rows_or_none_too_often(config, monkeypatch):
    plain = [len(b[kfg.GROUPS]["regions"][kfg.REGION_INDEX]) for b in
             build_mixed_loader(config(("REGIONS",), REGIONS__ROWS=0))]  # fmt: skip
    assert min(plain) >= 2
    few = config(("REGIONS",), REGIONS__ROWS=4, REGIONS__REPEAT_ROWS=False)
    for batch, there in zip(build_mixed_loader(few), plain, strict=True):
        assert len(batch[kfg.GROUPS]["regions"][kfg.REGION_INDEX]) == min(there, 4)
    # Another process has but two.
    monkeypatch.setattr(comm, "all_gather", lambda value, group=None: [value, 2])
    for batch in build_mixed_loader(few):
        assert len(batch[kfg.GROUPS]["regions"][kfg.REGION_INDEX]) == 2


def test_settings_hold_for_one_kind(config):
    cfg = config(("IMAGES", "TEXTS"), TEXTS__SETTINGS=["MODEL.MAX_SEQ_LEN", 4])
    (batch, *_) = build_mixed_loader(cfg)
    groups = batch[kfg.GROUPS]
    assert groups["texts"][kfg.U_TOKENS_IDS].shape[1] <= 4
    assert cfg.MODEL.MAX_SEQ_LEN == 10


def test_lines_in_several_places_are_one_kind(data, config):
    both = f"{data}/images.jsonl,{data}/clean.jsonl"
    loader = build_mixed_loader(config(IMAGES__ANNFILE=both))
    assert len(loader) == (12 + 5) // 2


@pytest.mark.parametrize(
    ("kinds", "changes", "message"),
    [
        ((), {}, "no kind of DATALOADER.GROUPS has an ANNFILE"),
        ((), {"VIDEOS__ANNFILE": "/no/where.jsonl"}, r"GROUPS.VIDEOS: there is no file '/no/wh"),
        (("IMAGES",), {"IMAGES__BATCH_SIZE": 13}, r"GROUPS.IMAGES: .* 12 records, fewer than"),
        (("IMAGES",), {"IMAGES__CLEAN_SHARE": 0.1}, "CLEAN_SHARE is 0.1, but CLEAN_ANNFILE"),
        (("IMAGES",), {"IMAGES__CLEAN_ANNFILE": "x"}, "CLEAN_SHARE is 0; with a CLEAN_ANNFILE"),
        (("IMAGES",), {"IMAGES__SETTINGS": ["MODEL.MAX_LEN", 3]}, "GROUPS.IMAGES: .*MAX_LEN"),
        (("IMAGES",), {"IMAGES__DATASET": "ImageLines"}, "GROUPS.IMAGES: .*ImageLines"),
    ],
)
def test_what_is_wrong_with_a_kind_is_said_at_once(config, kinds, changes, message):
    with pytest.raises(UserError, match=message):
        build_mixed_loader(config(kinds, **changes))


def test_a_file_without_lines_is_named(data, config):
    (data / "images.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"GROUPS.IMAGES: .*images.jsonl' holds no line"):
        build_mixed_loader(config())


def break_lines(data, how):
    path = data / "images.jsonl"
    records = path.read_text().splitlines()
    if how == "truncated":  # the last two records are cut off
        path.write_text("\n".join(records[:10]) + "\n")
    elif how == "unreachable":
        path.unlink()
    else:
        bad = dict(json.loads(records[0]), image="bm8gcGljdHVyZQ==")
        records[0] = json.dumps(bad).ljust(len(records[0]))
        path.write_text("\n".join(records))


@pytest.mark.parametrize(("how", "bad"), [("truncated", 2), ("corrupt", 1)])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_breaks_in_mid_epoch_is_skipped_and_counted(data, config, workers, how, bad):
    cfg = config(("IMAGES", "TEXTS"), IMAGES__NUM_WORKERS=workers)
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.5
    loader = build_mixed_loader(cfg)
    break_lines(data, how)
    batches = list(loader)
    assert len(batches) == 6
    assert all(len(batch[kfg.GROUPS]["images"][kfg.IDS]) == 2 for batch in batches)
    assert len(loader.sources[0].loader.bad_samples.bad_records) == bad
    assert not loader.sources[1].loader.bad_samples.bad_records


@pytest.mark.parametrize("workers", [0, 2])
def test_too_much_that_breaks_ends_the_run(data, config, workers):
    loader = build_mixed_loader(config(IMAGES__NUM_WORKERS=workers))
    batches = iter(loader)
    break_lines(data, "unreachable")
    with pytest.raises(UserError, match=r"cannot be read|MAX_BAD_FRACTION"):
        list(batches)
