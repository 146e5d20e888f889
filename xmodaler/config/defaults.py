"""The default configuration: every key a config file may set without naming a class of its own.

Periods and warm-ups count epochs unless a comment says otherwise. A value's type is the type a
config must give (an int may stand for a float). Classes add further nodes under MODEL through
their ``add_config``.
"""

from .config import CfgNode as CN

_C = CN()
_C.VERSION = 1
_C.OUTPUT_DIR = "./output"
_C.SEED = -1  # < 0: random; otherwise rank r is seeded with SEED + r
_C.CUDNN_BENCHMARK = True
_C.DETERMINISTIC = False

_C.DATASETS = CN()  # names in DATASETS_REGISTRY, '' = none
_C.DATASETS.TRAIN = ""
_C.DATASETS.VAL = ""
_C.DATASETS.TEST = ""

_C.DATALOADER = CN()
_C.DATALOADER.TRAIN_BATCH_SIZE = 64  # images (not captions) per process
_C.DATALOADER.TEST_BATCH_SIZE = 64
_C.DATALOADER.NUM_WORKERS = 4
_C.DATALOADER.FEATS_FOLDER = ""
_C.DATALOADER.ANNO_FOLDER = ""
_C.DATALOADER.RELATION_FILE = ""
_C.DATALOADER.GV_FEAT_FILE = ""
_C.DATALOADER.ATTRIBUTE_FILE = ""
_C.DATALOADER.SEQ_PER_SAMPLE = 5
_C.DATALOADER.MAX_FEAT_NUM = -1
_C.DATALOADER.NEGATIVE_SIZE = -1
_C.DATALOADER.NEGATIVES_OF_OTHER_IMAGES = False  # mined captions never describe the picture itself
_C.DATALOADER.INF_BATCH_SIZE = 200
_C.DATALOADER.USE_GLOBAL_V = True
# VQA and VCR: probability of a mirrored picture in training, where there are any; MIRROR_TEXT lets
# "left" and "right" change places in the texts of VCR too (VQA always does).
_C.DATALOADER.MIRROR_PROB = 0.5
_C.DATALOADER.MIRROR_TEXT = False
_C.DATALOADER.VCR_MAX_SEQ_LEN = 0  # 0: 38 (Q-A) and 66 (QA-R)
# VCR: begin the turn of persons' names anew for every record, so that it depends on no other.
_C.DATALOADER.VCR_NAMES_PER_RECORD = False
_C.DATALOADER.MUST_MASK_REGION = False  # pre-training: hide a region if chance hides none
_C.DATALOADER.SAMPLE_PROB = 0.2
_C.DATALOADER.SAMPLE_IDS = []
_C.DATALOADER.FILE_PATHS = []
# COCO-captions JSON or JSON lines, per stage; *_SPLIT keeps the images whose `split` equals it.
_C.DATALOADER.TRAIN_ANNFILE = ""
_C.DATALOADER.VAL_ANNFILE = ""
_C.DATALOADER.TEST_ANNFILE = ""
_C.DATALOADER.TRAIN_SPLIT = ""
_C.DATALOADER.VAL_SPLIT = ""
_C.DATALOADER.TEST_SPLIT = ""
_C.DATALOADER.IMAGE_FOLDER = ""
_C.DATALOADER.IMAGE_SIZE = 224
_C.DATALOADER.IMAGE_AUGMENT = False

# Lines of JSON for pre-training (ImageTextLines, RegionLines, VideoLines, TextLines, ...).
_C.DATALOADER.LINES = CN()
_C.DATALOADER.LINES.IMAGE_KEY = "image"
_C.DATALOADER.LINES.IMAGE_IN_LINE = False  # True: base64 of the file; False: a path
_C.DATALOADER.LINES.CAPTION_KEY = "caption"
_C.DATALOADER.LINES.LANGUAGE = ""  # of texts by language; '' draws one
_C.DATALOADER.LINES.TEXT_KEY = "text"  # of texts alone
_C.DATALOADER.LINES.SOURCE_KEY = "source_text"  # of texts in two languages
_C.DATALOADER.LINES.TARGET_KEY = "target_text"
_C.DATALOADER.LINES.LEAST_FRAMES = 0  # gathered from neighbouring clips of a video
_C.DATALOADER.LINES.SMALLEST_CROP = 0.2  # of the area
_C.DATALOADER.LINES.CHANGES = 2  # changes by RandAugment of every picture

