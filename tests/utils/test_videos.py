"""Clips of every kind: the right frames, upright; broken ones named in one sentence."""

import builtins
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from xmodaler.utils.errors import MissingDependencyError, UserError
from xmodaler.utils.frame_sampling import FrameSampling
from xmodaler.utils.videos import load_frames, open_clip

SIDE = 48
CODECS = {"mp4": "mpeg4", "avi": "mpeg4", "webm": "libvpx", "mkv": "libx264", "mov": "libx264"}
RAW = {"h264": "libx264", "mjpeg": "mjpeg"}  # no container: frames have no times


def shade(number, count):
    """Grey level of a frame: frames can be told apart after lossy coding."""
    return 20 + 200 * number // max(count - 1, 1)


def write_video(path, count=12, rate=10, times=None, sound=False, rotation=0, noise=0):
    """A video whose frames grow brighter; `times` in milliseconds make its rate variable."""
    random = np.random.default_rng(0)
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream({**CODECS, **RAW}[path.suffix[1:]], rate=rate)
        stream.width, stream.height = 2 * SIDE, SIDE
        stream.pix_fmt = "yuvj420p" if path.suffix == ".mjpeg" else "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write display matrices")
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac" if path.suffix != ".webm" else "libopus") if sound else 0
        for number in range(count):
            pixels = np.full((SIDE, 2 * SIDE, 3), shade(number, count), np.uint8)
            pixels[:, :SIDE] //= 4  # the left half is darker
            pixels[::2] += random.integers(0, noise + 1, pixels[::2].shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            write_sound(av, container, audio)
    return path


def write_sound(av, container, stream, seconds=1):
    size = stream.codec_context.frame_size or 960
    rate = stream.codec_context.sample_rate
    for number in range(seconds * rate // size):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((stream.codec_context.channels, size), np.float32),
            format="fltp",
            layout=stream.codec_context.layout.name,
        )
        frame.sample_rate, frame.pts = rate, number * size
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_picture(path, count=6, durations=100):
    frames = [Image.new("RGB", (8, 8), (shade(k, count),) * 3) for k in range(count)]
    loss = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, **loss)
    return path


