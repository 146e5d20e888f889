"""Clips that Pillow reads: folders of frames and animated pictures."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from .errors import UserError
from .file_kinds import PICTURE_SUFFIXES
from .frame_sampling import Timeline
from .pictures import MAX_PIXELS, load_picture, to_rgb


class Clip(ABC):
    """Frames in the order of time.

    Args:
        path: Where they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"Video '{path}'"

    @abstractmethod
    def timeline(self) -> Timeline:
        """When its frames begin, found without keeping any."""

    @abstractmethod
    def frames(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        """Frames of the timeline by their ascending numbers."""


class FrameFolder(Clip):
    """Pictures of a folder, in the natural order of their names."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.name = f"Folder of frames '{path}'"
        self._files = sorted((file for file in path.iterdir() if is_frame(file)), key=natural_order)

    def timeline(self) -> Timeline:
        return Timeline.of_count(len(self._files))

    def frames(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        return (load_picture(self._files[number]) for number in numbers)


def is_frame(file: Path) -> bool:
    """Whether a file of a folder is taken for a picture."""
    return file.suffix.lower() in PICTURE_SUFFIXES and not file.name.startswith(".")


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts numbers in names by value: "frame2" before "frame10"."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]


class PictureFile(Clip):
    """An animated picture; a still one is a clip of one frame."""

    def timeline(self) -> Timeline:
        times, now = [], 0.0
        shown = 0.0
        for _, picture in self._walk():
            times.append(now)
            shown = float(picture.info.get("duration") or 0) / 1000
            now += shown or 0.1  # viewers show a frame without a time for a tenth of a second
        return Timeline.of_times(times, shown)

    def frames(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        wanted = set(numbers)
        for number, picture in self._walk():
            if number in wanted:
                yield to_rgb(picture)
            if number >= max(wanted):
                return

    def _walk(self) -> Iterator[tuple[int, Image.Image]]:
        """(number, the open picture at that frame); the picture changes under the caller."""
        try:
            with Image.open(self.path) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise UserError(f"{self.name} is too large: {width}x{height} pixels")
                # A PNG may carry a still picture for viewers that know no animation.
                first = int(bool(getattr(picture, "default_image", False)))
                for number in range(first, getattr(picture, "n_frames", 1)):
                    picture.seek(number)
                    picture.load()
                    yield number - first, picture
        except UserError:
            raise
        except Exception as error:
            # Decoders report damage as OSError, SyntaxError, ValueError, struct.error and others.
            raise UserError(f"{self.name} is truncated or damaged: {error}") from error