_C.DATALOADER.WORD_MASKING = CN()
_C.DATALOADER.WORD_MASKING.PROBABILITY = 0.5
_C.DATALOADER.WORD_MASKING.MOST = 12
_C.DATALOADER.WORD_MASKING.SPAN_PROBABILITY = 0.2
_C.DATALOADER.WORD_MASKING.LONGEST_SPAN = 3
_C.DATALOADER.WORD_MASKING.WHOLE_WORDS = True
# Captions: masks are put in front of the words to tell and not in their place.
_C.DATALOADER.WORD_MASKING.INSERT = False

_C.DATALOADER.REGIONS = CN()
_C.DATALOADER.REGIONS.MOST = 5  # rows of a picture
_C.DATALOADER.REGIONS.LEAST_SEEN = 0.5  # of the area of a box
_C.DATALOADER.REGIONS.CAREFUL_MIRROR = True  # no mirror where a text says left or right

# Records of JSON of the tasks of X²-VLM (JsonRetrievalDataset, JsonVQADataset, ...).
_C.DATALOADER.TASK = CN()
_C.DATALOADER.TASK.IMAGE_KEY = "image"
_C.DATALOADER.TASK.TEXT_KEY = "caption"
_C.DATALOADER.TASK.INDEX_KEY = "image_id"
_C.DATALOADER.TASK.IMAGE_IN_LINE = False  # True: base64 of the file; False: a path
_C.DATALOADER.TASK.VIDEO = False  # videos of MAX_FEAT_NUM frames, below VIDEO_FOLDER
_C.DATALOADER.TASK.COCO_FOLDER = ""  # where paths with COCO in them begin; '' for IMAGE_FOLDER
_C.DATALOADER.TASK.GENOME_FOLDER = ""  # where pictures of Visual Genome begin
_C.DATALOADER.TASK.AUGMENT = True  # training pictures are cropped, mirrored and changed by chance
_C.DATALOADER.TASK.SMALLEST_CROP = 0.5  # of the area
_C.DATALOADER.TASK.MAX_WORDS = 30  # of a text; MODEL.MAX_SEQ_LEN limits word pieces
_C.DATALOADER.TASK.REFER = ""  # REFER's refs*.p (or .json) beside instances.json, or their folder
_C.DATALOADER.TASK.TEST_MAX_WORDS = 0  # in evaluation; 0 for MAX_WORDS

# Kinds of data that are mixed in one batch (X2VLMPretrainer); those with an ANNFILE take part.
# SETTINGS are options for a kind alone, such as [MODEL.MAX_SEQ_LEN, 64].
_C.DATALOADER.GROUPS = CN()
_C.DATALOADER.GROUPS.EPOCH_SIZE = 0  # records of the first kind; 0: as many as it has
for _kind, _dataset in {
    "IMAGES": "ImageTextLines",
    "REGIONS": "RegionLines",
    "VIDEOS": "VideoLines",
    "TEXTS": "TextLines",
    "PARALLEL_TEXTS": "ParallelTextLines",
}.items():
    _node = CN()
    _node.DATASET = _dataset
    _node.ANNFILE = ""
    _node.BATCH_SIZE = 0  # records of a process; 0: TRAIN_BATCH_SIZE
    _node.NUM_WORKERS = -1  # < 0: DATALOADER.NUM_WORKERS
    _node.WEIGHT = 1.0  # of its losses
    _node.SETTINGS = []
    _C.DATALOADER.GROUPS[_kind] = _node
for _node in (_C.DATALOADER.GROUPS.IMAGES, _C.DATALOADER.GROUPS.VIDEOS):
    _node.CLEAN_ANNFILE = ""  # less noisy data that replace the others now and then
    _node.CLEAN_SHARE = 0.0  # of the batches
    _node.CLEAN_SETTINGS = []
_C.DATALOADER.GROUPS.REGIONS.ROWS = 0  # regions of a batch; 0: all there are
_C.DATALOADER.GROUPS.REGIONS.REPEAT_ROWS = True  # to have ROWS, at the price of false negatives
_C.DATALOADER.GROUPS.REGIONS.BOXES_ONLY = False  # regions teach nothing but where they are

