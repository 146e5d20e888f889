"""Evaluators, caption metrics and the report."""

from xmodaler.evaluation.accuracy import AccuracyEvaler
from xmodaler.evaluation.build import EVALUATION_REGISTRY, build_evaluation
from xmodaler.evaluation.coco_evaler import COCOEvaler
from xmodaler.evaluation.coco_printer import COCOPrinter
from xmodaler.evaluation.grounding import GroundingEvaler
from xmodaler.evaluation.meteor_reward import Meteor
from xmodaler.evaluation.retrieval_evaler import RetrievalEvaler
from xmodaler.evaluation.scoring import compare_captions, score_captions
from xmodaler.evaluation.vcr_evaler import VCREvaler
from xmodaler.evaluation.vqa_evaler import VQAEvaler

__all__ = [
    "EVALUATION_REGISTRY",
    "AccuracyEvaler",
    "COCOEvaler",
    "COCOPrinter",
    "GroundingEvaler",
    "Meteor",
    "RetrievalEvaler",
    "VCREvaler",
    "VQAEvaler",
    "build_evaluation",
    "compare_captions",
    "score_captions",
]
