"""Opening the clips people have: video files, animated pictures, folders of frames.

Frames are decoded one after the other and handed on at once; only those asked for become
pictures. Animated PNG, GIF and WebP are read by Pillow, everything else by PyAV (``av``).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from .clips import Clip, FrameFolder, PictureFile
from .errors import UserError
from .frame_sampling import Timeline
from .video_file import VideoFile


def load_frames(
    path: str | os.PathLike[str], choose: Callable[[Timeline], Sequence[int]]
) -> Iterator[Image.Image]:
    """The chosen frames of a clip, upright, in mode RGB, in the order of time.

    Args:
        path: A video, an animated (or single) picture, or a folder of pictures, which are taken in
            the natural order of their names ("frame2" before "frame10"), 25 to a second.
        choose: From the timeline of a clip the numbers of the frames wanted, ascending.

    Yields:
        One picture at a time.

    Raises:
        UserError: There is no such clip, it has no frame, it cannot be decoded or it is cut off;
            the message names the file. For videos without PyAV a MissingDependencyError.
    """
    clip = open_clip(path)
    timeline = clip.timeline()
    if not len(timeline):
        raise UserError(f"{clip.name} has no frame")
    return clip.frames(choose(timeline))


def open_clip(path: str | os.PathLike[str]) -> Clip:
    """A clip on disk; nothing is decoded yet.

    Raises:
        UserError: There is no such file or folder, or it is empty.
    """
    path = Path(path)
    if path.is_dir():
        return FrameFolder(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise UserError(f"Video '{path}' does not exist") from None
    except OSError as error:
        raise UserError(f"Video '{path}' cannot be read: {error.strerror}") from None
    if not head:
        raise UserError(f"Video '{path}' is empty (0 bytes)")
    # Motion JPEG is a row of pictures, of which Pillow sees the first.
    is_motion = path.suffix.lower() in (".mjpeg", ".mjpg")
    return PictureFile(path) if _is_picture(head) and not is_motion else VideoFile(path)


def _is_picture(head: bytes) -> bool:
    is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return is_webp or head.startswith((b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"BM"))
