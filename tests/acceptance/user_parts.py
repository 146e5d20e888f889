"""Parts that a user keeps outside of the package and names in a config or a command line."""

import os
import pickle
import random

import numpy as np
import torch
from torch import nn

from xmodaler.config import CfgNode as CN
from xmodaler.config import configurable, kfg
from xmodaler.datasets.build import DATASETS_REGISTRY
from xmodaler.engine.build import ENGINE_REGISTRY
from xmodaler.engine.defaults import DefaultTrainer
from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.functional import dict_as_tensor, read_np
from xmodaler.losses.build import LOSSES_REGISTRY
from xmodaler.modeling.decoder.build import DECODER_REGISTRY
from xmodaler.modeling.decoder.decoder import Decoder
from xmodaler.modeling.encoder.build import ENCODER_REGISTRY

kfg.TAGS = "TAGS"


@DATASETS_REGISTRY.register()
class MyDataset:
    """The data set of the tutorial, which also gives each image three tags."""

    @configurable
    def __init__(self, stage, anno_file, seq_per_img, max_feat_num, max_seq_len, feats_folder):
        self.stage = stage
        self.anno_file = anno_file
        self.seq_per_img = seq_per_img
        self.max_feat_num = max_feat_num
        self.max_seq_len = max_seq_len
        self.feats_folder = feats_folder

    @classmethod
    def from_config(cls, cfg, stage="train"):
        return {
            "stage": stage,
            "anno_file": f"{cfg.DATALOADER.ANNO_FOLDER}/mscoco_caption_anno_{stage}.pkl",
            "seq_per_img": cfg.DATALOADER.SEQ_PER_SAMPLE,
            "max_feat_num": cfg.DATALOADER.MAX_FEAT_NUM,
            "feats_folder": cfg.DATALOADER.FEATS_FOLDER,
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
        }

    def load_data(self, cfg):
        with open(self.anno_file, "rb") as file:
            return pickle.load(file, encoding="bytes")

    def __call__(self, dataset_dict):
        image_id = dataset_dict["image_id"]
        content = read_np(os.path.join(self.feats_folder, image_id + ".npz"))
        result = {
            kfg.IDS: image_id,
            kfg.ATT_FEATS: content["features"][: self.max_feat_num].astype("float32"),
            kfg.TAGS: np.full(3, int(image_id) % 7, dtype=np.float32),
        }
        if self.stage == "train":
            chosen = random.sample(range(len(dataset_dict["tokens_ids"])), self.seq_per_img)
            tokens = [dataset_dict["tokens_ids"][k].astype(np.int64) for k in chosen]
            targets = [dataset_dict["target_ids"][k].astype(np.int64) for k in chosen]
            types = [np.ones(len(row), dtype=np.int64) for row in tokens]
            result[kfg.SEQ_PER_SAMPLE] = self.seq_per_img
            result[kfg.G_TOKENS_IDS] = tokens
            result[kfg.G_TARGET_IDS] = targets
            result[kfg.G_TOKENS_TYPE] = types
        else:
            result[kfg.G_TOKENS_TYPE] = np.ones(self.max_seq_len, dtype=np.int64)
        dict_as_tensor(result)
        return result


@DATASETS_REGISTRY.register()
class MyDatasetWithoutRecords:
    """A data set whose author forgot load_data."""

    def __init__(self, cfg, stage="train"):
        pass

    def __call__(self, dataset_dict):
        return dataset_dict


@ENCODER_REGISTRY.register()
class MyEncoder(nn.Module):
    """The encoder of the tutorial: no arguments, no keys of its own."""

    @configurable
    def __init__(self):
        super().__init__()

    @classmethod
    def from_config(cls, cfg):
        return {}

    @classmethod
    def add_config(cls, cfg):
        pass

    def forward(self, batched_inputs, mode=None):
        if mode is None or "v" in mode:
            return {kfg.GLOBAL_FEATS: batched_inputs[kfg.ATT_FEATS].mean(1)}
        return {}


