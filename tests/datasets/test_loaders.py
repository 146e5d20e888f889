"""Samplers, wrapped datasets, loaders: order, resume, bad records, clear errors."""

import random

import numpy as np
import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import (
    DATASETS_REGISTRY,
    DatasetFromList,
    EvalSampler,
    MapDataset,
    ResumableBatchSampler,
    SampleError,
    TrainingSampler,
    build_dataset_mapper,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)
from xmodaler.datasets.bad_samples import BAD_KEY, BadSampleMonitor, check
from xmodaler.datasets.build import trivial_batch_collator
from xmodaler.utils.errors import UserError


class Mapper:
    """Random numbers by record; ids in ``bad`` cannot be read."""

    def __init__(self, bad=()):
        self.bad = set(bad)

    def __call__(self, record):
        if record["id"] in self.bad:
            raise SampleError(f"image '{record['id']}'", "is broken")
        numbers = [random.random(), np.random.rand(), torch.rand(()).item()]
        return {kfg.IDS: str(record["id"]), "NUMBERS": torch.tensor(numbers)}


def records(count):
    return [{"id": k} for k in range(count)]


def train_loader(count=20, workers=0, bad=(), fraction=0.5, seed=3, **kwargs):
    return build_xmodaler_train_loader(
        records(count),
        dataset_mapper=Mapper(bad),
        batch_size=4,
        num_workers=workers,
        seed=seed,
        collate_fn=collate,
        max_bad_fraction=fraction,
        **kwargs,
    )


def contents(loader):
    return [(batch[kfg.IDS], batch["NUMBERS"].tolist()) for batch in loader]


# ---- samplers


def test_ranks_share_out_the_batches_of_one_process():
    one = TrainingSampler(22, 8, seed=5)
    two = [TrainingSampler(22, 8, rank=r, world=2, seed=5) for r in range(2)]
    for epoch in range(3):
        for sampler in (one, *two):
            sampler.set_epoch(epoch)
        whole, parts = list(one), [list(sampler) for sampler in two]
        assert len(whole) == len(one) == 16 and len(parts[0]) == len(two[0]) == 8
        together = [key for k in (0, 4) for part in parts for key in part[k : k + 4]]
        assert together == whole
        assert len({index for index, _ in whole}) == 16


