"""Where tokenizers come from: vocabulary files, tokenizer.json, the Hugging Face hub."""

import json
import os
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.hub import NotOnHubError, hub_files

ROLES = ("unk", "sep", "pad", "cls", "mask")
"""What special tokens are for."""

_HUB_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
# Where the configs of X-modaler keep the vocabulary of bert-base-uncased.
RELEASED_FILE = "../pretrain/BERT/bert-base-uncased-vocab.txt"


def hub_folder(name: str) -> str:
    """The files of a tokenizer of the hub, from its cache or the network.

    Raises:
        UserError: They are in neither.
    """
    try:
        return hub_files(name, _HUB_FILES)
    except NotOnHubError as error:
        raise UserError(
            f"The tokenizer '{name}' (MODEL.PRETRAINING.MODEL_NAME) is neither a file nor a "
            f"folder here and cannot be had from the Hugging Face hub ({error}); give a "
            "vocabulary file or a folder with tokenizer.json or vocab.txt, which "
            "tools/train_tokenizer.py makes from captions"
        ) from None


def read_tokenizer_json(
    path: str,
) -> "tuple[tokenizers.Tokenizer, dict[str, str]]":  # noqa: F821
    """The tokenizer of a file of the ``tokenizers`` library, and its special tokens by role.

    The roles are read from ``special_tokens_map.json`` or ``tokenizer_config.json`` beside the
    file, and otherwise guessed from the usual names.

    Raises:
        UserError: The file cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception for every damage
        raise UserError(f"'{path}' is not a tokenizer.json that can be read: {error}") from None
    named = {
        **_json_beside(path, "tokenizer_config.json"),
        **_json_beside(path, "special_tokens_map.json"),
    }
    return backend, _special_tokens(backend, named)


def read_vocabulary(path: str) -> dict[str, int]:
    """Tokens and ids of a file with one token a line.

    Raises:
        UserError: It cannot be read, or has a token twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            tokens = [line.rstrip("\r\n") for line in file]
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The vocabulary '{path}' cannot be read: {reason}") from None
    except UnicodeDecodeError:
        raise UserError(f"The vocabulary '{path}' is not UTF-8 text, one token a line") from None
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for index, token in enumerate(tokens) if vocabulary[token] != index)
        raise UserError(f"The vocabulary '{path}' has the token '{twice}' on two lines")
    return vocabulary


def word_piece(
    vocabulary: dict[str, int], unknown: str, lower: bool, punctuation: bool, chinese: bool
) -> "tokenizers.Tokenizer":  # noqa: F821
    """BERT's cutting: into words, then greedily into the longest pieces of a vocabulary.

    Args:
        vocabulary: Tokens and ids.
        unknown: The token of words that cannot be cut.
        lower: Lower the case and strip accents.
        punctuation: Cut words at punctuation too, and clean the text; else at white space only.
        chinese: Make every CJK character a word.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    backend = Tokenizer(
        models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100)
    )
    if punctuation:
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=chinese, strip_accents=lower, lowercase=lower
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return backend


def is_word_piece(backend: "tokenizers.Tokenizer") -> bool:  # noqa: F821
    """Whether pieces inside a word begin with ``##``."""
    return type(backend.model).__name__ == "WordPiece"


# What the tokenizers of the hub call the five roles.
_USUAL_NAMES = {
    "unk": ("[UNK]", "<unk>", "<|endoftext|>"),
    "sep": ("[SEP]", "</s>", "<|endoftext|>"),
    "pad": ("[PAD]", "<pad>", "<|endoftext|>"),
    "cls": ("[CLS]", "<s>", "<|startoftext|>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}


def _special_tokens(
    backend: "tokenizers.Tokenizer",  # noqa: F821
    named: dict[str, Any],
) -> dict[str, str]:
    special = {}
    for role, usual in _USUAL_NAMES.items():
        token = named.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        candidates = (token,) if token else usual
        found = next((name for name in candidates if backend.token_to_id(name) is not None), None)
        special[role] = found or usual[0]
    return special


def _json_beside(path: str, name: str) -> dict[str, Any]:
    path = os.path.join(os.path.dirname(path), name)
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is not JSON that can be read: {error}") from None
    return content if isinstance(content, dict) else {}
