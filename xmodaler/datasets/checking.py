"""Walking the data sets of a config and saying what is wrong with them."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader

from xmodaler.config import CfgNode, kfg
from xmodaler.functional import load_vocab
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .annotations import read_captions
from .bad_samples import SampleError, take_notes
from .build import build_dataset_mapper, trivial_batch_collator
from .captions import UNKNOWN_WORD
from .common import DatasetFromList, MapDataset
from .images.caption_dataset import CaptionDataset
from .images.flickr30k_single_stream import Flickr30kDatasetForSingleStreamVal
from .images.understanding import TextCounts, UnderstandingDataset
from .vocabulary import read_word_ids

STAGES = ("train", "val", "test")
# Data sets whose stage also says a task.
_TASKS = {"VCRDataset": ("VCR_Q-A", "VCR_QA-R")}
# Those that read references in the form of COCO captions.
_CAPTION_EVALUATORS = ("COCOEvaler", "COCOPrinter")
_BINS = (5, 10, 15, 20, 30, 50)


@dataclass
class SplitReport:
    """What was found in the data of one stage.

    Attributes:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        dataset: Name of the mapper.
        ids: Ids of all records, those that cannot be read included.
        bad: One line per bad record or caption, or for what keeps the split from being read.
        warnings: What does not cost a record.
        lengths: How many captions have so many words.
        words: How many words have the vocabulary's entry, by True and False.
        widths: How many records have features of so many columns.
    """

    stage: str
    dataset: str
    ids: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lengths: Counter = field(default_factory=Counter)
    words: Counter = field(default_factory=Counter)
    widths: Counter = field(default_factory=Counter)


class _Probe:
    """Maps a record and keeps of the sample only what the report needs."""

    def __init__(self, mapper: Any) -> None:
        self._mapper = mapper
        self._key = _id_key(mapper)

    def __call__(self, item: tuple[int, Any]) -> dict[str, Any]:
        index, record = item
        try:
            sample = self._mapper(record)
        except SampleError:
            raise
        except Exception as error:  # a user's mapper may fail in any way; the walk goes on
            name = record.get(self._key, index) if isinstance(record, dict) else index
            raise SampleError(f"record '{name}'", f"{type(error).__name__}: {error}") from None
        if sample is None:
            return {"index": index, "width": None}
        return {"index": index, "width": _width(sample)}


def _width(sample: Any) -> int | None:
    """The width of a sample's features; of the first of several batches or pictures."""
    while isinstance(sample, list) and sample:
        sample = sample[0]
    features = sample.get(kfg.ATT_FEATS) if isinstance(sample, dict) else sample
    if isinstance(features, list):
        return _width(features)
    return getattr(features, "shape", (None,))[-1]


def check_dataset(cfg: CfgNode) -> list[SplitReport]:
    """Load every record of every split that the config names.

    Args:
        cfg: The config; DATALOADER.NUM_WORKERS processes share the work.

    Returns:
        One report per split.

    Raises:
        UserError: The config names no data set.
    """
    stages = [stage for stage in STAGES if cfg.DATASETS[stage.upper()]]
    if not stages:
        raise UserError("the config names no data set: DATASETS.TRAIN, VAL and TEST are all empty")
    reports = [
        _check_split(cfg, stage, task)
        for stage in stages
        for task in _TASKS.get(cfg.DATASETS[stage.upper()], ("",))
    ]
    for report in reports[1:]:
        shared = set(report.ids) & set(reports[0].ids)
        if shared and reports[0].stage == "train" != report.stage:
            examples = ", ".join(sorted(shared)[:5])
            report.warnings.append(
                f"{len(shared)} records are also in the training data: {examples}"
            )
    return reports


def _id_key(mapper: Any) -> str:
    return getattr(mapper, "id_key", "image_id")


def _check_split(cfg: CfgNode, stage: str, task: str = "") -> SplitReport:
    name = cfg.DATASETS[stage.upper()]
    report = SplitReport(stage, f"{name} {task}".rstrip())
    try:
        mapper = build_dataset_mapper(cfg, name, f"{stage};{task}" if task else stage)
        if isinstance(mapper, UnderstandingDataset):
            mapper.counts = TextCounts()
        datalist = mapper.load_data(cfg)
    except UserError as error:
        report.bad.append(str(error))
        return report
    key = _id_key(mapper)
    report.ids = [str(r.get(key, k)) for k, r in enumerate(datalist) if isinstance(r, dict)]
    # One picture against all others is a record for every caption of the picture.
    if stage != "train" and not isinstance(mapper, Flickr30kDatasetForSingleStreamVal):
        repeated = [image_id for image_id, n in Counter(report.ids).items() if n > 1]
        report.bad.extend(f"id '{image_id}' occurs more than once" for image_id in repeated)
    _map_records(report, mapper, datalist, cfg.DATALOADER.NUM_WORKERS)
    _count_words(report, mapper, datalist, cfg)
    if stage != "train" and cfg.INFERENCE.NAME in _CAPTION_EVALUATORS:
        _check_references(report, cfg.INFERENCE[f"{stage.upper()}_ANNFILE"])
    return report


