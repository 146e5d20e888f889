"""Scores of generated sentences: the shared core of CIDEr-D."""

from xmodaler.scorer.cider_core import CiderD, count_ngrams, document_frequencies

__all__ = ["CiderD", "count_ngrams", "document_frequencies"]