def shades(path, sampling):
    """Grey levels of the right halves of the chosen frames."""
    frames = [np.asarray(f) for f in load_frames(path, sampling)]
    assert all(frame.ndim == 3 and frame.dtype == np.uint8 for frame in frames)
    return [int(frame[:, frame.shape[1] // 2 + 2 :].mean()) for frame in frames]


def near(found, expected, tolerance=8):
    return len(found) == len(expected) and np.allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("kind", list(CODECS))
def test_chosen_frames_of_videos(tmp_path, kind):
    path = write_video(tmp_path / f"clip.{kind}", count=12)
    assert len(open_clip(path).timeline()) == 12
    assert open_clip(path).timeline().duration == pytest.approx(1.2, abs=0.11)
    expected = [shade(number, 12) for number in range(12)]
    assert near(shades(path, FrameSampling("uniform", 4)), expected[::3])
    assert near(shades(path, FrameSampling("fps", fps=10)), expected)
    assert near(shades(path, FrameSampling("uniform", 50)), expected)


@pytest.mark.parametrize("kind", list(RAW))
def test_videos_without_times_go_by_the_order(tmp_path, kind):
    path = write_video(tmp_path / f"clip.{kind}", count=12, rate=25)
    assert len(open_clip(path).timeline()) == 12
    expected = [shade(number, 12) for number in (0, 4, 8)]
    assert near(shades(path, FrameSampling("uniform", 3)), expected)


@pytest.mark.parametrize("kind", ["png", "gif", "webp"])
def test_animated_pictures(tmp_path, kind):
    path = write_picture(tmp_path / f"clip.{kind}")
    timeline = open_clip(path).timeline()
    assert len(timeline) == 6 and timeline.duration == pytest.approx(0.6)
    assert near(shades(path, FrameSampling("uniform", 3)), [20, 100, 180])


def test_animated_pictures_with_frames_of_many_lengths(tmp_path):
    path = write_picture(tmp_path / "clip.png", durations=[100, 100, 100, 100, 100, 500])
    assert near(shades(path, FrameSampling("uniform", 4)), [20, 100, 220])


def test_folders_of_frames_in_natural_order(tmp_path):
    for number in (1, 2, 10, 11):
        Image.new("RGB", (8, 8), (number * 20,) * 3).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    assert near(shades(tmp_path, FrameSampling("uniform", 9)), [20, 40, 200, 220], 0)
    assert near(shades(tmp_path, FrameSampling("uniform", 2)), [20, 200], 0)


def test_variable_frame_rates_follow_the_timestamps(tmp_path):
    times = [0, 1000, 2000, 3000, *range(4000, 5000, 125)]
    path = write_video(tmp_path / "clip.mkv", count=12, rate=1000, times=times)
    timeline = open_clip(path).timeline()
    assert np.allclose(timeline.starts, np.array(times) / 1000, atol=0.002)
    expected = [shade(number, 12) for number in (0, 1, 2, 3, 4)]
    assert near(shades(path, FrameSampling("fps", fps=1.0)), expected)


def test_rotation_metadata_turns_frames_upright(tmp_path):
    path = write_video(tmp_path / "clip.mp4", rotation=90)
    (frame, *_) = load_frames(path, FrameSampling("uniform", 3))
    assert frame.size == (SIDE, 2 * SIDE)
    pixels = np.asarray(frame).astype(int)
    # 90 degrees counter-clockwise: what was left is at the bottom now.
    assert pixels[: SIDE - 4].mean() > pixels[SIDE + 4 :].mean() + 5


@pytest.mark.parametrize("kind", ["mp4", "webm", "png", "jpg"])
def test_one_frame_is_a_clip(tmp_path, kind):
    path = tmp_path / f"clip.{kind}"
    if kind in CODECS:
        write_video(path, count=1)
    else:
        Image.new("RGB", (8, 8)).save(path)
    for sampling in (
        FrameSampling("uniform", 8),
        FrameSampling("segment", 8, jitter=True),
        FrameSampling("fps", fps=30.0),
    ):
        assert len(list(load_frames(path, sampling))) == 1


def test_sound_beside_the_pictures_is_no_matter(tmp_path):
    path = write_video(tmp_path / "clip.mp4", count=12, sound=True)
    assert near(shades(path, FrameSampling("uniform", 2)), [20, shade(6, 12)])


def test_only_the_frames_asked_for_become_pictures(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", count=40)
    av = pytest.importorskip("av")
    from xmodaler.utils.video_file import VideoFile

    made = []
    upright = VideoFile._upright
    monkeypatch.setattr(VideoFile, "_upright", lambda self, *a: made.append(1) or upright(self, *a))
    frames = load_frames(path, FrameSampling("uniform", 4))
    next(frames)
    assert len(made) == 1  # the others not before they are asked for
    assert len(list(frames)) == 3 and len(made) == 4
    assert av


@pytest.mark.parametrize("kind", ["mp4", "webm", "avi"])
def test_long_videos_are_not_decoded_whole(tmp_path, kind, monkeypatch):
    """Leaps over what is not wanted give the frames that decoding everything gives."""
    pytest.importorskip("av")
    from xmodaler.utils import video_file

    path = write_video(tmp_path / f"clip.{kind}", count=400, rate=25)
    decoded = []
    decode = video_file.VideoFile._decode

    def counted(self, *arguments):
        for frame in decode(self, *arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_file.VideoFile, "_decode", counted)
    for sampling in (FrameSampling("segment", 3), FrameSampling("uniform", 5)):
        monkeypatch.setattr(video_file, "_LEAP", 24)
        decoded.clear()
        leaping = [np.asarray(frame) for frame in load_frames(path, sampling)]
        few = len(decoded)
        monkeypatch.setattr(video_file, "_LEAP", 10**9)
        decoded.clear()
        whole = [np.asarray(frame) for frame in load_frames(path, sampling)]
        np.testing.assert_array_equal(leaping, whole)
        if kind == "mp4":
            assert few < len(decoded) / 3


def broken(folder, kind):
    """A file that is broken in some way."""
    path = folder / "clip.mp4"
    if kind == "absent":
        return path
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    elif kind == "text":
        path.write_text("a video, honestly\n" * 50)
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n")
    elif kind == "audio only":
        av = pytest.importorskip("av")
        with av.open(str(path), "w") as container:
            write_sound(av, container, container.add_stream("aac"))
    elif kind == "cut mp4":  # its index is at the end
        content = write_video(path, count=40).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind in ("cut avi", "cut webm"):
        path = folder / f"clip.{kind[4:]}"
        content = write_video(path, count=60, noise=30).read_bytes()
        path.write_bytes(content[: int(len(content) * 0.7)])
    elif kind == "no frame":
        av = pytest.importorskip("av")
        path = folder / "clip.avi"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            container.start_encoding()
    elif kind == "cut png":
        path = folder / "clip.png"
        content = write_picture(path, count=20).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty folder":
        path = folder / "frames"
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "does not exist"),
        ("empty", r"is empty \(0 bytes\)"),
        ("noise", "is no video that can be read"),
        ("text", "is no video that can be read"),
        ("playlist", "no video that can be read|no pictures|no frame"),
        ("audio only", "has no pictures, only sound"),
        ("cut mp4", "no video that can be read"),
        ("cut avi", "is cut off: it should have 60 frames"),
        ("cut webm", "is cut off: it should last 6"),
        ("no frame", "has no frame|no video that can be read|has no pictures"),
        ("cut png", "truncated or damaged"),
        ("empty folder", "has no frame"),
    ],
)
def test_broken_clips_are_named_in_one_sentence(tmp_path, kind, message):
    path = broken(tmp_path, kind)
    with pytest.raises(UserError, match=message) as error:
        list(load_frames(path, FrameSampling("uniform", 4)))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_damage_in_the_middle_is_noticed(tmp_path):
    """Overwritten pictures: whatever can be decoded is not silently taken for the clip."""
    path = write_video(tmp_path / "clip.mkv", count=60)
    content = bytearray(path.read_bytes())
    third = len(content) // 6
    content[third:-200] = bytes(len(content) - 200 - third)
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"damaged|cut off"):
        list(load_frames(path, FrameSampling("uniform", 8)))


def test_without_pyav_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"something")
    picture = write_picture(tmp_path / "clip.gif")
    actual = builtins.__import__

    def absent(name, *arguments, **options):
        if name.split(".")[0] == "av":
            raise ImportError("No module named 'av'")
        return actual(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.delitem(sys.modules, "av", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install xmodaler\[video\]"):
        load_frames(path, FrameSampling("uniform", 4))
    assert len(list(load_frames(picture, FrameSampling("uniform", 4)))) == 4  # needs no PyAV
