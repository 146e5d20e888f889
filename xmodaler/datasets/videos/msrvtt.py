"""Captioning of MSR-VTT clips from stored frame features."""

from typing import ClassVar

import numpy as np

from ..build import DATASETS_REGISTRY
from .msvd import MSVDDataset


@DATASETS_REGISTRY.register()
class MSRVTTDataset(MSVDDataset):
    """:class:`MSVDDataset` with the file names and the choice of frames of MSR-VTT."""

    name: ClassVar[str] = "msrvtt"

    def _sample_frame(self, frames: np.ndarray) -> np.ndarray:
        """At most M frames: every (n / M)-th, the last repeated until M divides their number n."""
        most = self.max_feat_num
        if not 0 < most < len(frames):
            return frames
        stride = -(-len(frames) // most)
        return frames[np.minimum(np.arange(most) * stride, len(frames) - 1)]
