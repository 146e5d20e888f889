"""Stacks of BERT blocks whose sizes are given, for models with several towers."""

from dataclasses import dataclass, replace

from torch import nn

from .bert import (
    BertAttention,
    BertCrossAttention,
    BertGenerationLayer,
    BertIntermediate,
    BertLayer,
    BertOutput,
    BertSelfAttention,
    BertSelfOutput,
    BertXAttention,
)


@dataclass(frozen=True)
class BertSizes:
    """What the blocks of a tower have in common.

    Attributes:
        width: D.
        heads: Attention heads.
        inner_width: Width of the feed-forward block.
        activation: Of the feed-forward block.
        dropout: On what blocks add to the residual.
        attention_dropout: On attention weights.
        norm_eps: Epsilon of the norms: 1e-12 for BERT, 1e-5 for RoBERTa.
    """

    width: int
    heads: int
    inner_width: int
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_eps: float = 1e-12


def encoder_stack(sizes: BertSizes, number: int, drop_path: float = 0.0) -> nn.ModuleList:
    """Layers of self-attention and feed-forward.

    Args:
        sizes: Of all layers.
        number: How many.
        drop_path: Rate of stochastic depth in the last layer; it rises from 0 in the first, and
            takes the place of dropout on the residual branches.
    """
    return nn.ModuleList(
        BertLayer(
            bert_attention=_self_attention(layer, rate),
            bert_intermediate=_intermediate(layer),
            bert_output=_output(layer, rate),
        )
        for layer, rate in _with_rates(sizes, number, drop_path)
    )


def fusion_stack(
    sizes: BertSizes, number: int, memory_width: int, drop_path: float = 0.0
) -> nn.ModuleList:
    """Layers of self-attention, attention to a memory, and feed-forward.

    Args:
        sizes: Of all layers.
        number: How many.
        memory_width: Width of what keys and values are made of.
        drop_path: As for :func:`encoder_stack`.
    """
    return nn.ModuleList(
        BertGenerationLayer(
            bert_attention=_self_attention(layer, rate),
            bert_cross_attention=BertCrossAttention(
                bert_cross_attention=BertXAttention(
                    **_attention(layer), key_value_size=memory_width
                ),
                bert_self_output=_self_output(layer, rate),
            ),
            bert_intermediate=_intermediate(layer),
            bert_output=_output(layer, rate),
        )
        for layer, rate in _with_rates(sizes, number, drop_path)
    )


def _with_rates(sizes: BertSizes, number: int, drop_path: float) -> list[tuple[BertSizes, float]]:
    if drop_path > 0:
        sizes = replace(sizes, dropout=0.0)
    last = max(number - 1, 1)
    return [(sizes, drop_path * layer / last) for layer in range(number)]


def _attention(sizes: BertSizes) -> dict[str, float]:
    return {
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.heads,
        "attention_probs_dropout_prob": sizes.attention_dropout,
    }


def _self_attention(sizes: BertSizes, drop_path: float) -> BertAttention:
    return BertAttention(
        bert_self_attention=BertSelfAttention(**_attention(sizes)),
        bert_self_output=_self_output(sizes, drop_path),
    )


def _self_output(sizes: BertSizes, drop_path: float) -> BertSelfOutput:
    return BertSelfOutput(
        hidden_size=sizes.width,
        layer_norm_eps=sizes.norm_eps,
        hidden_dropout_prob=sizes.dropout,
        drop_path_prob=drop_path,
    )


def _intermediate(sizes: BertSizes) -> BertIntermediate:
    return BertIntermediate(
        hidden_size=sizes.width,
        hidden_act=sizes.activation,
        intermediate_size=sizes.inner_width,
        intermediate_drop=0.0,
    )


def _output(sizes: BertSizes, drop_path: float) -> BertOutput:
    return BertOutput(
        hidden_size=sizes.width,
        intermediate_size=sizes.inner_width,
        layer_norm_eps=sizes.norm_eps,
        ffn_dropout_prob=sizes.dropout,
        drop_path_prob=drop_path,
    )
