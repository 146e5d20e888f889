"""Samples of the tasks that models of pictures and texts are fine-tuned on."""

from .captions import JsonCaptionDataset
from .entailment import JsonEntailmentDataset
from .grounding import JsonGroundingDataset
from .reasoning import JsonReasoningDataset
from .records import JsonRecords
from .refer import ReferFolder
from .retrieval import JsonRetrievalDataset
from .task_files import read_task_file, task_files
from .video_qa import JsonVideoQADataset
from .visuals import TaskVisuals
from .vqa import JsonVQADataset, candidate_answers

__all__ = [
    "JsonCaptionDataset",
    "JsonEntailmentDataset",
    "JsonGroundingDataset",
    "JsonReasoningDataset",
    "JsonRecords",
    "JsonRetrievalDataset",
    "JsonVQADataset",
    "JsonVideoQADataset",
    "ReferFolder",
    "TaskVisuals",
    "candidate_answers",
    "read_task_file",
    "task_files",
]