def test_epochs_differ_and_repeat_exactly():
    sampler = TrainingSampler(50, 5, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]
    assert len({seed for _, seed in orders[0] + orders[1]}) == 100


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (2, 4), (0, 2)])
def test_evaluation_shards_cover_everything_once(size, world):
    shards = [list(EvalSampler(size, rank, world)) for rank in range(world)]
    assert [index for shard in shards for index in shard] == list(range(size))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_batch_sampler_starts_anywhere():
    batches = ResumableBatchSampler(TrainingSampler(23, 4, seed=2), 4, drop_last=True)
    all_batches = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        all_batches.extend(batches)
    assert len(all_batches) == 3 * len(batches) == 15
    for done in (0, 3, 5, 7, 14):
        batches.set_progress(done)
        state = batches.state_dict()
        other = ResumableBatchSampler(TrainingSampler(23, 4, seed=99), 4, drop_last=True)
        other.load_state_dict(state)
        rest = list(other)
        assert rest == all_batches[done : (done // 5 + 1) * 5]


def test_batch_sampler_over_a_foreign_sampler():
    batches = ResumableBatchSampler(torch.utils.data.SequentialSampler(range(10)), 4, False)
    assert len(batches) == 3
    batches.set_epoch(0, start_batch=1)
    assert list(batches) == [[4, 5, 6, 7], [8, 9]]
    assert len(list(batches)) == 3


def test_batch_sampler_moves_on_by_itself():
    batches = ResumableBatchSampler(TrainingSampler(20, 4, seed=2), 4, drop_last=True)
    assert list(batches) != list(batches)


def test_too_few_records_for_a_batch():
    with pytest.raises(UserError, match=r"3 records, fewer than one batch of 4.*TRAIN_BATCH_SIZE"):
        train_loader(count=3)


# ---- datasets


@pytest.mark.parametrize("serialize", [True, False])
def test_records_come_back_as_they_were(serialize):
    given = [{"a": np.arange(k), "b": "ä" * k} for k in range(5)]
    dataset = DatasetFromList(given, serialize=serialize)
    assert len(dataset) == 5
    for k in (0, 4, -1):
        assert dataset[k]["b"] == given[k]["b"] and (dataset[k]["a"] == given[k]["a"]).all()
    with pytest.raises(IndexError):
        dataset[5]
    dataset[1]["b"] = "changed"
    assert dataset[1]["b"] == "ä"
    assert len(DatasetFromList([])) == 0


def test_a_seeded_item_is_the_same_everywhere_and_disturbs_nothing():
    dataset = MapDataset(records(5), Mapper())
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    first = dataset[2, 77]["NUMBERS"]
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected
    assert torch.equal(dataset[2, 77]["NUMBERS"], first)
    assert not torch.equal(dataset[2, 78]["NUMBERS"], first)


def test_none_is_replaced_silently():
    dataset = MapDataset(records(10), lambda r: {"id": r["id"]} if r["id"] % 2 else None)
    for k in range(10):
        item = dataset[k]
        assert item["id"] % 2 == 1 and BAD_KEY not in item


def test_a_mapper_that_never_gives_anything_stops():
    with pytest.raises(UserError, match="none of 100 records"):
        MapDataset(records(3), lambda record: None)[0]
    with pytest.raises(UserError, match="image '1': is broken"):
        MapDataset(records(3), Mapper({0, 1, 2}))[1]


def test_bugs_of_a_mapper_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        MapDataset(records(3), lambda record: 1 / 0)[0]


# ---- loaders


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    assert contents(train_loader(workers=workers, bad={7})) == contents(train_loader(bad={7}))


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_mid_epoch(workers):
    whole = train_loader(bad={2})
    epochs = [contents(whole), contents(whole)]
    resumed = train_loader(workers=workers, bad={2})
    resumed.batch_sampler.set_epoch(1, start_batch=3)
    assert contents(resumed) == epochs[1][3:]
    assert len(resumed) == 5


def test_loading_draws_nothing_from_the_generators_of_training():
    for workers in (0, 2):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        contents(train_loader(workers=workers))
        assert torch.equal(before, torch.get_rng_state())


def test_default_collation_gives_the_samples():
    loader = build_xmodaler_train_loader(
        records(8), dataset_mapper=Mapper(), batch_size=4, num_workers=0
    )
    batch = next(iter(loader))
    assert isinstance(batch, list) and len(batch) == 4 and set(batch[0]) == {kfg.IDS, "NUMBERS"}
    assert trivial_batch_collator(batch) is batch


@pytest.mark.parametrize("workers", [0, 2])
def test_training_replaces_counts_and_reports(workers, caplog):
    loader = train_loader(workers=workers, bad={3, 11}, fraction=0.2)
    seen = [image for ids, _ in contents(loader) for image in ids]
    assert len(seen) == 20 and not {"3", "11"} & set(seen)
    assert sorted(loader.bad_samples.bad_records) == [
        "image '11': is broken",
        "image '3': is broken",
    ]
    assert sum("image '3': is broken" in line for line in caplog.messages) == 1
    contents(loader)
    assert sum("image '3': is broken" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_records_stop_with_the_list(workers):
    loader = train_loader(workers=workers, bad={1, 2, 3}, fraction=0.1)
    with pytest.raises(UserError, match=r"3 of the 20 records") as caught:
        contents(loader)
    assert all(f"image '{k}': is broken" in str(caught.value) for k in (1, 2, 3))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("collate_fn", [trivial_batch_collator, collate])
def test_evaluation_leaves_bad_records_out(workers, collate_fn):
    loader = build_xmodaler_valtest_loader(
        records(10),
        dataset_mapper=Mapper({0, 1, 2, 5}),
        batch_size=3,
        num_workers=workers,
        multi_gpu_eval=False,
        collate_fn=collate_fn,
        max_bad_fraction=0.5,
    )
    seen = []
    for batch in loader:
        assert BAD_KEY not in batch
        seen += batch[kfg.IDS] if isinstance(batch, dict) else [s[kfg.IDS] for s in batch]
    assert seen == ["3", "4", "6", "7", "8", "9"]
    assert len(loader.bad_samples.bad_records) == 4


class FatalMapper:
    def __call__(self, record):
        raise UserError("the folder 'x' does not exist")


def test_an_error_in_a_worker_reads_like_one_here():
    for workers in (0, 1):
        loader = build_xmodaler_train_loader(
            records(4), dataset_mapper=FatalMapper(), batch_size=2, num_workers=workers
        )
        with pytest.raises(UserError) as caught:
            next(iter(loader))
        assert str(caught.value) == "the folder 'x' does not exist"


def test_monitor_forgets_between_epochs():
    monitor = BadSampleMonitor(10, 0.1)
    assert monitor.check({BAD_KEY: ["a: x"]}) is None
    monitor.start_epoch()
    assert monitor.check({BAD_KEY: ["b: x"], "K": 1}) == {"K": 1}
    with pytest.raises(UserError, match="2 of the 10 records"):
        monitor.check([{"K": 1, BAD_KEY: ["c: x"]}])


def test_check_serves_foreign_loaders(caplog):
    assert check([{"K": 1}, {BAD_KEY: ["a: x"]}]) == [{"K": 1}]
    assert "a: x" in caplog.text
    assert check({"K": 1}) == {"K": 1}


# ---- builders


def test_empty_name_means_no_loader():
    cfg = get_cfg()
    assert build_xmodaler_train_loader(cfg) is None
    assert build_xmodaler_valtest_loader(cfg, stage="test") is None


def test_unknown_dataset_names_the_nearest():
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = "MSCocoDataset"
    with pytest.raises(UserError, match="MSCoCoDataset"):
        build_xmodaler_train_loader(cfg)
    with pytest.raises(KeyError):
        build_dataset_mapper(cfg, "nothing like it", "val")


def test_missing_load_data_is_explained():
    cfg = get_cfg()
    with pytest.raises(UserError, match=r"Mapper has no load_data; define load_data\(self, cfg\)"):
        build_xmodaler_train_loader(cfg, dataset_mapper=Mapper())


@pytest.mark.parametrize("build", [build_xmodaler_train_loader, build_xmodaler_valtest_loader])
def test_datalist_must_be_a_list(build):
    with pytest.raises(UserError, match="datalist is a dict; load_data must return a list"):
        build({}, dataset_mapper=Mapper(), batch_size=1, num_workers=0)


def test_mapper_given_in_place_of_the_configured_one():
    cfg = get_cfg()
    cfg.DATALOADER.TRAIN_BATCH_SIZE = cfg.DATALOADER.TEST_BATCH_SIZE = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    mapper = Mapper()
    mapper.load_data = lambda cfg: records(5)
    assert len(build_xmodaler_train_loader(cfg, dataset_mapper=mapper)) == 2
    loader = build_xmodaler_valtest_loader(cfg, dataset_mapper=mapper, stage="test")
    assert [s[kfg.IDS] for batch in loader for s in batch] == ["0", "1", "2", "3", "4"]
    given = build_xmodaler_train_loader(cfg, mapper, datalist=records(8), collate_fn=collate)
    assert len(given) == 4 and len(next(iter(given))[kfg.IDS]) == 2


def test_sampler_keyword_decides_the_order():
    loader = build_xmodaler_train_loader(
        records(6),
        dataset_mapper=Mapper(),
        batch_size=2,
        num_workers=0,
        sampler=torch.utils.data.SequentialSampler(range(6)),
    )
    assert [s[kfg.IDS] for batch in loader for s in batch] == list("012345")


def test_seed_of_the_config_decides_the_order():
    cfg = get_cfg()
    cfg.DATALOADER.TRAIN_BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS = 4, 0
    orders = []
    for seed in (1, 1, 2):
        cfg.SEED = seed
        loader = build_xmodaler_train_loader(
            cfg, Mapper(), datalist=records(40), collate_fn=collate
        )
        orders.append(contents(loader))
    assert orders[0] == orders[1] != orders[2]


def test_documented_datasets_are_registered():
    names = {
        *("MSCoCoDataset", "MSCoCoSampleByTxtDataset", "MSCoCoFeatDataset"),
        *("MSCoCoRawDataset", "MSCoCoCOSNetDataset", "CaptionDataset"),
    }
    assert names <= {name for name, _ in DATASETS_REGISTRY}
