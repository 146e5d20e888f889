"""``kfg``: the keys of the batch dictionary that datasets, models, losses and scorers share.

Shapes: ``B`` images (or videos), ``S`` captions per image, ``G`` queries per image, ``R = B*G``
rows, ``N`` regions or frames, ``D`` input width, ``H`` hidden width, ``T`` tokens, ``V`` words,
``L`` the greatest sentence length. One image serves many queries: visual keys have ``B`` rows,
text keys ``R`` rows, and ``G = R // B`` is inferred where they meet.

``kfg.X == "X"`` for every key but ``COCO_PATH`` and ``TEMP_DIR``. ``kfg`` is not frozen: a
project adds a key of its own with ``kfg.MY_KEY = "MY_KEY"``.
"""

from .config import CfgNode

KEYS = (
    # Identity of the records.
    "IDS",  # list[str], B: image, question or annotation ids
    "SPLITS",  # list[str], B: the part of the data that a record belongs to
    "STATEMENT_IDS",  # list[str], B: records of one statement about different pictures agree
    "SEQ_PER_SAMPLE",  # int S
    "SAMPLE_PER_SAMPLE",  # int P: image-text pairs per record in single-stream retrieval
    # Pixels and visual features.
    "IMAGES",  # (B, 3, height, width) uint8
    "ATT_FEATS",  # (B, N, D) float; (B, N, H) after the visual embedding
    "ATT_FEATS_WO_MASK",  # (B, N, D) float: the regions before masking
    "ATT_FEATS_LOC",  # (B, N, 5) float: x1/w, y1/h, x2/w, y2/h, area fraction
    "ATT_MASKS",  # (B, N) bool: True = real region
    "EXT_ATT_MASKS",  # additive twin of ATT_MASKS: 0 or the most negative usable value
    "P_ATT_FEATS",  # (B, N, attention width) float: regions projected once per image
    "GLOBAL_FEATS",  # (B, D) float: one vector per image
    "RELATION",  # (B, N, N) int64: relation ids, 0 = none
    "ATTRIBUTE",  # (B, A) float: attribute probabilities
    "V_TARGET",  # (B, N, C) float: class probabilities, or features to regress
    # Regions of pictures (R regions of B pictures of P patches).
    "REGION_INDEX",  # (R,) int64: the picture of each region
    "REGION_MASKS",  # (R, 1 + P) bool: patches of the region; column 0 is the region's own token
    "REGION_FEATS",  # RegionTokens: what a vision tower makes of regions
    "TARGET_BBOX",  # (R, 4) float: cx, cy, w, h of the box that a text describes, of the picture
    "IS_IMAGE",  # (R,) int64: 1 = the text describes the whole picture and no box
    "OUTPUT_BBOX",  # (R, 4) float: as TARGET_BBOX, predicted
    "TRUE_BOXES",  # B arrays (K, 4) float: x, y, w, h in pixels of all boxes that are right
    "PICTURE_SIZES",  # (B, 2) int64: width and height of the picture in pixels, before resizing
    "SECOND_IMAGES",  # as IMAGES: the other picture of a statement about two
    # Answers to questions (A answers of B questions).
    "ANSWER_COUNTS",  # (B,) int64: answers of each question; those of one question are adjacent
    "ANSWER_WEIGHTS",  # (A,) float: the share of people who gave an answer
    # Pairs in one space (E dimensions), and negatives from the same batch.
    "IMAGE_VECTORS",  # (R, E) float of length 1: pictures, or regions
    "TEXT_VECTORS",  # (R, E) float of length 1
    "TEMPERATURE",  # () float: what products of these vectors are divided by
    "PAIR_IDS",  # (R,) int64: pairs of equal ids are no negatives of each other
    "IMAGE_NEGATIVES",  # (R,) int64: rows of pictures that do not belong to the texts
    "TEXT_NEGATIVES",  # (R,) int64: rows of texts that do not belong to the pictures
    "ITM_LABELS",  # (K,) int64: 1 = the pair belongs together
    # A second text: the same words in another language.
    "P_TOKENS_IDS",  # (R, T) int64
    "P_TOKENS_MASKS",  # (R, T) bool
    # A mixed batch.
    "GROUPS",  # dict[str, dict]: batches of several kinds by name: images, regions, videos, ...
    "V_TARGET_LABELS",  # (B, N) int64: 1 = masked region, -1 = not
    # Text for understanding (U) and for generation (G).
    "U_TOKENS_IDS",  # (R, T) int64
    "U_TOKENS_IDS_WO_MASK",  # (R, T) int64: the tokens before masking
    "G_TOKENS_IDS",  # (R, T) int64 decoder input that begins with BOS; (R,) in a decoding step
    "U_TOKENS_TYPE",  # (R, T) int64
    "U_POSITIONS",  # (R, T) int64: places of the tokens; a mask shares that of the word behind it
    "G_TOKENS_TYPE",  # (R, T) int64
    "TOKENS_MASKS",  # (R, T) bool: True = real token
    "EXT_U_TOKENS_MASKS",  # (R, 1, 1, T) additive
    "EXT_G_TOKENS_MASKS",  # (R, 1, T, T) additive, causal and padding
    "U_TOKEN_EMBED",  # (R, T, H) float
    "G_TOKEN_EMBED",  # (R, T, H) float; (R, H) in a decoding step
    # Targets.
    "U_TARGET_IDS",  # (R, T) int64, -1 ignored; or (B, answers) float soft scores
    "G_TARGET_IDS",  # (R, T) int64, EOS-terminated, -1 ignored
    "ITM_NEG_LABEL",  # (B,) int64: 1 = the caption does not belong to the image
    # States and outputs of the network.
    "U_HIDDEN_STATES",  # (R, T, H) float, or a list of one per layer
    "G_HIDDEN_STATES",  # list of (R, H) or (R, T, H) float, one per layer
    "U_CELL_STATES",  # list of (R, H) float
    "G_CELL_STATES",  # list of (R, H) float
    "HISTORY_STATES",  # cached states of a decoder, one entry per layer
    "ENC_HISTORY_STATES",  # cached states of a text encoder, one entry per layer
    "U_LOGITS",  # (R, T, V) or (B, labels) float
    "G_LOGITS",  # (R, T, V) float
    "V_LOGITS",  # (B, N, C) float
    "V_REGRESS",  # (B, N, D) float
    "ITM_LOGITS",  # (B, 2) float
    "OUTPUT",  # list[str] captions, or labels, or similarities, as the task defines
    # Decoding and rewards.
    "G_SENTS_IDS",  # (B, L) int64, or (B, out, L)
    "G_LOGP",  # shape of G_SENTS_IDS, float: log-probability of each word
    "DECODE_BY_SAMPLE",  # bool: draw words instead of taking the best
    "TIME_STEP",  # int: position of a decoding step
    "SS_PROB",  # float: probability of feeding the model its own word in training
    "REWARDS",  # (R,) float
    # Semantic words of COS-Net (K words, C classes, M slots).
    "SEMANTICS_IDS",  # (B, K) int64
    "SEMANTICS_MASK",  # (B, K) bool
    "SEMANTICS_LABELS",  # (B, K) int64, -1 ignored
    "SEMANTICS_MISS_LABELS",  # (B, C + 1) int64, 1 = ground-truth class that was not predicted
    "SEMANTICS_PRED",  # (B, M + K, C + 1) float
    "SEMANTICS_FEATS",  # (B, M + K, H) float
    "SEMANTICS_POS_PRED",  # (B, M + K, positions) float
    "EXT_SEMANTICS_MASKS",  # (B, 1, 1, M + K) additive
)

kfg = CfgNode({key: key for key in KEYS})
# Kept for code that reads them; nothing in this package depends on either folder.
kfg.COCO_PATH = "../coco_caption"
kfg.TEMP_DIR = "./data/temp"
