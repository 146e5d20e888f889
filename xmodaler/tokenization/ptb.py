"""Penn-Treebank tokens as the COCO caption toolkit counts them, without Java.

The official caption scores are computed on the output of Stanford's ``PTBTokenizer`` (CoreNLP
3.4.1, options ``-preserveLines -lowerCase``) from which the toolkit then drops a fixed list of
punctuation tokens. That tokenizer is a longest-match lexer: at every position each rule is tried,
the rule reaching furthest wins, and among equals the one listed first. The same machine is driven
here by the ordered table of regular expressions in :mod:`xmodaler.tokenization.ptb_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from xmodaler.tokenization.ptb_rules import lexer_rules

__all__ = ["PUNCTUATION", "PTBTokenizer"]

#: Tokens that the COCO caption toolkit drops. The brackets are upper case there although the tokens
#: are lower case, so ``-lrb-`` and ``-rrb-`` stay: published scores contain them.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--"]
) | {"...", ";"}


class PTBTokenizer:
    """Splits captions into the tokens that BLEU, METEOR, ROUGE-L and CIDEr of COCO are counted on.

    Example:
        >>> PTBTokenizer().tokenize("A man's dog can't jump, says Mr. Smith.")
        ['a', 'man', "'s", 'dog', 'ca', "n't", 'jump', 'says', 'mr.', 'smith']
    """

    def __call__(self, text: str) -> list[str]:
        return self.tokenize(text)

    def tokenize(self, text: str) -> list[str]:
        """Tokenizes one caption that stands alone.

        Args:
            text: Any text; line breaks count as spaces.

        Returns:
            Lower-case tokens without the toolkit's punctuation.
        """
        return self.tokenize_document([text, ""])[0]

    def tokenize_document(self, captions: Sequence[str]) -> list[list[str]]:
        """Tokenizes captions as the official toolkit does: as the lines of one document.

        The difference from :meth:`tokenize` is tiny but visible in scores: the lexer looks past the
        end of a caption, so that "... a sign that reads K." keeps the token "k." unless the next
        caption starts with one of the words that begin sentences ("A", "The", ...).

        Args:
            captions: Captions in the order of the official run (image by image).

        Returns:
            One list of tokens per caption.
        """
        if not captions:
            return []
        document = "\n".join(caption.replace("\n", " ") for caption in captions)
        lines: list[list[str]] = [[]]
        for token in _lex(document):
            if token is None:
                lines.append([])
            elif token not in PUNCTUATION:
                lines[-1].append(token)
        # A stray vertical tab or carriage return ends a line for the Java program, too, and shifts
        # every later caption by one. Reproducing that would help nobody.
        return lines


# Words that are written as one and counted as two, with the length of the first.
_FUSED = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3}
_BLANK = re.compile(r"(?:[^\S\n]|&nbsp;)+", re.IGNORECASE)
# Most of any caption: a bare word in front of a space, a line end, or a comma and either.
_BARE_WORD = re.compile(r"([A-Za-z]+)(?=,?(?:[ \n]|\Z))")


def _lex(text: str) -> Iterator[str | None]:
    """Yields lower-case tokens in order, and None for every line feed."""
    position, end = 0, len(text)
    while position < end:
        if match := _BARE_WORD.match(text, position):
            token, position = match[1].lower(), match.end()
            if cut := _FUSED.get(token):
                yield token[:cut]
                token = token[cut:]
            yield token
        elif text[position] == "\n":
            position += 1
            yield None
        elif match := _BLANK.match(text, position):
            position = match.end()
        else:
            length, token = _longest_match(text, position)
            position += length
            if token:
                yield token.lower()


def _longest_match(text: str, position: int) -> tuple[int, str]:
    """The token that starts at ``position``, and how many characters of the text it takes.

    Characters unknown to the lexer (emoji, control characters) give an empty token.
    """
    reach, token, rewrite = position, "", None
    for pattern, rule_rewrite in lexer_rules():
        match = pattern.match(text, position)
        if match and match.end() > reach and match[1]:
            reach, token, rewrite = match.end(), match[1], rule_rewrite
    if not token:
        return 1, ""
    if reach == position + len(token):  # fused words are cut only where no contraction follows
        token = token[: _FUSED.get(token.lower(), len(token))]
    length = len(token)
    if rewrite is not None:
        token = rewrite(token)
    if "\u00ad" in token:
        token = token.replace("\u00ad", "") or "-"
    return length, token
