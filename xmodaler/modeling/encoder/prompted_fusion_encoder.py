"""What X²-VLM makes of a picture under a prompt, for any decoder."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.checkpoint.x2vlm import translate_x2vlm
from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.tokenization import LazyTokenizer

from ..embedding.position_embedding import NNEmbeddingEncoding
from ..embedding.token_embed import TokenBaseEmbedding
from .build import ENCODER_REGISTRY
from .text_fusion_encoder import TextFusionEncoder

_WORDS = re.compile("^token_embed[.]")


@ENCODER_REGISTRY.register()
class PromptedFusionEncoder(TextFusionEncoder):
    """The states of a prompt that X²-VLM has fused with the picture, in place of regions.

    The prompt asks, a decoder of its own vocabulary answers: the states of its words are what the
    decoder attends to, and the first of them is the vector of the whole picture.

    Args:
        words: Embedding of the words of the prompt.
        tokenizer: Cuts the prompt; read when the first picture is encoded.
        prompt: The prompt.
        **stacks: As for :class:`~.text_fusion_encoder.TextFusionEncoder`.
    """

    @configurable
    def __init__(self, *, words: nn.Module, tokenizer: Any, prompt: str, **stacks: Any) -> None:
        super().__init__(**stacks)
        self.words = words
        self.tokenizer = tokenizer
        self.prompt = prompt
        self._prompt_ids: list[int] | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node, width = cfg.MODEL.FUSION, cfg.MODEL.BERT.HIDDEN_SIZE
        words = TokenBaseEmbedding(
            dim=width,
            vocab_size=node.PROMPT_VOCAB_SIZE,
            embeddings_norm=nn.LayerNorm(width, eps=node.TEXT_NORM_EPS),
            embeddings_dropout=nn.Dropout(cfg.MODEL.BERT.HIDDEN_DROPOUT_PROB),
            embeddings_pos=NNEmbeddingEncoding(width, 512),
            embeddings_token_type=nn.Embedding(2, width),
            padding_idx=0,
        )
        own = cfg.clone()
        own.defrost()
        own.MODEL.VOCAB_SIZE = node.PROMPT_VOCAB_SIZE
        return {
            **super().from_config(cfg),
            "words": words,
            "tokenizer": LazyTokenizer(own),
            "prompt": node.PROMPT,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.FUSION."""
        super().add_config(cfg)
        cfg.MODEL.FUSION.PROMPT = "what does the picture show?"
        cfg.MODEL.FUSION.PROMPT_VOCAB_SIZE = 30522

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """The fused prompt, in mode ``v``.

        Reads ATT_FEATS (B, N, memory width) and EXT_ATT_MASKS; gives ATT_FEATS (B, P, D),
        ATT_MASKS, EXT_ATT_MASKS for those P states, and GLOBAL_FEATS (B, D).
        """
        if mode is not None and "v" not in mode:
            return {}
        feats, hidden = batched_inputs[kfg.ATT_FEATS], batched_inputs.get(kfg.EXT_ATT_MASKS)
        images, ids = feats.shape[0], torch.tensor(self.prompt_ids, device=feats.device)
        tokens = ids.expand(images, -1)
        memory = self.memory(feats)
        if hidden is not None:
            memory = memory.masked(hidden[:, None, None] if hidden.dim() == 2 else hidden)
        states = self.text(self.words.embed(tokens, torch.zeros_like(tokens)), None)
        states = self.fuse(states, None, memory)
        shown = torch.ones_like(tokens, dtype=torch.bool)
        produced = {kfg.ATT_FEATS: states, kfg.ATT_MASKS: shown, kfg.GLOBAL_FEATS: states[:, 0]}
        if hidden is not None:
            open_mask = hidden.new_zeros(images, len(ids))
            produced[kfg.EXT_ATT_MASKS] = (
                open_mask if hidden.dim() == 2 else open_mask[:, None, None]
            )
        return produced

    def adapt_weights(self, state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Weights of an X²-VLM, released or of this package, for a model with this encoder.

        Its words become those of the prompt; the words of the captions, the decoder and the
        predictor are the model's own.

        Args:
            state: Weights of a file; those of a model with this encoder stay as they are.
            model: The model, which may have another size of pictures.
        """
        if any(name.startswith("encoder.words.") for name in state):
            return state
        tower = type(model.visual_embed.tower).__name__
        adapted = translate_x2vlm(state, model.state_dict(), len(self.text_layers), tower)
        return {
            _WORDS.sub("encoder.words.", name): value
            for name, value in adapted.items()
            if not name.startswith("predictor.")
        }

    @property
    def prompt_ids(self) -> list[int]:
        """``[CLS] prompt [SEP]``."""
        if self._prompt_ids is None:
            tokenizer = self.tokenizer
            words = tokenizer.tokenize(self.prompt)
            tokens = [tokenizer.cls_token, *words, tokenizer.sep_token]
            self._prompt_ids = list(tokenizer.convert_tokens_to_ids(tokens))
        return self._prompt_ids
