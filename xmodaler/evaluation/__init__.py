"""Evaluators, caption metrics and the report."""

from xmodaler.evaluation.build import EVALUATION_REGISTRY, build_evaluation
from xmodaler.evaluation.coco_evaler import COCOEvaler
from xmodaler.evaluation.coco_printer import COCOPrinter

__all__ = ["EVALUATION_REGISTRY", "COCOEvaler", "COCOPrinter", "build_evaluation"]
