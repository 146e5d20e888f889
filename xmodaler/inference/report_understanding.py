"""Questions with answers, choices and rankings for the report of a run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from xmodaler.config import CfgNode, kfg
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.build import DATASETS_REGISTRY, build_dataset_mapper
from xmodaler.datasets.images.flickr30k import Flickr30kDataset
from xmodaler.datasets.images.understanding import UnderstandingDataset
from xmodaler.datasets.tasks import JsonRecords
from xmodaler.evaluation.result_files import canonical_id
from xmodaler.evaluation.vqa_truth import VQATruth, read_truth
from xmodaler.functional import dict_as_tensor
from xmodaler.inference.answerer import Answerer
from xmodaler.inference.chooser import Chooser
from xmodaler.inference.fusion_retriever import FusionRetriever
from xmodaler.inference.report_captions import spread
from xmodaler.inference.retriever import Ranking, Retriever
from xmodaler.inference.vector_retriever import VectorRetriever
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES

__all__ = ["answer_samples", "choice_samples", "ranking_samples"]

_POOL = {True: 1000, False: 100}  # most pictures that are ranked, with vectors or pair by pair
_HITS = 6

Sample = dict[str, Any]


def answer_samples(
    answerer: Answerer, stage: str, count: int, folder: str, attention: bool = False
) -> list[Sample]:
    """Questions spread evenly over a split, with the model's answers as bars.

    Args:
        answerer: The model.
        stage: ``"test"`` or ``"val"``.
        count: Questions to show.
        folder: Where the pictures are, or ''.
        attention: Show where the words of questions looked, of models with fusion layers.
    """
    mapper = _mapper(answerer.cfg, stage, stage)
    if mapper is None:
        return []
    truths = _truths(answerer, stage)
    samples = []
    for record, sample in _records(mapper, answerer.cfg, count):
        (answer,) = answerer.answer_batch(
            [(sample, [record["question"]])], return_attention=attention
        )
        truth = truths.get(canonical_id(record["question_id"])) or _own_truth(answerer, record)
        can_score = truth.can_score
        scores = {"accuracy": truth.accuracy(answer.text)} if can_score else {}
        samples.append(
            {
                "image": _picture(answerer.cfg, folder, record),
                "question": record["question"],
                "caption": answer.text,
                "bars": [(t, p, can_score and truth.accuracy(t) > 0) for t, p in answer],
                "references": _people(truth),
                "scores": scores,
                "words": list(answer.words),
                "attention": answer.attention,
            }
        )
    return samples


def choice_samples(chooser: Chooser, stage: str, count: int, folder: str) -> list[Sample]:
    """Questions with four answers, with the model's probabilities as bars; as above."""
    mapper = _mapper(chooser.cfg, stage, f"{stage};VCR_Q-A")
    if mapper is None:
        return []
    samples = []
    for record, sample in _records(mapper, chooser.cfg, count):
        offered = tuple(record["answers"])
        (choice,) = chooser.choose_batch([(sample, [record["question"]])], offered)
        right = record.get("answer_label")
        bars = zip(offered, choice.probabilities, strict=True)
        samples.append(
            {
                "image": _picture(chooser.cfg, folder, record),
                "question": record["question"],
                "caption": choice.text,
                "bars": [(text, p, k == right) for k, (text, p) in enumerate(bars)],
            }
        )
    return samples


