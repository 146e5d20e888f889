"""What chance and the truth reach on the generated tasks of X²-VLM."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodaler.datasets.annotations import read_json

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

__all__ = ["commonest_answers", "x2vlm_limits"]

Limits = dict[str, dict[str, float]]


def x2vlm_limits(cfg: "CfgNode") -> Limits:
    """The scores between which a model lies; see :func:`~.limits.limits_of`.

    Chance is: of searches, a random order; of questions, the commonest answer of training to each;
    of statements, whose words tell nothing, one half; of expressions, the box of a shape of the
    picture, as if boxes were given.
    """
    from xmodaler.engine.reproduce.limits import question_limits, search_limits

    path = Path(cfg.DATALOADER.TEST_ANNFILE.split(",")[0].rpartition("=")[2])
    match cfg.MODEL.META_ARCHITECTURE:
        case "X2VLMRetrieval":
            return search_limits(_captions(path))
        case "X2VLMVQA":
            return question_limits(path.parents[2] / "understanding" / "vqa")
        case "X2VLMClassifier":
            chance = commonest_answers(path.with_name("train.jsonl"), path)
        case "X2VLMGrounding":
            chance = _any_shape(path)
        case _:
            chance = 0.5
    return {"chance": {"accuracy": chance}, "oracle": {"accuracy": 1.0}}


def _captions(path: Path) -> list[list[str]]:
    """Those of each picture, of which files may have several records."""
    pictures: dict[str, list[str]] = defaultdict(list)
    for record in read_json(str(path)):
        said = record["caption"]
        pictures[record["image"]] += [said] if isinstance(said, str) else said
    return list(pictures.values())


def commonest_answers(train: Path, test: Path) -> float:
    """The accuracy of the commonest answer of training to each question.

    A question that training lacks gets the commonest answer to those that begin alike.

    Args:
        train, test: Lines of ``question`` and ``answer``.
    """
    common: dict[str, Counter[str]] = defaultdict(Counter)
    for record in _lines(train):
        for key in (record["question"], _beginning(record)):
            common[key][record["answer"]] += 1
    right = []
    for record in _lines(test):
        counts = common[record["question"]] or common[_beginning(record)]
        right.append(bool(counts) and counts.most_common(1)[0][0] == record["answer"])
    return sum(right) / len(right)


def _beginning(record: dict[str, Any]) -> str:
    return " ".join(record["question"].split()[:2])


def _any_shape(path: Path) -> float:
    """How often a shape of the right picture is the right one."""
    shapes: Counter[int] = Counter()
    for annotation in read_json(str(path.with_name("instances.json")))["annotations"]:
        shapes[annotation["image_id"]] += 1
    refs = {ref["ref_id"]: ref for ref in read_json(str(path.with_name("refs.json")))}
    records = read_json(str(path))
    return sum(1 / shapes[refs[r["ref_id"]]["image_id"]] for r in records) / len(records)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
