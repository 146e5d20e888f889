"""Samples of the tasks that models of pictures and texts are fine-tuned on."""

from .records import JsonRecords
from .task_files import read_task_file, task_files
from .visuals import TaskVisuals

__all__ = ["JsonRecords", "TaskVisuals", "read_task_file", "task_files"]
