"""Batches that hold several kinds of data, each with files and sizes of its own."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, kfg
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .build import build_xmodaler_train_loader
from .collate import collate
from .loader import SampleLoader
from .pretrain import fit_rows
from .samplers import sample_seed

__all__ = ["CLEAN_GROUPS", "GroupSource", "MixedLoader", "build_mixed_loader"]

CLEAN_GROUPS = "CLEAN_GROUPS"
"""Key of a mixed batch: names of the groups that come from clean data, a list."""

KINDS = ("IMAGES", "REGIONS", "VIDEOS", "TEXTS", "PARALLEL_TEXTS")
"""Nodes of DATALOADER.GROUPS; their names in lower case are those of the groups of a batch."""

_BLOCK = 4096


@dataclass(frozen=True)
class GroupSource:
    """Where the batches of one kind come from.

    Attributes:
        name: Of the group.
        loader: Yields its batches.
        clean: Yields less noisy ones, or None.
        clean_share: How many of the batches are these, 0 to 1.
        rows: Regions that a batch is brought to; 0 keeps those there are, None leaves batches as
            they are.
        repeat_rows: Repeat regions where there are fewer than ``rows``. Otherwise a batch has as
            many as that of the process with the fewest.
    """

    name: str
    loader: SampleLoader
    clean: SampleLoader | None = None
    clean_share: float = 0.0
    rows: int | None = None
    repeat_rows: bool = True

    def is_clean(self, seed: int, step: int) -> bool:
        """Whether the batch of a step is clean, the same on every rank."""
        return bool(self._draws(seed, step // _BLOCK)[step % _BLOCK])

    def clean_before(self, seed: int, step: int) -> int:
        """How many of the batches before a step are clean."""
        blocks, rest = divmod(step, _BLOCK)
        whole = sum(int(self._draws(seed, block).sum()) for block in range(blocks))
        return whole + int(self._draws(seed, blocks)[:rest].sum())

    def _draws(self, seed: int, block: int) -> np.ndarray:
        """Bool (_BLOCK,), which depends on nothing but the arguments and the name."""
        if self.clean is None:
            return np.zeros(_BLOCK, dtype=bool)
        words = (seed, block, *self.name.encode())
        return np.random.default_rng(words).random(_BLOCK) < self.clean_share

    def fit(self, batch: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        """The batch with the number of regions that all ranks have."""
        if self.rows is None:
            return batch
        found = len(batch[kfg.REGION_INDEX])
        if self.rows and self.repeat_rows:
            return fit_rows(batch, self.rows, rng)
        fewest = min(comm.all_gather(found))
        return fit_rows(batch, min(self.rows or fewest, fewest), rng)


class MixedLoader:
    """Yields ``{GROUPS: {name: batch}, CLEAN_GROUPS: [...]}``.

    Every kind is read epoch after epoch at its own pace: each of its records once an epoch, over
    all ranks and workers. What a batch holds depends on the seed and on the number of batches
    before it alone, so that reading may begin anywhere.

    Args:
        sources: One a kind; the first sets the pace.
        length: Batches of an epoch of the whole.
        seed: The same on every rank.
    """

    def __init__(self, sources: Sequence[GroupSource], length: int, seed: int) -> None:
        self.sources = list(sources)
        self.length = length
        self.seed = seed
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        return self.length

    @property
    def loaders(self) -> list[SampleLoader]:
        """All loaders, clean ones included."""
        return [each for s in self.sources for each in (s.loader, s.clean) if each is not None]

    @property
    def batch_sampler(self) -> "MixedLoader":
        """What knows the position: this."""
        return self

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """The next iteration is that of ``epoch``, from its batch ``start_batch`` on."""
        self._epoch, self._batch = epoch, start_batch

    def state_dict(self) -> dict[str, Any]:
        """Position of the next iteration and the seed of everything."""
        return {"epoch": self._epoch, "start_batch": self._batch, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.seed = state["seed"]
        for loader in self.loaders:
            loader.batch_sampler.sampler.seed = self.seed
        self.set_epoch(state["epoch"], state["start_batch"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first, stop = self._epoch * len(self) + self._batch, (self._epoch + 1) * len(self)
        self.set_epoch(self._epoch + 1)
        streams = [self._streams(source, first) for source in self.sources]
        for step in range(first, stop):
            rng = random.Random(sample_seed(self.seed, step, comm.get_rank()))
            groups, clean = {}, []
            for source, (noisy_stream, clean_stream) in zip(self.sources, streams, strict=True):
                is_clean = source.is_clean(self.seed, step)
                batch = next(clean_stream if is_clean else noisy_stream)
                groups[source.name] = source.fit(batch, rng)
                clean += [source.name] if is_clean else []
            yield {kfg.GROUPS: groups, CLEAN_GROUPS: clean}

    def _streams(self, source: GroupSource, step: int) -> tuple[Iterator[Any], Iterator[Any]]:
        clean = source.clean_before(self.seed, step)
        return _endless(source.loader, step - clean), _endless(source.clean, clean)


def _endless(loader: SampleLoader | None, consumed: int) -> Iterator[Any]:
    if loader is None:
        return
    loader.batch_sampler.set_progress(consumed)
    while True:
        yield from loader


def build_mixed_loader(cfg: CfgNode) -> MixedLoader:
    """The loader of DATALOADER.GROUPS.

    Raises:
        UserError: No kind has data, or those of a kind cannot be read.
    """
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    nodes = cfg.DATALOADER.GROUPS
    sources = [_source(cfg, kind, seed) for kind in KINDS if nodes[kind].ANNFILE]
    if not sources:
        raise UserError(
            "pre-training needs data, but no kind of DATALOADER.GROUPS has an ANNFILE; name the "
            "lines of IMAGES, REGIONS, VIDEOS, TEXTS or PARALLEL_TEXTS"
        )
    parts = cfg.SOLVER.ACCUM_STEPS
    first = sources[0].loader
    steps = len(first) // parts
    if nodes.EPOCH_SIZE > 0:
        together = first.batch_sampler.batch_size * comm.get_world_size() * parts
        steps = -(-nodes.EPOCH_SIZE // together)
    return MixedLoader(sources, max(steps, 1) * parts, seed)


def _source(cfg: CfgNode, kind: str, seed: int) -> GroupSource:
    node = cfg.DATALOADER.GROUPS[kind]
    loader = _loader(cfg, kind, seed, node.ANNFILE, node.SETTINGS)
    clean, share = None, 0.0
    if node.get("CLEAN_ANNFILE"):
        share = node.CLEAN_SHARE
        if not 0 < share <= 1:
            raise UserError(
                f"DATALOADER.GROUPS.{kind}.CLEAN_SHARE is {share:g}; with a CLEAN_ANNFILE it must "
                "be above 0 and at most 1"
            )
        settings = [*node.SETTINGS, *node.CLEAN_SETTINGS]
        clean = _loader(cfg, kind, seed, node.CLEAN_ANNFILE, settings)
    elif node.get("CLEAN_SHARE"):
        raise UserError(
            f"DATALOADER.GROUPS.{kind}.CLEAN_SHARE is {node.CLEAN_SHARE:g}, but CLEAN_ANNFILE is "
            "''; name the clean data"
        )
    rows, repeat = node.get("ROWS"), node.get("REPEAT_ROWS", True)
    return GroupSource(kind.lower(), loader, clean, share, rows, repeat)


def _loader(
    cfg: CfgNode, kind: str, seed: int, annfile: str, settings: Sequence[Any]
) -> SampleLoader:
    node, own = cfg.DATALOADER.GROUPS[kind], cfg.clone()
    own.defrost()
    try:
        own.merge_from_list(settings)
        own.SEED = seed
        own.DATASETS.TRAIN = node.DATASET
        loader = own.DATALOADER
        loader.TRAIN_ANNFILE = annfile
        loader.TRAIN_BATCH_SIZE = node.BATCH_SIZE or loader.TRAIN_BATCH_SIZE
        loader.NUM_WORKERS = loader.NUM_WORKERS if node.NUM_WORKERS < 0 else node.NUM_WORKERS
        return build_xmodaler_train_loader(own, collate_fn=collate)
    except UserError as error:
        raise UserError(f"DATALOADER.GROUPS.{kind}: {error}") from error
