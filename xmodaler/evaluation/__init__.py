"""Evaluators, caption metrics and the report."""

from xmodaler.evaluation.build import EVALUATION_REGISTRY, build_evaluation
from xmodaler.evaluation.coco_evaler import COCOEvaler
from xmodaler.evaluation.coco_printer import COCOPrinter
from xmodaler.evaluation.meteor_reward import Meteor
from xmodaler.evaluation.scoring import compare_captions, score_captions

__all__ = [
    "EVALUATION_REGISTRY",
    "COCOEvaler",
    "COCOPrinter",
    "Meteor",
    "build_evaluation",
    "compare_captions",
    "score_captions",
]
