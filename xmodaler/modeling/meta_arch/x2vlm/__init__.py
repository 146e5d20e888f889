"""X²-VLM: one set of towers for many tasks."""

from .captioning import X2VLMCaptioner
from .classification import X2VLMClassifier, X2VLMGrounding, X2VLMReasoning
from .pretrain import X2VLMPretrain
from .retrieval import X2VLMRetrieval
from .vqa import X2VLMVQA

__all__ = [
    "X2VLMVQA",
    "X2VLMCaptioner",
    "X2VLMClassifier",
    "X2VLMGrounding",
    "X2VLMPretrain",
    "X2VLMReasoning",
    "X2VLMRetrieval",
]
