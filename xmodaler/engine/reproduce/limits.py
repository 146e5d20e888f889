"""What chance and the truth reach on generated questions, choices and searches."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodaler.datasets.annotations import read_json
from xmodaler.engine.reproduce.x2vlm_limits import x2vlm_limits
from xmodaler.evaluation.vqa_normalize import vqa_accuracy

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

__all__ = ["limits_of", "question_limits", "search_limits"]

Limits = dict[str, dict[str, float]]


def limits_of(cfg: "CfgNode") -> Limits:
    """The scores between which a model lies.

    Args:
        cfg: A config of generated data for questions, choices or searches.

    Returns:
        ``chance`` and ``oracle``, each by the name of a metric, as fractions; without an entry
        where nothing is known.
    """
    if cfg.MODEL.META_ARCHITECTURE.startswith("X2VLM"):
        return x2vlm_limits(cfg)
    folder = Path(cfg.INFERENCE.TEST_ANNFILE).parent
    if cfg.INFERENCE.NAME == "VQAEvaler":
        return question_limits(folder)
    if cfg.INFERENCE.NAME == "VCREvaler":
        chance = {"Q -> A": 1 / 4, "QA -> R": 1 / 4, "Q -> AR": 1 / 16}
        return {"chance": chance, "oracle": dict.fromkeys(chance, 1.0)}
    if "Retrieval" in cfg.ENGINE.NAME:
        lines = Path(cfg.INFERENCE.TEST_ANNFILE).read_text(encoding="utf-8").splitlines()
        return search_limits([json.loads(line)["sentences"] for line in lines])
    return {"chance": {}, "oracle": {}}


def question_limits(folder: Path) -> Limits:
    """The commonest answer of training to each question, and the true one, as ten people judge."""
    common: dict[str, Counter[str]] = defaultdict(Counter)
    for question, annotation in _read_questions(folder, "train"):
        for key in (question, annotation["question_type"]):
            common[key][annotation["multiple_choice_answer"]] += 1
    chance, oracle = [], []
    for question, annotation in _read_questions(folder, "test"):
        people = [record["answer"] for record in annotation["answers"]]
        counts = common[question] or common[annotation["question_type"]]
        chance.append(vqa_accuracy(counts.most_common(1)[0][0], people) if counts else 0.0)
        oracle.append(vqa_accuracy(annotation["true_answer"], people))
    return {"chance": {"accuracy": _mean(chance)}, "oracle": {"accuracy": _mean(oracle)}}


def _read_questions(folder: Path, split: str) -> list[tuple[str, Mapping[str, Any]]]:
    questions = read_json(str(folder / f"v2_OpenEnded_shapes_{split}_questions.json"))
    annotations = read_json(str(folder / f"v2_shapes_{split}_annotations.json"))
    pairs = zip(questions["questions"], annotations["annotations"], strict=True)
    return [(question["question"], annotation) for question, annotation in pairs]


def search_limits(captions: Sequence[Sequence[str]]) -> Limits:
    """A random order of the pool, and the truth, to which pictures of one caption are alike.

    Args:
        captions: Of each picture of the pool.
    """
    chance, oracle = {}, {}
    owners = Counter(caption for own in captions for caption in set(own))
    for k in (1, 5, 10):
        chance[f"t2i/R@{k}"] = min(1.0, k / len(captions))
        found = [min(1.0, k / owners[caption]) for own in captions for caption in own]
        oracle[f"t2i/R@{k}"] = _mean(found)
    return {"chance": chance, "oracle": oracle}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
