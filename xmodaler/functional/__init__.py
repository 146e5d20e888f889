"""Small pure functions on features, texts, files and trees of tensors."""

from .func_caption import (
    caption_to_mask_tokens,
    decode_sequence,
    decode_sequence_bert,
    random_word,
)
from .func_feats import (
    boxes_to_locfeats,
    clip_t_inputs,
    clip_v_inputs,
    dict_as_tensor,
    dict_to_cuda,
    dict_to_device,
    expand_tensor,
    flat_list_of_lists,
    iou,
    pad_tensor,
    random_region,
)
from .func_graph import SPATIAL_RELATIONS, spatial_relations
from .func_io import load_vocab, read_lines, read_lines_set, read_np, read_np_bbox
from .trees import map_tensors, reorder, to_device

__all__ = [
    "SPATIAL_RELATIONS",
    "boxes_to_locfeats",
    "caption_to_mask_tokens",
    "clip_t_inputs",
    "clip_v_inputs",
    "decode_sequence",
    "decode_sequence_bert",
    "dict_as_tensor",
    "dict_to_cuda",
    "dict_to_device",
    "expand_tensor",
    "flat_list_of_lists",
    "iou",
    "load_vocab",
    "map_tensors",
    "pad_tensor",
    "random_region",
    "random_word",
    "read_lines",
    "read_lines_set",
    "read_np",
    "read_np_bbox",
    "reorder",
    "spatial_relations",
    "to_device",
]
