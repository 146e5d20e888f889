"""BERT's WordPiece tokenizer, and others of the hub, behind the members that models ask for."""

import json
import os
from collections.abc import Sequence
from typing import Any, ClassVar

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .backends import (
    RELEASED_FILE,
    ROLES,
    hub_folder,
    is_word_piece,
    read_tokenizer_json,
    read_vocabulary,
    word_piece,
)

_MAX_LENGTH = 512
_UNCASED = (
    "bert-base-uncased",
    "bert-large-uncased",
    "bert-base-multilingual-uncased",
    "bert-large-uncased-whole-word-masking",
    "bert-large-uncased-whole-word-masking-finetuned-squad",
)
_CASED = (
    "bert-base-cased",
    "bert-large-cased",
    "bert-base-multilingual-cased",
    "bert-base-chinese",
    "bert-base-german-cased",
    "bert-large-cased-whole-word-masking",
    "bert-large-cased-whole-word-masking-finetuned-squad",
    "bert-base-cased-finetuned-mrpc",
)


class BertTokenizer:
    """Text to word pieces and ids, and back (Devlin et al., 2019; WordPiece: Wu et al., 2016).

    A word is cut greedily into the longest pieces that the vocabulary has; pieces inside a word
    begin with ``##``; a word that cannot be cut, or has more than 100 characters, becomes the
    unknown token. Special tokens that stand in a text are kept whole. :meth:`encode` adds none:
    :meth:`add_special_tokens_single_sentence` does.

    Args:
        vocab_file: One token a line, its id the number of the line from 0.
        do_lower_case: Lower the case and strip accents first.
        do_basic_tokenize: Cut at white space and punctuation first; otherwise the text is taken
            as words separated by white space.
        never_split: Further tokens that are kept whole.
        unk_token, sep_token, pad_token, cls_token, mask_token: The special tokens.
        tokenize_chinese_chars: Put every CJK character in a word of its own.
        **kwargs: ``max_len``, the greatest length with special tokens; others are ignored.

    Raises:
        UserError: The file cannot be read, or lacks a special token.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt"}
    pretrained_vocab_files_map: ClassVar[dict[str, dict[str, str]]] = {
        "vocab_file": {name: f"https://huggingface.co/{name}" for name in (*_UNCASED, *_CASED)}
    }
    pretrained_init_configuration: ClassVar[dict[str, dict[str, bool]]] = {
        **{name: {"do_lower_case": True} for name in _UNCASED},
        **{name: {"do_lower_case": False} for name in _CASED},
    }
    max_model_input_sizes: ClassVar[dict[str, int]] = dict.fromkeys(
        (*_UNCASED, *_CASED), _MAX_LENGTH
    )

    def __init__(
        self,
        vocab_file: str | os.PathLike[str],
        do_lower_case: bool = True,
        do_basic_tokenize: bool = True,
        never_split: Sequence[str] | None = None,
        unk_token: str = "[UNK]",
        sep_token: str = "[SEP]",
        pad_token: str = "[PAD]",
        cls_token: str = "[CLS]",
        mask_token: str = "[MASK]",
        tokenize_chinese_chars: bool = True,
        **kwargs: Any,
    ) -> None:
        path = expand_path(vocab_file)
        special = dict(
            zip(ROLES, (unk_token, sep_token, pad_token, cls_token, mask_token), strict=True)
        )
        backend = word_piece(
            read_vocabulary(path),
            unk_token,
            do_lower_case and do_basic_tokenize,
            do_basic_tokenize,
            tokenize_chinese_chars and do_basic_tokenize,
        )
        self._set_up(backend, special, path, never_split or (), kwargs.get("max_len", _MAX_LENGTH))

    def _set_up(
        self,
        backend: "tokenizers.Tokenizer",  # noqa: F821
        special: dict[str, str],
        source: str,
        never_split: Sequence[str] = (),
        max_len: int = _MAX_LENGTH,
    ) -> None:
        from tokenizers import AddedToken

        missing = [token for token in special.values() if backend.token_to_id(token) is None]
        if missing:
            raise UserError(
                f"The vocabulary '{source}' lacks {', '.join(missing)}; a BERT vocabulary has "
                "[UNK], [SEP], [PAD], [CLS] and [MASK]"
            )
        # Tokens that a tokenizer.json already knows as special keep its settings.
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        kept = [token for token in never_split if backend.token_to_id(token) is not None]
        backend.add_special_tokens(
            [
                AddedToken(token, normalized=False)
                for token in dict.fromkeys([*special.values(), *kept])
                if token not in known
            ]
        )
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special = special
        self.source = source
        self.max_len = max_len
        self.vocab: dict[str, int] = dict(
            sorted(backend.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
        )
        self.ids_to_tokens: dict[int, str] = {index: token for token, index in self.vocab.items()}

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], do_lower_case: bool | None = None, **kwargs: Any
    ) -> "BertTokenizer":
        """The tokenizer of a vocabulary file, a folder, or a model of the Hugging Face hub.

        Args:
            name_or_path: A vocabulary file; a ``tokenizer.json``; a folder that holds either (any
                language, any algorithm of the ``tokenizers`` library, if it names tokens for
                unknown, separator, padding, class and mask); or a name of the hub, which needs
                the network or a copy in its cache.
            do_lower_case: For vocabulary files; None takes what the name stands for, else True.
            **kwargs: Of the constructor.

        Raises:
            UserError: Nothing usable is there.
        """
        name = os.fspath(name_or_path)
        path = expand_path(name)
        known = cls.pretrained_init_configuration.get(os.path.basename(name.rstrip("/")), {})
        if do_lower_case is None:
            do_lower_case = known.get("do_lower_case", True)
        if os.path.isdir(path):
            return cls._from_folder(path, do_lower_case, **kwargs)
        if os.path.isfile(path):
            if path.endswith(".json"):
                return cls._from_json(path)
            return cls(path, do_lower_case=do_lower_case, **kwargs)
        if name == "bert-base-uncased" and os.path.isfile(RELEASED_FILE):
            return cls(RELEASED_FILE, do_lower_case=do_lower_case, **kwargs)
        return cls._from_hub(name, do_lower_case, **kwargs)

    @classmethod
    def _from_folder(cls, folder: str, do_lower_case: bool, **kwargs: Any) -> "BertTokenizer":
        # A tokenizer.json holds the algorithm and its settings, a vocab.txt only the words.
        file = os.path.join(folder, "tokenizer.json")
        if os.path.isfile(file):
            return cls._from_json(file)
        file = os.path.join(folder, cls.vocab_files_names["vocab_file"])
        if os.path.isfile(file):
            return cls(file, do_lower_case=do_lower_case, **kwargs)
        raise UserError(
            f"The folder '{folder}' (MODEL.PRETRAINING.MODEL_NAME) holds neither tokenizer.json "
            "nor vocab.txt; tools/train_tokenizer.py writes both"
        )

    @classmethod
    def _from_json(cls, path: str) -> "BertTokenizer":
        backend, special = read_tokenizer_json(path)
        tokenizer = cls.__new__(cls)
        tokenizer._set_up(backend, special, path)
        return tokenizer

    @classmethod
    def _from_hub(cls, name: str, do_lower_case: bool, **kwargs: Any) -> "BertTokenizer":
        folder = hub_folder(name)
        tokenizer = cls._from_folder(folder, do_lower_case, **kwargs)
        tokenizer.source = name
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.vocab)

    def __len__(self) -> int:
        return len(self.vocab)

    def __getattr__(self, name: str) -> Any:
        """``cls_token``, ``cls_token_id`` and so on for unk, sep, pad, cls and mask."""
        role = name.removesuffix("_id").removesuffix("_token")
        if role in ROLES and name in (f"{role}_token", f"{role}_token_id"):
            token = self.__dict__["_special"][role]
            return self.vocab[token] if name.endswith("_id") else token
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens, each once."""
        return list(dict.fromkeys(self._special.values()))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the special tokens."""
        return [self.vocab[token] for token in self.all_special_tokens]

    @property
    def max_len_single_sentence(self) -> int:
        """Most word pieces of a text beside its special tokens."""
        return self.max_len - 2

    @property
    def max_len_sentences_pair(self) -> int:
        """Most word pieces of a pair of texts beside its special tokens."""
        return self.max_len - 3

    def tokenize(self, text: str) -> list[str]:
        """The word pieces of a text; none for a text of white space."""
        return self._backend.encode(text, add_special_tokens=False).tokens

    def encode(self, text: str) -> list[int]:
        """Ids of a text's word pieces, without special tokens."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` of many texts."""
        # One by one: the library's threads do not survive the fork of data workers.
        return [self.encode(text) for text in texts]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """The id of a token, or of each of several; of the unknown token for others."""
        unknown = self.unk_token_id
        if isinstance(tokens, str):
            return self.vocab.get(tokens, unknown)
        return [self.vocab.get(token, unknown) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> str | list[str]:
        """The token of an id, or of each of several."""
        if isinstance(ids, int):
            return self.ids_to_tokens.get(ids, self.unk_token)
        return [self.ids_to_tokens.get(int(index), self.unk_token) for index in ids]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Tokens joined to a text, pieces of one word to the word."""
        if self._backend.decoder is None or is_word_piece(self._backend):
            return " ".join(tokens).replace(" ##", "").strip()
        return self._backend.decoder.decode(list(tokens)).strip()

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        hidden = set(self.all_special_ids) if skip_special_tokens else set()
        tokens = self.convert_ids_to_tokens([index for index in ids if index not in hidden])
        return self.convert_tokens_to_string(tokens)

    def add_special_tokens_single_sentence(self, token_ids: Sequence[int]) -> list[int]:
        """``[CLS] x [SEP]``."""
        return [self.cls_token_id, *token_ids, self.sep_token_id]

    def add_special_tokens_sentences_pair(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int]
    ) -> list[int]:
        """``[CLS] a [SEP] b [SEP]``."""
        sep = self.sep_token_id
        return [self.cls_token_id, *token_ids_0, sep, *token_ids_1, sep]

    def save_vocabulary(self, vocab_path: str | os.PathLike[str]) -> tuple[str]:
        """Write the vocabulary, a token a line.

        Args:
            vocab_path: The file, or a folder that gets a ``vocab.txt``.

        Returns:
            The path of the file.
        """
        from xmodaler.utils.atomic import atomic_write

        path = expand_path(vocab_path)
        if os.path.isdir(path):
            path = os.path.join(path, self.vocab_files_names["vocab_file"])
        with atomic_write(path, "w") as file:
            file.writelines(f"{token}\n" for token in self.vocab)
        return (path,)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write ``tokenizer.json``, ``special_tokens_map.json`` and ``vocab.txt`` into a folder."""
        from xmodaler.utils.atomic import atomic_write

        folder = expand_path(folder)
        os.makedirs(folder, exist_ok=True)
        files = {
            "tokenizer.json": self._backend.to_str(pretty=True),
            "special_tokens_map.json": json.dumps(
                {f"{role}_token": token for role, token in self._special.items()}, indent=1
            ),
        }
        for name, content in files.items():
            with atomic_write(os.path.join(folder, name), "w") as file:
                file.write(content)
        written = [os.path.join(folder, name) for name in files]
        return (*written, *self.save_vocabulary(folder))

    def fingerprint(self) -> str:
        """A text that two tokenizers share only if they cut and number alike, for caches."""
        import hashlib

        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_special", "source", "max_len")
        return {"json": self._backend.to_str(), **{name: self.__dict__[name] for name in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self._set_up(
            Tokenizer.from_str(state["json"]),
            state["_special"],
            state["source"],
            max_len=state["max_len"],
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.source}', vocab_size={self.vocab_size})"