# Which file an image id has: a JSON whose images[] hold id, file_name and optionally split, or a
# pattern such as 'COCO_val2014_{:012d}.jpg'.
_C.DATALOADER.IMAGE_LIST = ""
_C.DATALOADER.IMAGE_NAME = ""
# Rows and columns of stored grid features, which gives each its location; [0, 0] = none.
_C.DATALOADER.FEATS_GRID = [0, 0]
# VQA: the official annotations or the targets that tools/build_answers.py makes of them, and the
# answer of each label ('' = ANNO_FOLDER/trainval_label2ans.json or .pkl).
_C.DATALOADER.TRAIN_TARGETS = ""
_C.DATALOADER.VAL_TARGETS = ""
_C.DATALOADER.TEST_TARGETS = ""
_C.DATALOADER.ANSWERS = ""
_C.DATALOADER.VIDEO_FOLDER = ""
# Which frames of a clip a model sees, MAX_FEAT_NUM at most: uniform, segment (one of each equal
# part, at random in training) or fps (FRAME_RATE a second).
_C.DATALOADER.FRAME_SAMPLING = "uniform"
_C.DATALOADER.FRAME_RATE = 1.0
_C.DATALOADER.MAX_BAD_FRACTION = 0.01  # more unreadable records than this stop an epoch

_C.ENGINE = CN()
_C.ENGINE.NAME = "DefaultTrainer"
# X2VLMPretrainer: a backward pass for every kind of data, which needs less memory, and how many
# steps teach which texts belong to which pictures (< 0: all).
_C.ENGINE.BACKWARD_PER_GROUP = False
_C.ENGINE.MATCHING_STEPS = -1

_C.SCHEDULED_SAMPLING = CN()
_C.SCHEDULED_SAMPLING.START_EPOCH = 0
_C.SCHEDULED_SAMPLING.INC_EVERY_EPOCH = 5
_C.SCHEDULED_SAMPLING.INC_PROB = 0.05
_C.SCHEDULED_SAMPLING.MAX_PROB = 0.25

_C.MODEL = CN()
_C.MODEL.DEVICE = "auto"  # auto (cuda, mps, cpu: the first there is) or a torch device
_C.MODEL.VOCAB_SIZE = 1000  # includes BOS/EOS
_C.MODEL.META_ARCHITECTURE = ""
_C.MODEL.ENCODER = ""
_C.MODEL.DECODER = ""
_C.MODEL.PREDICTOR = ""
_C.MODEL.V_PREDICTOR = ""
_C.MODEL.ATTENTION = "AdditiveAttention"  # cross-modal attention of the recurrent decoders
_C.MODEL.ENCODER_DIM = 1024
_C.MODEL.DECODER_DIM = 1024
_C.MODEL.PRED_DROPOUT = 0.0
_C.MODEL.MAX_SEQ_LEN = 17
_C.MODEL.WEIGHTS = ""
_C.MODEL.ITM_NEG_PROB = 0.5
_C.MODEL.USE_EMA = False
_C.MODEL.EMA_DECAY = 0.9999
_C.MODEL.ENSEMBLE_WEIGHTS = [""]
_C.MODEL.MODEL_WEIGHTS = [1.0, 1.0]

_C.MODEL.TOKEN_EMBED = CN()
_C.MODEL.TOKEN_EMBED.NAME = ""
_C.MODEL.TOKEN_EMBED.DIM = 1024
_C.MODEL.TOKEN_EMBED.ACTIVATION = "none"
_C.MODEL.TOKEN_EMBED.ELU_ALPHA = 0.5
_C.MODEL.TOKEN_EMBED.USE_NORM = False
_C.MODEL.TOKEN_EMBED.NORM_EPS = 1e-5
_C.MODEL.TOKEN_EMBED.PADDING_IDX = -1  # >= 0: id of a word whose vector is not learned
_C.MODEL.TOKEN_EMBED.DROPOUT = 0.0
_C.MODEL.TOKEN_EMBED.POSITION = "none"
_C.MODEL.TOKEN_EMBED.POSITION_MAX_LEN = 5000
_C.MODEL.TOKEN_EMBED.TYPE_VOCAB_SIZE = 0

_C.MODEL.VISUAL_EMBED = CN()
_C.MODEL.VISUAL_EMBED.NAME = ""
_C.MODEL.VISUAL_EMBED.IN_DIM = 2048
_C.MODEL.VISUAL_EMBED.OUT_DIM = 1024
_C.MODEL.VISUAL_EMBED.G_IN_DIM = 512
_C.MODEL.VISUAL_EMBED.ACTIVATION = "none"
_C.MODEL.VISUAL_EMBED.ELU_ALPHA = 0.5
_C.MODEL.VISUAL_EMBED.USE_NORM = False
_C.MODEL.VISUAL_EMBED.DROPOUT = 0.0
_C.MODEL.VISUAL_EMBED.LOCATION_SIZE = 0

