"""Questions about pictures, answered by generation."""

from typing import Any

import torch
from torch import Tensor

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.losses.scored_rows import G_SELECTED, SelectedRows
from xmodaler.utils.errors import UserError

from ...decoder.answer_decoder import AnswerDecoder, AnswerTree
from ...embedding import build_token_embed
from ...encoder.text_fusion_encoder import FusionMemory, sizes_of
from ...predictor import BertPredictionHead
from ..batches import Batch, without_internal
from ..build import META_ARCH_REGISTRY
from .core import X2VLMModel


@META_ARCH_REGISTRY.register()
class X2VLMVQA(X2VLMModel):
    """A decoder generates the answer from the fused states of question and picture (section 4.2).

    Args:
        text_decoder: The decoder; its head comes to share the matrix of its embedding.
        top_k: Candidates that are scored in full; 0 for all.
        first_twice: Count the first word of a candidate twice, as the released model does.
        **parts: As for :class:`X2VLMModel`.
    """

    @configurable
    def __init__(
        self,
        *,
        text_decoder: AnswerDecoder,
        top_k: int = 128,
        first_twice: bool = False,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.text_decoder = text_decoder
        self.top_k = top_k
        self.first_twice = first_twice
        self._tree: AnswerTree | None = None
        self._labels: Tensor | None = None
        self._begin = 0
        text_decoder.head.decoder.weight = text_decoder.embed.embeddings.weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts, node, width = super().from_config(cfg), cfg.MODEL.X2VLM, cfg.MODEL.BERT.HIDDEN_SIZE
        parts["text_decoder"] = AnswerDecoder(
            embed=build_token_embed(_of_decoder(cfg)),
            head=BertPredictionHead(cfg),
            sizes=sizes_of(cfg, cfg.MODEL.FUSION.NORM_EPS),
            number=node.DECODER_LAYERS,
            memory_width=width,
        )
        return {
            **parts,
            "top_k": node.TOP_K,
            "first_twice": node.FIRST_WORD_TWICE,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode, tmp_cfg: CfgNode) -> None:
        """Adds what the decoder needs to MODEL.X2VLM."""
        super().add_config(cfg, tmp_cfg)
        node = cfg.MODEL.X2VLM
        node.DECODER_LAYERS = 6
        node.DECODER_POSITIONS = 512
        node.DECODER_TYPES = 2
        node.TOP_K = 128  # candidates that are scored in full; 0 for all
        # Rank as the released model does, which counts the first word of an answer twice.
        node.FIRST_WORD_TWICE = False

    def _forward(self, batched_inputs: Batch) -> Batch:
        """Score given answers, or rank the candidates of :meth:`set_answers`.

        Args:
            batched_inputs: IMAGES (B, 3, H, W), questions U_TOKENS_IDS (B, T) and TOKENS_MASKS;
                in training answers G_TOKENS_IDS (A, L), begin of sentence first, G_TARGET_IDS
                (A, L), end of sentence last, and ANSWER_COUNTS (B,), how many belong to each
                question.

        Returns:
            In training the logits of the words of the answers (G_SELECTED); otherwise OUTPUT (B,)
            int64, the best candidate.
        """
        memory = self.question_memory(batched_inputs)
        produced: Batch = {}
        if kfg.G_TARGET_IDS in batched_inputs:
            produced = self._given_answers(batched_inputs, memory)
        if not self.training and self._tree is not None:
            produced[kfg.OUTPUT] = self.rank(batched_inputs, memory)[0][:, 0]
        return without_internal({**batched_inputs, **produced})

    def question_memory(self, batch: Batch) -> FusionMemory:
        """Keys and values of the fused questions for the decoder."""
        questions = self.fused_pair(batch)
        return self.text_decoder.memory(questions.padded(), questions.mask())

    def set_answers(self, answers: list[list[int]], begin: int, end: int) -> None:
        """Set the candidates.

        Args:
            answers: The words of each, without begin and end of sentence; one without words is
                never chosen.
            begin: The word that every answer begins after.
            end: The word that every answer ends with.
        """
        labels = [label for label, answer in enumerate(answers) if answer]
        self._tree, self._begin = AnswerTree.of([answers[label] for label in labels], end), begin
        self._labels = None if len(labels) == len(answers) else torch.tensor(labels)

    @property
    def has_answers(self) -> bool:
        """Whether there are candidates to rank."""
        return self._tree is not None

    def rank(self, batch: Batch, memory: FusionMemory | None = None) -> tuple[Tensor, Tensor]:
        """Candidates (B, k), the best first, and their log-likelihoods (B, k).

        Raises:
            UserError: No candidates were set.
        """
        if self._tree is None:
            raise UserError("X2VLMVQA ranks candidate answers; call set_answers first")
        memory = self.question_memory(batch) if memory is None else memory
        self._tree = self._tree.to(self.device)
        best, scores = self.text_decoder.rank(
            self._tree, memory, self._begin, self.top_k, self.first_twice
        )
        return best if self._labels is None else self._labels.to(best.device)[best], scores

    def _given_answers(self, batch: Batch, memory: FusionMemory) -> Batch:
        tokens, targets = batch[kfg.G_TOKENS_IDS], batch[kfg.G_TARGET_IDS]
        counts = batch[kfg.ANSWER_COUNTS]
        questions = torch.arange(len(counts), device=counts.device)
        if int(counts.sum()) != len(tokens):
            raise UserError(
                f"{kfg.ANSWER_COUNTS} sum to {int(counts.sum())}, but there are {len(tokens)} "
                "answers"
            )
        owner = questions.repeat_interleave(counts)
        states = self.text_decoder(tokens, targets >= 0, memory.rows(owner))
        index = (targets.flatten() >= 0).nonzero().squeeze(1)
        logits = self.text_decoder.logits(states.flatten(0, 1).index_select(0, index))
        return {G_SELECTED: SelectedRows.of(logits, targets, index)}


def _of_decoder(cfg: CfgNode) -> CfgNode:
    """The config of the embedding of answers, which is BERT's whatever the questions have."""
    cfg = cfg.clone()
    cfg.defrost()
    node = cfg.MODEL.TOKEN_EMBED
    node.POSITION = "NNEmbeddingEncoding"
    node.POSITION_MAX_LEN = cfg.MODEL.X2VLM.DECODER_POSITIONS
    node.TYPE_VOCAB_SIZE = cfg.MODEL.X2VLM.DECODER_TYPES
    node.NORM_EPS = cfg.MODEL.FUSION.NORM_EPS
    return cfg
