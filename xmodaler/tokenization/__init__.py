"""Tokenizers of captions and questions."""

from xmodaler.tokenization.bert import BertTokenizer
from xmodaler.tokenization.build import LazyTokenizer, build_tokenizer
from xmodaler.tokenization.ptb import PTBTokenizer

__all__ = ["BertTokenizer", "LazyTokenizer", "PTBTokenizer", "build_tokenizer"]