def ranking_samples(retriever: Retriever, stage: str, count: int, folder: str) -> list[Sample]:
    """Texts with the pictures found for them, and pictures with texts; as above.

    The pool is the split, or pictures spread evenly over it where it is large.
    """
    cfg = retriever.cfg
    mapper = _mapper(cfg, stage, stage)
    if mapper is None:
        return []
    by_vectors = isinstance(retriever, VectorRetriever)
    size = _POOL[by_vectors and not isinstance(retriever, FusionRetriever)]
    pool = [pair for pair in _records(mapper, cfg, size) if pair[0].get("captions")]
    records = {str(record["image_id"]): record for record, _ in pool}
    texts = {record["captions"][0]: name for name, record in records.items()}
    queries = spread(list(texts), count - count // 3)
    samples = []
    by_text = retriever.rank_pictures(queries, [s for _, s in pool], len(pool)) if queries else []
    for ranking in by_text:
        hits = [
            {"image": _picture(cfg, folder, records[hit.id]), "text": hit.id, "score": hit.score}
            for hit in ranking[:_HITS]
        ]
        right = texts[ranking.query]
        for hit in hits:
            hit["right"] = hit["text"] == right
            if hit["image"] is not None:
                hit["text"] = ""
        scores = {"rank of its picture": _rank(ranking, {right}), "among": len(pool)}
        samples.append({"caption": ranking.query, "hits": hits, "scores": scores})
    chosen = spread(pool, count // 3)
    by_picture = retriever.rank_texts([s for _, s in chosen], list(texts), len(texts))
    for (record, _), ranking in zip(chosen, by_picture, strict=True):
        own = set(record["captions"])
        hits = [
            {"text": hit.id, "score": hit.score, "right": hit.id in own} for hit in ranking[:_HITS]
        ]
        samples.append(
            {
                "image": _picture(cfg, folder, record),
                "question": f"Texts for {record['image_id']}",
                "caption": ranking[0].id,
                "hits": hits,
                "scores": {"rank of its text": _rank(ranking, own), "among": len(texts)},
            }
        )
    return samples


def _mapper(cfg: CfgNode, split: str, stage: str) -> UnderstandingDataset | None:
    """The mapper of a split, or None where a class of the user's own reads it."""
    name = cfg.DATASETS[split.upper()]
    dataset = DATASETS_REGISTRY.get(name)
    if not (isinstance(dataset, type) and issubclass(dataset, UnderstandingDataset)):
        return None
    if issubclass(dataset, Flickr30kDataset):
        name = Flickr30kDataset.__name__  # a picture a record, whatever the model reads at a time
    return build_dataset_mapper(cfg, name, stage)


def _records(
    mapper: UnderstandingDataset, cfg: CfgNode, count: int
) -> list[tuple[dict[str, Any], Sample]]:
    """Readable records spread over the split, with the visual keys of their samples."""
    mapper.prepare(cfg)
    found = []
    records = [record for record in mapper.load_raw_data(cfg) if "error" not in record]
    if isinstance(mapper, JsonRecords):
        records = [_described(record) for record in records]
    records = [record for record in records if record.get("question", "?").strip()]
    visual = getattr(mapper, "visual", mapper.source.sample)
    for record in spread(records, count):
        name = str(record.get("image_id", record.get(mapper.id_key)))
        try:
            sample = dict_as_tensor({kfg.IDS: name, **visual(record)})
            if sample.get(kfg.IMAGES) is not None and sample[kfg.IMAGES].ndim == 4:
                record["shown"] = _middle_frame(sample[kfg.IMAGES])
            found.append((record, sample))
        except SampleError:
            continue
    return found


def _described(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a task under the names that other records have."""
    texts, visual = record.get("texts") or [""], record.get("visual")
    labels = {}
    if record.get("label", -1) >= 0:
        labels = {"labels": [record["label"]], "scores": [1.0]}
    return {
        "image_id": str(record.get("index", record["record_id"])),
        "question_id": record["record_id"],
        "question": texts[0],
        "captions": texts,
        **({"file_name": visual} if isinstance(visual, str) else {}),
        **labels,
        **record,
    }


def _middle_frame(frames: Tensor) -> Any:
    """The frame (3, H, W) uint8 in the middle of (F, 3, H, W) as a picture."""
    from PIL import Image

    return Image.fromarray(frames[len(frames) // 2].permute(1, 2, 0).cpu().numpy())


def _truths(answerer: Answerer, stage: str) -> Mapping[str, VQATruth]:
    file = expand_path(answerer.cfg.INFERENCE[f"{stage.upper()}_ANNFILE"])
    if not file or not os.path.isfile(file):
        return {}
    return read_truth(file, lambda: answerer.vocabulary)


def _own_truth(answerer: Answerer, record: Mapping[str, Any]) -> VQATruth:
    if "labels" not in record:
        return VQATruth()
    pairs = zip(record["labels"], record["scores"], strict=True)
    return VQATruth(scores={answerer.vocabulary[label]: score for label, score in pairs})


def _people(truth: VQATruth) -> list[str]:
    """What people answered and how many, most first."""
    if truth.people:
        counts = Counter(truth.people).most_common()
        return [f"{text} ({n} of {len(truth.people)})" for text, n in counts]
    return [f"{text} ({score:.1f})" for text, score in (truth.scores or {}).items()]


def _rank(ranking: Ranking, right: set[str]) -> int:
    return next(place for place, hit in enumerate(ranking, 1) if hit.id in right)


def _picture(cfg: CfgNode, folder: str, record: Mapping[str, Any]) -> Any:
    """The file of a record's picture, by its name or its id; None where there is none.

    Of a video it is a frame, as a picture.
    """
    if "shown" in record:
        return record["shown"]
    if not folder:
        return None
    name = str(record["image_id"])
    names = [record.get("file_name") or "", *(f"{name}{suffix}" for suffix in PICTURE_SUFFIXES)]
    pattern = cfg.DATALOADER.IMAGE_NAME
    if pattern and name.isdecimal():
        names.insert(0, pattern.format(int(name)))
    paths = (os.path.join(folder, part) for text in names if text for part in (text, _base(text)))
    return next((path for path in paths if os.path.isfile(path)), None)


def _base(path: str) -> str:
    return os.path.basename(path)
