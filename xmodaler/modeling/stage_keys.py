"""Keys that stages pass to each other inside a model, beside the public ones of ``kfg``."""

ATT_PACKING = "_ATT_PACKING"
"""A Packing of the visual positions, or absent when all are computed."""

G_PACKING = "_G_PACKING"
"""A Packing of the text positions, or absent when all are computed."""

HEAD_POSITIONS = "_HEAD_POSITIONS"
"""The HeadPositions of a batch, or absent when all states of the encoder are wanted."""

SKIP_PADDING = "_SKIP_PADDING"
"""True when nobody reads the states of hidden positions."""

U_PACKING = "_U_PACKING"
"""As G_PACKING, for the text to be understood."""

DECODER_CACHE = "_DECODER_CACHE"
"""Keys and values of the words generated so far, one store per image."""

ENCODER_CACHE = "_ENCODER_CACHE"
"""The same in an encoder that words pass through."""

CAPTION_PLAN = "_CAPTION_PLAN"
"""The CaptionPlan of the batch, made while the words were still on the host."""

ATTENTION_WEIGHTS = "_ATTENTION_WEIGHTS"
"""(R, N): attention of the latest word to the regions, when RETURN_ATTENTION asks for it."""

IMAGE_GATES = "_IMAGE_GATES"
"""What the global feature adds to the gates of a recurrent decoder at every step, (B, 4H)."""

CONV_KERNELS = "_CONV_KERNELS"
"""Kernels of a convolutional decoder in the form that its steps use, a StepKernels."""

WORD_PRODUCTS = "_WORD_PRODUCTS"
"""What words add to the gates of a recurrent decoder, a WordProducts."""

STEP_WEIGHTS = "_STEP_WEIGHTS"
"""Copies of weights for the steps of one decoded batch, a StepWeights."""

SPARSE_GRADIENT = "_SPARSE_GRADIENT"
"""Asks a word embedding for a sparse gradient, to be added to a dense one of the same batch."""

RETURN_ATTENTION = "RETURN_ATTENTION"
"""Batch key: true when decoding has to return attention maps."""

SCORES_ONLY = "SCORES_ONLY"
"""Batch key: true when only what heads make of the states is wanted, not the states."""

SKIP_MATCHING = "SKIP_MATCHING"
"""Batch key: true when a batch of pre-training does not teach which texts belong to pictures."""

BOXES_ONLY = "BOXES_ONLY"
"""Batch key: true when a batch of regions teaches nothing but where they are."""

INTERNAL = (
    ATT_PACKING,
    G_PACKING,
    HEAD_POSITIONS,
    SKIP_PADDING,
    U_PACKING,
    DECODER_CACHE,
    ENCODER_CACHE,
    CAPTION_PLAN,
    ATTENTION_WEIGHTS,
)
"""Keys that do not leave the model."""
