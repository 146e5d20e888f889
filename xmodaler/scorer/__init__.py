"""Scores of generated sentences: CIDEr-D, and the rewards of self-critical training."""

from .base_scorer import BaseScorer
from .bert_tokenized_scorer import BertTokenizedScorer
from .bleu import Bleu4
from .build import SCORER_REGISTRY, build_scorer
from .cider import Cider
from .cider_core import CiderD, count_ngrams, document_frequencies
from .reward import Reward
from .rouge import RougeL

__all__ = [
    "SCORER_REGISTRY",
    "BaseScorer",
    "BertTokenizedScorer",
    "Bleu4",
    "Cider",
    "CiderD",
    "Reward",
    "RougeL",
    "build_scorer",
    "count_ngrams",
    "document_frequencies",
]
