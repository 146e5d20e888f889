"""How many layers some weights have, read from their names.

Released checkpoints may have another depth than their YAML says: the MSR-VTT Transformer, for one,
was published with 3 + 3 layers and with 2 + 2.
"""

from collections.abc import Iterable
from typing import Any

from xmodaler.config import CfgNode

__all__ = ["adopt_layers"]

# Class -> start of its layers' names, and the setting of their number (or a list, one entry each).
_LAYERS: dict[str, tuple[tuple[str, str], ...]] = {
    "TransformerEncoder": (("encoder.layers.", "BERT.NUM_HIDDEN_LAYERS"),),
    "GTransformerEncoder": (("encoder.layers.", "BERT.NUM_HIDDEN_LAYERS"),),
    "COSNetEncoder": (
        ("encoder.layers.", "BERT.NUM_HIDDEN_LAYERS"),
        ("encoder.decoder_enc_layers.", "COSNET.NUM_SEMCOMPHDER_LAYERS"),
    ),
    "SingleStreamBertEncoder": (("encoder.layers.", "BERT.NUM_HIDDEN_LAYERS"),),
    "TwoStreamBertEncoder": (
        ("encoder.layers.", "BERT.NUM_HIDDEN_LAYERS"),
        ("encoder.v_layers.", "BERT.V_NUM_HIDDEN_LAYERS"),
    ),
    "TransformerDecoder": (("decoder.g_layers.", "BERT.NUM_GENERATION_LAYERS"),),
    "DecoupleBertDecoder": (
        ("decoder.u_layers.", "BERT.NUM_UNDERSTANDING_LAYERS"),
        ("decoder.g_layers.", "BERT.NUM_GENERATION_LAYERS"),
    ),
    "COSNetDecoder": (("decoder.g_layers.", "BERT.NUM_GENERATION_LAYERS"),),
    "MemoryAugmentedEncoder": (("encoder.layers.", "MESHEDMEORY.ENCODER.NUM_LAYER"),),
    "MeshedDecoder": (("decoder.layers.", "MESHEDMEORY.DECODER.NUM_LAYER"),),
    "LowRankBilinearEncoder": (("encoder.layers.", "BILINEAR.ENCODE.LAYERS"),),
    "XLANDecoder": (("decoder.attention.layers.", "BILINEAR.DECODE.LAYERS"),),
    "TDConvEDEncoder": (("encoder.layers.", "TDCONVED.ENCODER.KERNEL_SIZES"),),
    "TDConvEDDecoder": (("decoder.layers.", "TDCONVED.DECODER.KERNEL_SIZES"),),
}


def adopt_layers(cfg: CfgNode, names: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Set the numbers of layers of a config to those of some weights.

    Args:
        cfg: The config; changed in place.
        names: Names of the weights. A stage none of whose layers is among them keeps its number.

    Returns:
        Key -> (old value, new value) of every setting that changed.
    """
    names = set(names)
    changes: dict[str, tuple[Any, Any]] = {}
    for stage in (cfg.MODEL.ENCODER, cfg.MODEL.DECODER):
        for prefix, setting in _LAYERS.get(stage, ()):
            numbers = {
                name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)
            }
            *sections, leaf = setting.split(".")
            node = cfg.MODEL
            for section in sections:
                node = node[section]
            if not numbers:
                continue
            old, count = node[leaf], len(numbers)
            new = _of_length(old, count) if isinstance(old, list | tuple) else count
            if new != old:
                node[leaf] = new
                changes[f"MODEL.{setting}"] = (old, new)
    return changes


def _of_length(values: Any, count: int) -> Any:
    """A list cut to a length, or continued with its last value."""
    return type(values)([*values, *[values[-1]] * count][:count])
