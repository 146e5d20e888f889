"""What decoders made of causal convolutions share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import kfg

from ..layers.causal_conv import HALF, ShiftedConvLayer
from ..layers.grouping import queries_per_image
from ..layers.masking import as_bool
from ..layers.packing import pack_or_flatten, unpack_or_keep
from ..layers.weight_norm import flat_kernel, linear_layer
from ..stage_keys import ATTENTION_WEIGHTS, CONV_KERNELS, G_PACKING, RETURN_ATTENTION
from .decoder import Decoder


class StepKernels:
    """Weights in the form in which steps multiply by them, made once for all steps of a batch.

    Args:
        word: (D, E), what the word is multiplied with.
        layers: A flat kernel (2D, k * D) per layer.
    """

    def __init__(self, word: Tensor, layers: list[Tensor]) -> None:
        self.word, self.layers = word, layers


class CausalConvDecoder(Decoder):
    """Words through causal convolutions, and attention to the image after some of them.

    ``g = dropout(W_g mean(f))`` over the real features f, ``y_t = dropout(W [x_t; g] + b)``; then
    for each layer ``y = ShiftedConvLayer(y)``, and after layers that attend
    ``y_t = sqrt(1/2) (y_t + att(y_t, f))``.

    All positions are computed at once, or one at a time: a layer then keeps its last k - 1 inputs,
    so that a step costs the same however long the sentence is.

    Args:
        hidden_size: Width D of features and layers.
        token_embed_dim: Width E of the word embedding.
        kernel_sizes: k of each layer.
        conv_dropout: Dropout of g, of y before the layers, and inside the layers.
        use_norm: Whether weights are weight-normed.
    """

    folds_queries = True
    accepts_packing = True
    row_keys = (kfg.HISTORY_STATES,)

    def __init__(
        self,
        *,
        hidden_size: int,
        token_embed_dim: int,
        kernel_sizes: Sequence[int],
        conv_dropout: float,
        use_norm: bool,
    ) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = hidden_size, len(kernel_sizes)
        self.token_embed_dim = token_embed_dim
        self.gv_feat_embed = linear_layer(hidden_size, hidden_size, use_norm)
        self.wt_gv_embed = linear_layer(token_embed_dim + hidden_size, hidden_size, use_norm)
        self.layers = nn.ModuleList(
            ShiftedConvLayer(
                hidden_size, hidden_size, size, dropout=conv_dropout, use_norm=use_norm
            )
            for size in kernel_sizes
        )
        self.dropout = nn.Dropout(conv_dropout)

    @abstractmethod
    def memories(self, feats: Tensor, mask: Tensor) -> list[Any]:
        """What each layer's attention needs of the image, None for layers that do not attend.

        Args:
            feats: (B, N, D), zero where masked.
            mask: (B, N) additive.

        Returns:
            One tree of tensors (B, ...) or None per layer.
        """

    @abstractmethod
    def attend(
        self, layer: int, query: Tensor, memory: Any, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What queries (B * Q, D) see of the images: (B * Q, D), and the weights (B * Q, N)."""

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, what is the same for all words of an image, and empty histories."""
        feats, visible = batched_inputs[kfg.ATT_FEATS], as_bool(batched_inputs[kfg.ATT_MASKS])
        feats = feats.masked_fill(~visible.unsqueeze(-1), 0.0)
        mean = feats.sum(dim=1) / visible.sum(dim=1, keepdim=True).clamp(min=1)
        g = self.dropout(self.gv_feat_embed(mean))
        of_image = self.wt_gv_embed.weight[:, self.token_embed_dim :]
        mask = batched_inputs[kfg.EXT_ATT_MASKS].flatten(1)
        return {
            kfg.P_ATT_FEATS: {
                "image": F.linear(g, of_image, self.wt_gv_embed.bias),
                "memories": self.memories(feats, mask),
            },
            kfg.HISTORY_STATES: [layer.no_past(feats) for layer in self.layers],
        }

    def prepare_steps(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """The kernels for the steps of a batch, a :class:`StepKernels`."""
        layers = [flat_kernel(layer.conv) for layer in self.layers]
        return {CONV_KERNELS: StepKernels(self._word_weight(), layers)}

    def _word_weight(self) -> Tensor:
        return self.wt_gv_embed.weight[:, : self.token_embed_dim]

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """All positions, or the one at TIME_STEP while decoding.

        G_TOKEN_EMBED is (R, T, E), or (count, E) with a text packing, or (R, E) while decoding;
        G_HIDDEN_STATES holds one such tensor of width D.
        """
        if kfg.TIME_STEP in batched_inputs:
            return self._step(batched_inputs)
        packing = batched_inputs.get(G_PACKING)
        words = unpack_or_keep(batched_inputs[kfg.G_TOKEN_EMBED], packing)
        prepared = batched_inputs[kfg.P_ATT_FEATS]
        y = self._inputs(words, prepared["image"], self._word_weight())
        for number, layer in enumerate(self.layers):
            y, _ = self._look(number, layer(y), prepared["memories"][number], False)
        return {kfg.G_HIDDEN_STATES: [pack_or_flatten(y, packing)]}

    def _step(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        prepared, past = batched_inputs[kfg.P_ATT_FEATS], batched_inputs[kfg.HISTORY_STATES]
        kernels = batched_inputs.get(CONV_KERNELS)
        if kernels is None:
            kernels = self.prepare_steps(batched_inputs)[CONV_KERNELS]
        need_weights = bool(batched_inputs.get(RETURN_ATTENTION, False))
        y = self._inputs(batched_inputs[kfg.G_TOKEN_EMBED], prepared["image"], kernels.word)
        history, weights = [], None
        for number, layer in enumerate(self.layers):
            y, inputs = layer.step(y, past[number], kernels.layers[number])
            y, weights = self._look(number, y, prepared["memories"][number], need_weights)
            history.append(inputs)
        produced: dict[str, Any] = {kfg.G_HIDDEN_STATES: [y], kfg.HISTORY_STATES: history}
        if need_weights and weights is not None:
            produced[ATTENTION_WEIGHTS] = weights
        return produced

    def _inputs(self, words: Tensor, image: Tensor, weight: Tensor) -> Tensor:
        """Words (R, ..., E) and images (B, D) -> y before the layers, (R, ..., D)."""
        images = image.shape[0]
        queries_per_image(words.shape[0], images)
        y = F.linear(words, weight)
        flat = y.reshape(images, -1, y.shape[-1]) + image.unsqueeze(1)
        return self.dropout(flat.view_as(y))

    def _look(
        self, layer: int, y: Tensor, memory: Any, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of y (R, ..., D) added to it; y itself where the layer does not attend."""
        if memory is None:
            return y, None
        context, weights = self.attend(layer, y.reshape(-1, y.shape[-1]), memory, need_weights)
        return (y + context.view_as(y)) * HALF, weights
