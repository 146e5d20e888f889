"""Lets every process of a run write its weights, and what it saw; loaded through ``--import``."""

import os

import torch

from xmodaler.config import kfg
from xmodaler.engine import X2VLMPretrainer
from xmodaler.utils import comm

_train, _next_batch = X2VLMPretrainer.train, X2VLMPretrainer.next_batch


def next_batch(self, stream=None):
    data = _next_batch(self, stream)
    steps = self.__dict__.setdefault("noted", [])
    steps.append((bool(data["CLEAN_GROUPS"]), data[kfg.GROUPS]["texts"][kfg.IDS]))
    return data


def train(self):
    metrics = _train(self)
    path = os.path.join(os.environ["NOTED_WEIGHTS"], f"rank{comm.get_rank()}.pth")
    clean = [clean for clean, _ in self.noted]
    seen = [name for _, names in self.noted[:2] for name in names]
    torch.save({"model": self.bare_model.state_dict(), "clean": clean, "seen": seen}, path)
    comm.synchronize()
    return metrics


X2VLMPretrainer.train, X2VLMPretrainer.next_batch = train, next_batch
