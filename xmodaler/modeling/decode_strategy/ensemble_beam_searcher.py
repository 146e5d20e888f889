"""Beam search with several models at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xmodaler.modeling.decode_strategy.beam_searcher import BeamSearcher
from xmodaler.modeling.decode_strategy.build import DECODE_STRATEGY_REGISTRY
from xmodaler.modeling.decode_strategy.decode_strategy import State, StepModel, log_softmax
from xmodaler.utils.errors import UserError


class ModelAverage:
    """Several models as one: p(w) = sum_m a_m p_m(w), with weights a_m that sum to 1.

    Args:
        models: Models of one vocabulary, each with ``start`` and ``step``.
        weights: Weight of each model, divided by their sum here; None weighs them alike.
    """

    def __init__(self, models: Sequence[StepModel], weights: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(models) if weights is None else [float(w) for w in weights]
        if not models or len(weights) != len(models):
            raise UserError(
                f"An ensemble of {len(models)} models has {len(weights)} MODEL.MODEL_WEIGHTS; "
                "give one weight for each model."
            )
        total = sum(weights)
        if min(weights) < 0 or total <= 0:
            raise UserError(
                f"MODEL.MODEL_WEIGHTS is {weights}; weights must be 0 or more and not all 0."
            )
        self.models = models
        self.weights = [weight / total for weight in weights]

    def start(self, batch: dict[str, Any]) -> State:
        """Start every model; the state holds theirs side by side."""
        return _side_by_side([model.start(batch) for model in self.models])

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Log of the averaged distribution, (R, V), in place of logits."""
        mixture: Tensor | None = None
        states = []
        parts = zip(
            self.models, self.weights, state["memory"], state["rows"], state["extras"], strict=True
        )
        for model, weight, memory, rows, extras in parts:
            member = {**extras, "memory": memory, "rows": rows, "time": state["time"]}
            logits, member = model.step(tokens, member)
            states.append(member)
            weighted = log_softmax(logits).exp() * weight
            if mixture is not None and weighted.shape != mixture.shape:
                raise UserError(
                    f"The models of an ensemble have {mixture.size(1)} and {weighted.size(1)} "
                    "words (MODEL.VOCAB_SIZE); they must share one vocabulary."
                )
            mixture = weighted if mixture is None else mixture + weighted
        return torch.log(mixture), _side_by_side(states)


def _side_by_side(states: list[State]) -> State:
    shared = ("memory", "rows", "time")
    return {
        "memory": [state["memory"] for state in states],
        "rows": [state["rows"] for state in states],
        "time": states[0]["time"],
        "outputs": states[0].get("outputs", {}),
        "extras": [{k: v for k, v in state.items() if k not in shared} for state in states],
    }


@DECODE_STRATEGY_REGISTRY.register()
class EnsembleBeamSearcher(BeamSearcher):
    """Beam search over the average of several models' word distributions."""

    def forward(
        self,
        batched_inputs: dict[str, Any],
        output_sents: bool,
        model: StepModel | Sequence[StepModel],
        weights: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Search with one model or several.

        Args:
            batched_inputs: The batch; it is not changed.
            output_sents: Whether to add the sentences as text under ``OUTPUT``.
            model: A model, or several to be averaged.
            weights: Weight of each of several models; None weighs them alike.

        Returns:
            As :meth:`BeamSearcher.forward`.
        """
        if not hasattr(model, "start"):
            model = ModelAverage(model, weights)
        return super().forward(batched_inputs, output_sents, model)
