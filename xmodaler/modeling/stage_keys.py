"""Keys that stages pass to each other inside a model, beside the public ones of ``kfg``."""

ATT_PACKING = "_ATT_PACKING"
"""A Packing of the visual positions, or absent when all are computed."""

G_PACKING = "_G_PACKING"
"""A Packing of the text positions, or absent when all are computed."""

DECODER_CACHE = "_DECODER_CACHE"
"""Keys and values of the words generated so far, one store per image."""

GATE_INPUTS = "_GATE_INPUTS"
"""What the image contributes to the gates of a recurrent decoder at every step, (B, 4H)."""

ATTENTION_WEIGHTS = "_ATTENTION_WEIGHTS"
"""(R, N): attention of the latest word to the regions, when RETURN_ATTENTION asks for it."""

RETURN_ATTENTION = "RETURN_ATTENTION"
"""Batch key: true when decoding has to return attention maps."""
