"""How answers to questions are compared; see :mod:`xmodaler.functional.func_vqa`."""

from xmodaler.functional.func_vqa import (
    answer_scores,
    consensus_score,
    normalize_annotators,
    normalize_answer,
    vqa_accuracy,
)

__all__ = [
    "answer_scores",
    "consensus_score",
    "normalize_annotators",
    "normalize_answer",
    "vqa_accuracy",
]
