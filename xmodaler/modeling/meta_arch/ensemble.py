"""Several captioners that decode together."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode
from xmodaler.modeling.decode_strategy import (
    ModelAverage,
    build_beam_searcher,
    build_greedy_decoder,
)
from xmodaler.modeling.decode_strategy.decode_strategy import State


class Ensemble(nn.Module):
    """Captioners of one vocabulary whose word distributions are averaged while decoding.

    It is used like one model of which only decoding is asked: ``start``, ``step``,
    ``preprocess_batch`` and a call with ``use_beam_search`` True or False.

    Args:
        models: The members.
        cfg: A config; ``MODEL.MODEL_WEIGHTS`` gives the weight of each member, divided by their
            sum here, and ``DECODE_STRATEGY`` how to search.
    """

    def __init__(self, models: Sequence[nn.Module], cfg: CfgNode) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.greedy_decoder = build_greedy_decoder(cfg)
        self.beam_searcher = build_beam_searcher(cfg)
        self.weights = list(cfg.MODEL.MODEL_WEIGHTS)
        # A plain object: checks the weights now, and adds no second path to the parameters.
        self._average = ModelAverage(list(self.models), self.weights)

    @property
    def visual_embed(self) -> nn.Module:
        """The visual embedding of the first member, which tells what all of them read."""
        return self.models[0].visual_embed

    def preprocess_batch(self, batched_inputs: Any) -> dict[str, Any]:
        """Collate and move a batch as the first member does."""
        return self.models[0].preprocess_batch(batched_inputs)

    def start(self, batch: dict[str, Any]) -> State:
        """Encode the images with every member."""
        return self._average.start(batch)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Log of the members' averaged next-word distribution, (R, V)."""
        return self._average.step(tokens, state)

    def forward(
        self,
        batched_inputs: dict[str, Any],
        use_beam_search: bool | None = True,
        output_sents: bool = False,
    ) -> dict[str, Any]:
        """Decode a batch, by beam search unless ``use_beam_search`` is false or one beam is set.

        Returns:
            The batch with ``G_SENTS_IDS``, ``G_LOGP`` and, if asked for, ``OUTPUT``.
        """
        batch = self.preprocess_batch(batched_inputs)
        searching = use_beam_search is not False and self.beam_searcher.beam_size > 1
        strategy = self.beam_searcher if searching else self.greedy_decoder
        return strategy(batch, output_sents, self)