@ENCODER_REGISTRY.register()
class MyTagEncoder(nn.Module):
    """Adds an embedding of the tags, which only :class:`MyDataset` gives, to every region."""

    @configurable
    def __init__(self, *, dim, scale):
        super().__init__()
        self.project = nn.Linear(3, dim)
        self.scale = scale
        self.seen = []

    @classmethod
    def from_config(cls, cfg):
        return {"dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM, "scale": cfg.MODEL.MY_TAGS.SCALE}

    @classmethod
    def add_config(cls, cfg):
        cfg.MODEL.MY_TAGS = CN()
        cfg.MODEL.MY_TAGS.SCALE = 1.0

    def forward(self, batched_inputs, mode=None):
        if mode is not None and "v" not in mode:
            return {}
        tags = batched_inputs[kfg.TAGS]
        self.seen.append(tags)
        feats = batched_inputs[kfg.ATT_FEATS]
        feats = feats + self.scale * self.project(tags).unsqueeze(1)
        return {kfg.ATT_FEATS: feats, kfg.GLOBAL_FEATS: feats.mean(1)}


@DECODER_REGISTRY.register()
class MyDecoder(Decoder):
    """A step-wise decoder that expects an image's features once for each of its sentences."""

    @configurable
    def __init__(self, *, hidden_size, token_embed_dim, visual_embed_dim):
        super().__init__()
        self.num_layers = 1
        self.hidden_size = hidden_size
        self.score = nn.Linear(hidden_size, visual_embed_dim)
        self.lstm = nn.LSTMCell(token_embed_dim + visual_embed_dim, hidden_size)

    @classmethod
    def from_config(cls, cfg):
        return {
            "hidden_size": cfg.MODEL.DECODER_DIM,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
            "visual_embed_dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM,
        }

    @classmethod
    def add_config(cls, cfg):
        pass

    def preprocess(self, batched_inputs):
        feats = batched_inputs[kfg.ATT_FEATS]
        batched_inputs.update(self.init_states(feats.shape[0]))
        return batched_inputs

    def forward(self, batched_inputs):
        words = batched_inputs[kfg.G_TOKEN_EMBED]
        feats = batched_inputs[kfg.ATT_FEATS]
        hidden = batched_inputs[kfg.G_HIDDEN_STATES][0]
        cell = batched_inputs[kfg.G_CELL_STATES][0]
        assert len(words) == len(feats) == len(hidden)
        scores = (feats @ self.score(hidden).unsqueeze(-1)).squeeze(-1)
        weights = (scores + batched_inputs[kfg.EXT_ATT_MASKS]).softmax(-1)
        context = (weights.unsqueeze(1) @ feats).squeeze(1)
        hidden, cell = self.lstm(torch.cat([words, context], -1), (hidden, cell))
        return {kfg.G_HIDDEN_STATES: [hidden], kfg.G_CELL_STATES: [cell]}


@LOSSES_REGISTRY.register()
class MyLoss(nn.Module):
    """Half the squared mean logit; a value that is shown and not optimised beside it."""

    @configurable
    def __init__(self):
        super().__init__()

    @classmethod
    def from_config(cls, cfg):
        return {}

    def forward(self, outputs_dict):
        logits = outputs_dict[kfg.G_LOGITS]
        return {"MyLoss": 0.5 * logits.mean() ** 2, "my_acc": logits.new_tensor(0.25)}


@EVALUATION_REGISTRY.register()
class MyEvaler:
    """The evaluator of the tutorial: two arguments, and one for eval."""

    def __init__(self, cfg, annfile):
        self.annfile = annfile

    def eval(self, results):
        lengths = [len(result["caption"].split()) for result in results]
        return {"Words": sum(lengths) / len(lengths), "ids": {"largest": max(map(_id, results))}}


def _id(result):
    return result["image_id"]


@EVALUATION_REGISTRY.register()
class MyEvalerOfThree:
    """An evaluator in the form of the code: three arguments, and two for eval."""

    def __init__(self, cfg, annfile, output_dir):
        self.output_dir = output_dir

    def eval(self, results, epoch):
        return {"Epoch": epoch, "HasFolder": float(self.output_dir is not None)}


@ENGINE_REGISTRY.register()
class MyTrainer(DefaultTrainer):
    """A trainer that doubles every loss."""

    def compute_losses(self, data):
        return {name: 2 * value for name, value in super().compute_losses(data).items()}
