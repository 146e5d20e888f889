"""A small WordPiece vocabulary of one's own, so that nothing has to be downloaded."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""They get the ids 0 to 4: padding is 0 everywhere in batches."""


def train_wordpieces(
    texts: Iterable[str],
    vocab_size: int = 3000,
    min_count: int = 2,
    lower_case: bool = True,
    whole_words: Iterable[str] = (),
) -> list[str]:
    """Learn word pieces (Schuster & Nakajima, ICASSP 2012) from sentences.

    The same sentences give the same list, in whatever order they come: words are counted first,
    and equally frequent pairs are merged in the order of the vocabulary.

    Args:
        texts: Sentences.
        vocab_size: The most pieces, the five special tokens and all single letters included.
        min_count: Pairs that occur less often are not merged.
        lower_case: Lower letters and strip accents, as ``bert-base-uncased`` does.
        whole_words: Words that must be single pieces, such as ``left`` and ``right``.

    Returns:
        The pieces; the place of each is its id.

    Raises:
        UserError: No words, or ``vocab_size`` has no room for the letters.
    """
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import WhitespaceSplit

    counts = _count_words(texts, lower_case)
    if not counts:
        raise UserError("there is no word to learn a vocabulary from; give files with sentences")
    letters = {letter for word in counts for letter in word}
    least = len(SPECIAL_TOKENS) + 2 * len(letters)
    if vocab_size < least:
        raise UserError(
            f"a vocabulary of {vocab_size} has no room for the {len(letters)} letters of the text, "
            f"alone and as the middle of a word; make it at least {least}"
        )
    # The trainer numbers the letters inside words in the order of a hash table, and breaks ties
    # by these numbers; naming them beforehand makes its result the same every time.
    inside = [f"##{letter}" for letter in sorted(letters)]
    kept = [*SPECIAL_TOKENS, *sorted(letters), *inside, *_normal_words(whole_words, lower_case)]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=list(dict.fromkeys(kept)),
        limit_alphabet=len(letters),
        show_progress=False,
    )
    lines = (" ".join([word] * count) for word, count in sorted(counts.items()))
    tokenizer.train_from_iterator(lines, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def write_tokenizer(
    folder: str | os.PathLike, pieces: list[str], lower_case: bool = True, max_length: int = 512
) -> list[Path]:
    """Write ``vocab.txt``, ``tokenizer.json`` and ``tokenizer_config.json`` to a folder.

    ``MODEL.PRETRAINING.MODEL_NAME`` may then name the folder.

    Args:
        folder: Made where it does not exist.
        pieces: As :func:`train_wordpieces` gives them.
        lower_case: As they were learnt.
        max_length: The longest text that a model will read.

    Returns:
        The files.
    """
    from tokenizers import BertWordPieceTokenizer

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder '{folder}' cannot be made: {error.strerror}") from None
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=lower_case)
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lower_case,
        "model_max_length": max_length,
        **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS},
    }
    contents = {
        "vocab.txt": "".join(f"{piece}\n" for piece in pieces),
        "tokenizer.json": tokenizer.to_str(pretty=True) + "\n",
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
    }
    for name, content in contents.items():
        with atomic_write(folder / name, "w") as file:
            file.write(content)
    return [folder / name for name in contents]


def pieces_per_word(texts: Iterable[str], pieces: list[str], lower_case: bool = True) -> float:
    """Mean number of pieces that a word of the sentences is cut into."""
    from tokenizers import BertWordPieceTokenizer

    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=lower_case)
    counts = _count_words(texts, lower_case)
    cut = tokenizer.encode_batch(list(counts), add_special_tokens=False)
    total = sum(len(word.ids) * count for word, count in zip(cut, counts.values(), strict=True))
    return total / max(1, sum(counts.values()))


def _count_words(texts: Iterable[str], lower_case: bool) -> Counter[str]:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer, splitter = BertNormalizer(lowercase=lower_case), BertPreTokenizer()
    return Counter(
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )


def _normal_words(words: Iterable[str], lower_case: bool) -> list[str]:
    found = []
    for word in words:
        parts = list(_count_words([word], lower_case))
        if len(parts) != 1:
            raise UserError(f"'{word}' is not one word, so it cannot be one piece")
        found.extend(parts)
    return found