def _map_records(report: SplitReport, mapper: Any, datalist: list[Any], num_workers: int) -> None:
    items = DatasetFromList(list(enumerate(datalist)), copy=False)
    loader = DataLoader(
        MapDataset(items, _Probe(mapper), replace_bad=False),
        batch_size=32,
        num_workers=num_workers,
        collate_fn=trivial_batch_collator,
    )
    found: dict[int, int] = {}
    for batch in loader:
        probes, notes = take_notes(batch)
        report.bad.extend(notes)
        found.update((probe["index"], probe["width"]) for probe in probes or [])
    report.widths = Counter(width for width in found.values() if width is not None)
    if len(report.widths) > 1:
        usual = report.widths.most_common(1)[0][0]
        for index, width in found.items():
            if width not in (None, usual):
                report.bad.append(
                    f"record '{report.ids[index]}': features have width {width}, others {usual}"
                )


def _count_words(report: SplitReport, mapper: Any, datalist: list[Any], cfg: CfgNode) -> None:
    if isinstance(mapper, CaptionDataset):
        from xmodaler.tokenization.ptb import PTBTokenizer

        tokenize = PTBTokenizer().tokenize
        images, problems = read_captions(mapper.anno_file, mapper.split)
        # Problems that cost a whole record were met while mapping.
        report.bad.extend(str(problem) for problem in problems if not problem.record)
        pictures = Counter(image.file_name for image in images if image.file_name)
        repeated = [name for name, count in pictures.items() if count > 1]
        report.warnings.extend(f"picture '{name}' occurs more than once" for name in repeated)
        sentences = [tokenize(caption) for image in images for caption in image.captions]
        report.lengths.update(map(len, sentences))
        known = _vocabulary(report, cfg.INFERENCE.VOCAB)
        if known is not None:
            report.words.update(w in known for words in sentences for w in words)
    elif isinstance(mapper, UnderstandingDataset):
        _count_pieces(report, mapper, datalist)
        return
    else:
        vocabulary = cfg.INFERENCE.VOCAB
        words = load_vocab(vocabulary) if os.path.isfile(expand_path(vocabulary)) else []
        unknown = words.index(UNKNOWN_WORD) if UNKNOWN_WORD in words else -1
        for record in datalist:
            for row in record.get("target_ids", ()) if isinstance(record, dict) else ():
                real = row[row > 0]
                report.lengths[len(real)] += 1
                report.words.update((real != unknown).tolist())
    limit = cfg.MODEL.MAX_SEQ_LEN
    longer = sum(count for length, count in report.lengths.items() if length > limit)
    if longer:
        report.warnings.append(
            f"{longer} captions have more than MODEL.MAX_SEQ_LEN {limit} words and are cut; "
            f"the longest has {max(report.lengths)}"
        )


def _count_pieces(report: SplitReport, mapper: UnderstandingDataset, datalist: list[Any]) -> None:
    counts = mapper.count_texts(datalist)
    report.lengths, report.words = counts.lengths, counts.known
    longer = sum(count for length, count in counts.lengths.items() if length > mapper.max_seq_len)
    if longer:
        report.warnings.append(
            f"{longer} texts have more than {mapper.max_seq_len} word pieces, special tokens "
            f"included, and are cut; the longest has {max(counts.lengths)}"
        )
    unanswered = sum("labels" in record and not record["labels"] for record in datalist)
    if unanswered:
        report.warnings.append(
            f"{unanswered} questions have no answer of the vocabulary: nothing is right for them"
        )


def _vocabulary(report: SplitReport, path: str) -> dict[str, int] | None:
    try:
        return read_word_ids(path)
    except UserError as error:
        # Training has already stopped at it, evaluation shows its words with it.
        if report.stage != "train":
            report.bad.append(str(error))
        return None


def _check_references(report: SplitReport, path: str) -> None:
    try:
        images, _ = read_captions(path)
    except UserError as error:
        report.bad.append(f"references for scoring: {error}")
        return
    scored = {image.image_id for image in images if image.captions}
    lacking = [image_id for image_id in report.ids if image_id not in scored]
    if lacking:
        examples = ", ".join(lacking[:5])
        report.warnings.append(f"{len(lacking)} records have no reference in {path}: {examples}")


def format_reports(reports: Iterable[SplitReport]) -> str:
    """Lines for every bad record, then one table."""
    from tabulate import tabulate

    lines: list[str] = []
    rows = []
    for report in reports:
        lines.extend(f"[{report.stage}] {note}" for note in report.bad)
        lines.extend(f"[{report.stage}] warning: {note}" for note in report.warnings)
        total = sum(report.words.values())
        rows.append(
            {
                "split": report.stage,
                "data set": report.dataset,
                "records": len(report.ids),
                "bad": len(report.bad),
                "warnings": len(report.warnings),
                "captions": sum(report.lengths.values()),
                "in vocabulary": f"{report.words[True] / total:.1%}" if total else "-",
                "feature width": " ".join(map(str, sorted(report.widths))) or "-",
            }
        )
    lines += ["", tabulate(rows, headers="keys", tablefmt="github"), ""]
    for report in reports:
        if report.lengths:
            lines.append(f"words per caption [{report.stage}]: {_histogram(report.lengths)}")
    return "\n".join(lines)


def _histogram(lengths: Counter) -> str:
    counts: Counter = Counter()
    for length, count in lengths.items():
        counts[next((k for k, top in enumerate(_BINS) if length <= top), len(_BINS))] += count
    starts = (0, *(top + 1 for top in _BINS))
    names = [f"{low}-{top}" for low, top in zip(starts, _BINS, strict=False)] + [f"{starts[-1]}+"]
    return "  ".join(f"{names[k]}: {counts[k]}" for k in sorted(counts))
