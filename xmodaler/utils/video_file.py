"""Videos as PyAV (``av``) reads them."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from .clips import Clip
from .errors import MissingDependencyError, UserError
from .frame_sampling import Timeline
from .pictures import MAX_PIXELS

# A file whose end is missing is refused; what encoders round off at the end is less than this.
_WHOLE = 0.9
# Containers whose index says reliably where key frames are, and how many frames ahead one must be
# to be worth going there.
_SEEKABLE = {"mov", "mp4", "matroska", "webm"}
_LEAP = 24


class VideoFile(Clip):
    """A video that PyAV decodes.

    Frames are told apart by their timestamps, so that a variable frame rate is respected; where a
    file has none, by their order.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._av = _import_av(self.name)
        self._stamps: list[int] | None = None
        self._keys: list[int] = []
        self._packets = 0

    def timeline(self) -> Timeline:
        self._keys = []
        with self._open() as (container, stream):
            stamps, last = [], 0
            for packet in self._demux(container, stream):
                stamps.append(packet.pts)
                last = packet.duration or 0
                if packet.is_keyframe and packet.pts is not None:
                    self._keys.append(packet.pts)
            self._check_whole(container, stream, stamps)
            self._packets = len(stamps)
            if None in stamps:
                rate = float(stream.average_rate or 25)
                return Timeline.of_count(len(stamps), rate)
            self._stamps = sorted(set(stamps))
            self._keys.sort()
            unit = float(stream.time_base)
            return Timeline.of_times([stamp * unit for stamp in self._stamps], last * unit)

    def frames(self, numbers: Sequence[int]) -> Iterator[Image.Image]:
        if not self._packets:
            self.timeline()
        places = self._stamps or range(self._packets)
        wanted = [places[number] for number in numbers][::-1]
        given, last = 0, None
        with self._open() as (container, stream):
            for place, frame in self._walk(container, stream, wanted):
                last = place
                if place < wanted[-1]:
                    continue
                while wanted and wanted[-1] <= place:
                    wanted.pop()
                given += 1
                yield self._upright(frame, stream)
                if not wanted:
                    return
        # Encoders may drop the very last frames; more than that is damage.
        reached = 0 if last is None else bisect_right(places, last)
        skipped = len(numbers) - len(wanted) - given
        if not given or reached < _WHOLE * len(places) or skipped > (1 - _WHOLE) * len(numbers):
            raise UserError(
                f"{self.name} is damaged: only {given} of {len(numbers)} frames can be decoded"
            )

    def _walk(
        self, container: Any, stream: Any, wanted: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """(place, frame) in order, leaping to the key frame before the next wanted, the last."""
        place = -1
        leaps = self._stamps is not None and _SEEKABLE & set(container.format.name.split(","))
        while True:
            key = self._leap(place, wanted[-1]) if leaps and wanted else None
            if key is not None:
                container.seek(key, stream=stream)
            for frame in self._decode(container, stream):
                place = place + 1 if self._stamps is None else frame.pts
                if place is None:
                    continue
                yield place, frame
                if leaps and wanted and self._leap(place, wanted[-1]) is not None:
                    break
            else:
                return

    def _leap(self, place: int, wanted: int) -> int | None:
        """The key frame to go on from, if that saves decoding many frames."""
        number = bisect_right(self._keys, wanted) - 1
        if number < 0:
            return None
        key = self._keys[number]
        ahead = bisect_right(self._stamps, key) - bisect_right(self._stamps, place)
        return key if ahead > _LEAP else None

    def _open(self) -> "_Opened":
        return _Opened(self._av, self.path, self.name)

    def _demux(self, container: Any, stream: Any) -> Iterator[Any]:
        """The packets that hold a frame to be shown."""
        try:
            for packet in container.demux(stream):
                if packet.size and not getattr(packet, "is_discard", False):
                    yield packet
        except self._av.error.FFmpegError:
            return  # what is missing is noticed by counting

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """The frames that can be decoded."""
        errors = self._av.error.FFmpegError
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except errors:
                    continue
                yield from frames
        except errors:
            return

    def _check_whole(self, container: Any, stream: Any, stamps: Sequence[int | None]) -> None:
        """Refuse a file that ends before the place where its header says it ends."""
        if not stamps:
            raise UserError(f"{self.name} has no frame; it is empty, cut off or damaged")
        if stream.frames and len(stamps) < _WHOLE * stream.frames:
            raise UserError(
                f"{self.name} is cut off: it should have {stream.frames} frames, {len(stamps)} are "
                "there"
            )
        seconds = _stated_seconds(container, stream)
        if seconds and None not in stamps:
            end = float((max(stamps) - min(stamps)) * stream.time_base) + 1 / float(
                stream.average_rate or 25
            )
            if end < _WHOLE * seconds - 1:
                raise UserError(
                    f"{self.name} is cut off: it should last {seconds:.1f} s, but its frames end "
                    f"after {end:.1f} s"
                )

    def _upright(self, frame: Any, stream: Any) -> Image.Image:
        angle = getattr(frame, "rotation", None)
        if angle is None:  # PyAV before it read display matrices
            angle = -float(stream.metadata.get("rotate", 0))
        try:
            picture = frame.to_image()
        except (self._av.error.FFmpegError, ValueError) as error:
            raise UserError(f"{self.name} cannot be converted to pictures: {error}") from error
        return picture.rotate(angle, expand=True) if angle else picture


class _Opened:
    """A container and its video stream, closed at the end of a ``with`` block."""

    def __init__(self, av: ModuleType, path: Path, name: str) -> None:
        try:
            # Nothing but this file: playlists may name others, also on the network.
            self._container = av.open(
                f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="ignore"
            )
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"{name} is no video that can be read, or is damaged: {reason}"
            ) from None
        try:
            self._stream = self._video_stream(name)
        except BaseException:
            self._container.close()
            raise

    def _video_stream(self, name: str) -> Any:
        streams = [s for s in self._container.streams.video if not _is_cover(s)]
        if not streams:
            has_audio = bool(self._container.streams.audio)
            raise UserError(f"{name} has no pictures{', only sound' if has_audio else ''}")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise UserError(f"{name} is coded in a way that this PyAV cannot decode")
        if context.width * context.height > MAX_PIXELS:
            raise UserError(f"{name} is too large: {context.width}x{context.height} pixels")
        # Loaders have processes of their own; threads of all of them would be in each other's way.
        context.thread_count = 1
        return stream

    def __enter__(self) -> tuple[Any, Any]:
        return self._container, self._stream

    def __exit__(self, *_: object) -> None:
        self._container.close()


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of a piece of music."""
    disposition = getattr(stream, "disposition", 0)
    return bool(int(disposition) & 0x0400) if disposition is not None else False


def _stated_seconds(container: Any, stream: Any) -> float | None:
    """How long the header says that the pictures last."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if stated:
        hours, minutes, seconds = stated.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1_000_000
    return None


def _import_av(name: str) -> ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} can be read only with PyAV; install it with `pip install xmodaler[video]`"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # errors are reported as exceptions
    return av