_C.MODEL.PRETRAINING = CN()
_C.MODEL.PRETRAINING.MODEL_NAME = "bert-base-uncased"
_C.MODEL.PRETRAINING.FROM_PRETRAINED = "bert-base-uncased"
_C.MODEL.PRETRAINING.DO_LOWER_CASE = True

_C.MODEL.BERT = CN()
_C.MODEL.BERT.HIDDEN_SIZE = 512
_C.MODEL.BERT.HIDDEN_DROPOUT_PROB = 0.1
_C.MODEL.BERT.HIDDEN_ACT = "gelu"
_C.MODEL.BERT.NUM_ATTENTION_HEADS = 8
_C.MODEL.BERT.INTERMEDIATE_SIZE = 2048
_C.MODEL.BERT.INTERMEDIATE_DROP = 0.1
_C.MODEL.BERT.FFN_DROPOUT_PROB = 0.1
_C.MODEL.BERT.ATTENTION_PROBS_DROPOUT_PROB = 0.1
_C.MODEL.BERT.V_TARGET_SIZE = 0
_C.MODEL.BERT.NUM_HIDDEN_LAYERS = 12
_C.MODEL.BERT.LAYER_DROP = 0.0
_C.MODEL.BERT.V_NUM_HIDDEN_LAYERS = 6
_C.MODEL.BERT.V_LAYER_DROP = 0.0
_C.MODEL.BERT.NUM_UNDERSTANDING_LAYERS = 6
_C.MODEL.BERT.U_LAYER_DROP = 0.0
_C.MODEL.BERT.NUM_GENERATION_LAYERS = 6
_C.MODEL.BERT.G_LAYER_DROP = 0.0
# Layers of TDEN and UNITER are computed again for the gradient instead of being kept.
_C.MODEL.BERT.GRAD_CHECKPOINT = False
# Of every layer, only inner states of feed-forward blocks and attention weights are.
_C.MODEL.BERT.RECOMPUTE_INNER = False
# Above 0, weights of Linears and embeddings start from a truncated normal of this deviation.
_C.MODEL.BERT.INIT_STD = 0.0

_C.SOLVER = CN()
_C.SOLVER.NAME = "Adam"
_C.SOLVER.EPOCH = 10
_C.SOLVER.MAX_ITER = -1  # iterations; > 0 replaces EPOCH
_C.SOLVER.CHECKPOINT_PERIOD = 1
_C.SOLVER.CHECKPOINT_PERIOD_ITERS = 0  # iterations; > 0 saves also every so many
_C.SOLVER.MAX_TO_KEEP = -1  # checkpoints; -1 = all
_C.SOLVER.BEST_METRIC = ""  # such as 'val/CIDEr'; '' = the best model is not tracked
_C.SOLVER.BEST_MODE = "max"  # max or min
_C.SOLVER.EVAL_PERIOD = 1
_C.SOLVER.BASE_LR = 0.0005
_C.SOLVER.BIAS_LR_FACTOR = 1.0
_C.SOLVER.LR_DECAY = 0.0
_C.SOLVER.WEIGHT_DECAY = 0.0
_C.SOLVER.WEIGHT_DECAY_NORM = 0.0
_C.SOLVER.WEIGHT_DECAY_BIAS = 0.0
# Groups by parts of the names of parameters, in place of the three settings above.
_C.SOLVER.NO_DECAY = []  # such as ['bias', 'norm.weight']
_C.SOLVER.RATES = []  # such as [[visual_embed.tower., 2e-5]]; the first that fits counts
_C.SOLVER.FRESH = []  # of parameters that start at random
_C.SOLVER.FRESH_LR_FACTOR = 1.0
_C.SOLVER.INITIAL_ACCUMULATOR_VALUE = 0.0
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.DAMPENING = 0.0
_C.SOLVER.NESTEROV = 0.0  # True and False are accepted too
_C.SOLVER.ALPHA = 0.99
_C.SOLVER.CENTERED = False
_C.SOLVER.BETAS = [0.9, 0.999]
_C.SOLVER.EPS = 1e-8
_C.SOLVER.AMSGRAD = False
_C.SOLVER.GRAD_CLIP_TYPE = "norm"  # norm (global) or value (each element)
_C.SOLVER.GRAD_CLIP = 0.1  # <= 0: no clipping
_C.SOLVER.NORM_TYPE = 2.0
_C.SOLVER.WRITE_PERIOD = 20  # iterations
_C.SOLVER.PRECISION = "fp32"  # fp32, bf16 or fp16
_C.SOLVER.ACCUM_STEPS = 1
# Every weight is updated as soon as its gradient is known, so that gradients need no memory.
_C.SOLVER.STEP_IN_BACKWARD = False
_C.SOLVER.COMPILE = False
_C.SOLVER.FIND_UNUSED_PARAMETERS = True
_C.SOLVER.PROGRESS_BAR = False

