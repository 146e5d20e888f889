"""The tokenizer that a config names."""

from typing import Any

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError

from .bert import BertTokenizer


def build_tokenizer(cfg: CfgNode) -> BertTokenizer:
    """The tokenizer that MODEL.PRETRAINING.MODEL_NAME and .DO_LOWER_CASE name.

    Raises:
        UserError: There is none, or MODEL.VOCAB_SIZE is too small for its ids.
    """
    settings = cfg.MODEL.PRETRAINING
    tokenizer = BertTokenizer.from_pretrained(
        settings.MODEL_NAME, do_lower_case=settings.DO_LOWER_CASE
    )
    if max(tokenizer.ids_to_tokens) >= cfg.MODEL.VOCAB_SIZE:
        raise UserError(
            f"The tokenizer '{settings.MODEL_NAME}' (MODEL.PRETRAINING.MODEL_NAME) has "
            f"{len(tokenizer)} ids, but MODEL.VOCAB_SIZE is {cfg.MODEL.VOCAB_SIZE}; it must be at "
            f"least {max(tokenizer.ids_to_tokens) + 1}"
        )
    return tokenizer


class LazyTokenizer:
    """Stands for the tokenizer of a config and reads it when a member is first asked for.

    A model can so be built, and its weights be looked at, where its vocabulary is not.

    Args:
        cfg: The config.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg = cfg.clone()
        self._tokenizer: BertTokenizer | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_cfg" not in self.__dict__:  # asked for while unpickling
            raise AttributeError(name)
        if self._tokenizer is None:
            self._tokenizer = build_tokenizer(self._cfg)
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return self.vocab_size
