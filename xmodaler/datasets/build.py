"""Builders of loaders and mappers from a config or from explicit parts."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from xmodaler.config import CfgNode, configurable
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry

from .common import DatasetFromList, MapDataset
from .loader import SampleLoader
from .samplers import EvalSampler, ResumableBatchSampler, TrainingSampler

DATASETS_REGISTRY = Registry("DATASETS")
"""Dataset mappers: ``from_config(cls, cfg, stage)``, ``load_data(cfg) -> list[dict]`` and
``__call__(record) -> sample``, selected by DATASETS.TRAIN, DATASETS.VAL and DATASETS.TEST."""

Collate = Callable[[list[Any]], Any]


def build_dataset_mapper(cfg: CfgNode, name: str, stage: str) -> Any:
    """The mapper registered as ``name``, built from the config for a stage.

    Args:
        cfg: The config.
        name: A registered class, or a dotted path to one.
        stage: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        UserError: No such class.
    """
    return DATASETS_REGISTRY.get(name)(cfg, stage)


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """The samples as they are; :func:`xmodaler.datasets.collate.collate` makes a batch of them."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Give a worker's Python, numpy and torch generators a state of their own."""
    seed = (torch.initial_seed() + worker_id) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


def _load_datalist(cfg: CfgNode, mapper: Any, stage: str) -> list[Any]:
    if not callable(getattr(mapper, "load_data", None)):
        raise UserError(
            f"{type(mapper).__name__} has no load_data; define load_data(self, cfg) that returns "
            f"the list of records of the {stage} data, or give the loader builder datalist=[...]"
        )
    return mapper.load_data(cfg)


def _parts_from_config(
    cfg: CfgNode, mapper: Any, datalist: list[Any] | None, stage: str
) -> tuple[Any, list[Any] | None]:
    name = cfg.DATASETS[stage.upper()]
    if mapper is None:
        if not name:
            return None, None
        mapper = build_dataset_mapper(cfg, name, stage)
    return mapper, _load_datalist(cfg, mapper, stage) if datalist is None else datalist


def _check_datalist(datalist: Any) -> None:
    if not isinstance(datalist, list):
        raise UserError(
            f"datalist is a {type(datalist).__name__}; load_data must return a list with one "
            "record (a dict) per item"
        )


