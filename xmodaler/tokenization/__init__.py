"""Tokenizers of captions and questions."""

from xmodaler.tokenization.ptb import PTBTokenizer

__all__ = ["PTBTokenizer"]