_C.LR_SCHEDULER = CN()
_C.LR_SCHEDULER.NAME = "StepLR"
_C.LR_SCHEDULER.STEP_SIZE = 3
_C.LR_SCHEDULER.GAMMA = 0.1
_C.LR_SCHEDULER.MODEL_SIZE = -1
_C.LR_SCHEDULER.FACTOR = 1.0
_C.LR_SCHEDULER.WARMUP = 0  # iterations for NoamLR and WarmupLinearSteps
_C.LR_SCHEDULER.WARMUP_SHARE = 0.0  # of the run, for WarmupLinearSteps; > 0 replaces WARMUP
_C.LR_SCHEDULER.MIN_LR = 0.00001  # a factor on BASE_LR
_C.LR_SCHEDULER.STEPS = (3,)
_C.LR_SCHEDULER.MILESTONES = ()
_C.LR_SCHEDULER.WARMUP_FACTOR = 0.0
_C.LR_SCHEDULER.WARMUP_METHOD = "linear"

_C.LOSSES = CN()
_C.LOSSES.NAMES = [""]
_C.LOSSES.LABELSMOOTHING = 0.1
_C.LOSSES.SMOOTHING_EXCLUDES = -1  # id of a word that smoothing gives nothing, -1 for none
_C.LOSSES.MARGIN = 0.2
_C.LOSSES.MAX_VIOLATION = True

_C.SCORER = CN()
_C.SCORER.NAME = ""
_C.SCORER.TYPES = [""]
_C.SCORER.WEIGHTS = [1.0]
_C.SCORER.GT_PATH = "coco_train_gts.pkl"
_C.SCORER.CIDER_CACHED = "coco_train_cider.pkl"
_C.SCORER.EOS_ID = 0
_C.SCORER.COUNT_EOS = True  # whether the end word is a word in rewards

_C.DECODE_STRATEGY = CN()
_C.DECODE_STRATEGY.NAME = "BeamSearcher"
_C.DECODE_STRATEGY.BEAM_SIZE = 1
_C.DECODE_STRATEGY.MAX_LENGTH = 0  # most words of a sentence; 0 for MODEL.MAX_SEQ_LEN
_C.DECODE_STRATEGY.MIN_LENGTH = 0  # words before which no sentence ends
_C.DECODE_STRATEGY.LENGTH_PENALTY = 0.0
_C.DECODE_STRATEGY.NO_REPEAT_NGRAM = 0
_C.DECODE_STRATEGY.SUPPRESS_WORDS = []  # words never generated, such as ['UNK']
_C.DECODE_STRATEGY.TEMPERATURE = 1.0
_C.DECODE_STRATEGY.TOP_K = 0
_C.DECODE_STRATEGY.TOP_P = 1.0

_C.INFERENCE = CN()
_C.INFERENCE.NAME = ""
_C.INFERENCE.VOCAB = "coco_vocabulary.txt"
_C.INFERENCE.ID_KEY = "image_id"
_C.INFERENCE.VALUE = "caption"
_C.INFERENCE.VAL_ANNFILE = "captions_val5k.json"
_C.INFERENCE.TEST_ANNFILE = "captions_test5k.json"
_C.INFERENCE.GENERATION_MODE = True
_C.INFERENCE.METRICS = []  # caption metrics to compute, such as [BLEU, CIDEr]; [] for all
_C.INFERENCE.PIXEL_IOU = False  # overlaps of boxes as the published scores of RefCOCO count them
# Candidates of each query that models with fusion score again; 0 ranks by vectors alone.
_C.INFERENCE.RERANK = 32
_C.INFERENCE.VAL_EVAL_START = -1
_C.INFERENCE.TEST_EVAL_START = -1