def _train_loader_from_config(
    cfg: CfgNode,
    dataset_mapper: Any = None,
    *,
    datalist: list[Any] | None = None,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    dataset_mapper, datalist = _parts_from_config(cfg, dataset_mapper, datalist, "train")
    return {
        "datalist": datalist,
        "dataset_mapper": dataset_mapper,
        "batch_size": cfg.DATALOADER.TRAIN_BATCH_SIZE,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": sampler,
        "seed": cfg.SEED if cfg.SEED >= 0 else None,
        "max_bad_fraction": cfg.DATALOADER.MAX_BAD_FRACTION,
    }


@configurable(from_config=_train_loader_from_config)
def build_xmodaler_train_loader(
    datalist: list[Any] | None,
    *,
    dataset_mapper: Callable[[Any], Any],
    batch_size: int,
    num_workers: int,
    sampler: Sampler | None = None,
    collate_fn: Collate = trivial_batch_collator,
    seed: int | None = None,
    max_bad_fraction: float = 0.01,
) -> SampleLoader | None:
    """The training loader: shuffled, endlessly resumable, incomplete batches left out.

    Called as ``(cfg, dataset_mapper=None, *, datalist=None, sampler=None, ...)`` it takes from the
    config what is not given, and returns None when DATASETS.TRAIN is ''.

    Args:
        datalist: Records.
        dataset_mapper: ``record -> sample``.
        batch_size: Records per step of this process.
        num_workers: Worker processes.
        sampler: Yields indices, or ``(index, seed)``, in place of the seeded permutation.
        collate_fn: ``list of samples -> batch``, run in the workers; by default the list itself.
        seed: Decides the order and every random choice of the mapper; None draws one that all
            ranks share.
        max_bad_fraction: More bad records than this part of an epoch stop the run.

    Returns:
        A loader of ``len()`` batches per epoch whose ``batch_sampler`` has ``set_epoch``,
        ``set_progress``, ``state_dict`` and ``load_state_dict``.
    """
    if datalist is None:
        return None
    _check_datalist(datalist)
    dataset = MapDataset(DatasetFromList(datalist, copy=False), dataset_mapper)
    if sampler is None:
        world = comm.get_world_size()
        seed = comm.shared_random_seed() if seed is None else seed
        sampler = TrainingSampler(
            len(dataset), batch_size * world, rank=comm.get_rank(), world=world, seed=seed
        )
    return SampleLoader(
        dataset,
        ResumableBatchSampler(sampler, batch_size, drop_last=True),
        num_workers=num_workers,
        collate_fn=collate_fn,
        worker_init_fn=worker_init_reset_seed,
        max_bad_fraction=max_bad_fraction,
    )


def _valtest_loader_from_config(
    cfg: CfgNode,
    dataset_mapper: Any = None,
    *,
    datalist: list[Any] | None = None,
    sampler: Sampler | None = None,
    stage: str = "val",
) -> dict[str, Any]:
    dataset_mapper, datalist = _parts_from_config(cfg, dataset_mapper, datalist, stage)
    # One item of this class is already a batch: a caption against every image.
    whole_batches = cfg.DATASETS[stage.upper()] == "Flickr30kDatasetForSingleStreamVal"
    return {
        "datalist": datalist,
        "dataset_mapper": dataset_mapper,
        "batch_size": 1 if whole_batches else cfg.DATALOADER.TEST_BATCH_SIZE,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "multi_gpu_eval": True,
        "sampler": sampler,
        "max_bad_fraction": cfg.DATALOADER.MAX_BAD_FRACTION,
    }


@configurable(from_config=_valtest_loader_from_config)
def build_xmodaler_valtest_loader(
    datalist: list[Any] | None,
    *,
    dataset_mapper: Callable[[Any], Any],
    batch_size: int,
    num_workers: int,
    multi_gpu_eval: bool = False,
    sampler: Sampler | None = None,
    collate_fn: Collate = trivial_batch_collator,
    max_bad_fraction: float = 0.01,
) -> SampleLoader | None:
    """The loader for validation or test: every record once, in order, bad ones left out.

    Called as ``(cfg, dataset_mapper=None, *, datalist=None, sampler=None, stage="val", ...)`` it
    takes from the config what is not given, shares the records out among the ranks, and returns
    None when DATASETS.VAL (or .TEST) is ''.

    Args:
        datalist: Records.
        dataset_mapper: ``record -> sample``.
        batch_size: Records per batch.
        num_workers: Worker processes.
        multi_gpu_eval: Give each rank a contiguous shard, without duplicates; otherwise every
            rank gets every record.
        sampler: Yields indices in place of the order of ``datalist``.
        collate_fn: ``list of samples -> batch``, run in the workers; by default the list itself.
        max_bad_fraction: More bad records than this part of the data stop the run.
    """
    if datalist is None:
        return None
    _check_datalist(datalist)
    dataset = MapDataset(DatasetFromList(datalist, copy=False), dataset_mapper, replace_bad=False)
    if sampler is None:
        rank, world = (comm.get_rank(), comm.get_world_size()) if multi_gpu_eval else (0, 1)
        sampler = EvalSampler(len(dataset), rank, world)
    return SampleLoader(
        dataset,
        ResumableBatchSampler(sampler, batch_size, drop_last=False),
        num_workers=num_workers,
        collate_fn=collate_fn,
        worker_init_fn=worker_init_reset_seed,
        max_bad_fraction=max_bad_fraction,
    )
