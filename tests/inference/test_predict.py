"""The command line on good, odd and bad pictures."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.cli import run_cli

ROOT = Path(__file__).resolve().parents[2]


def tool(name):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


PREDICT = tool("predict")


def predict(run, *arguments):
    return run_cli(PREDICT, ["--weights", str(run), "--device", "cpu", *map(str, arguments)])


def png_of_size(width, height):
    """A PNG that declares a size; of its pixels nothing is there."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(folder / "plain.png")
    image.convert("L").save(folder / "grey.png")
    image.convert("RGBA").save(folder / "alpha.png")
    image.save(folder / "film.gif", save_all=True, append_images=[image.rotate(90)])
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif, quality=95)
    return folder


@pytest.fixture
def bad_pictures(tmp_path, pictures):
    folder = tmp_path / "bad"
    folder.mkdir()
    whole = (pictures / "plain.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("a text that was renamed")
    (folder / "huge.png").write_bytes(png_of_size(100_000, 100_000))
    return folder


def test_text_lines(picture_run, pictures, capsys):
    assert predict(picture_run, pictures) == 0
    output = capsys.readouterr()
    lines = [line.split("\t") for line in output.out.splitlines()]
    names = [os.path.basename(path) for path, _ in lines]
    assert names == ["alpha.png", "deep.png", "film.gif", "grey.png", "plain.png", "turned.jpg"]
    assert output.err == ""
    by_name = {os.path.basename(path): caption for path, caption in lines}
    assert by_name["plain.png"] == by_name["alpha.png"]


def test_rotation_is_applied(picture_run, pictures, capsys):
    with Image.open(pictures / "turned.jpg") as image:
        upright = image.transpose(Image.Transpose.ROTATE_270)
        upright.save(pictures / "upright.png")
    arguments = [pictures / "turned.jpg", pictures / "upright.png", "--jsonl", "-"]
    assert predict(picture_run, *arguments) == 0
    turned, upright = map(json.loads, capsys.readouterr().out.splitlines())
    assert turned["caption"] == upright["caption"]
    assert turned["score"] == pytest.approx(upright["score"], abs=1e-3)


def test_bad_pictures_are_reported_and_the_rest_captioned(
    picture_run, pictures, bad_pictures, capsys
):
    missing = bad_pictures / "missing.png"
    code = predict(picture_run, bad_pictures, missing, pictures / "plain.png", "--batch-size", 2)
    output = capsys.readouterr()
    assert code == 1
    assert [line.split("\t")[0] for line in output.out.splitlines()] == [
        str(pictures / "plain.png")
    ]
    lines = output.err.splitlines()
    assert len(lines) == 5
    for name, reason in (
        ("empty.jpg", "empty"),
        ("huge.png", "too large|too many pixels"),
        ("text.jpg", "format"),
        ("truncated.png", "truncated or damaged"),
        ("missing.png", "does not exist"),
    ):
        (line,) = [line for line in lines if name in line]
        assert any(word in line for word in reason.split("|")), line
        assert "Traceback" not in line


def test_json_lines(picture_run, pictures, tmp_path, capsys):
    target = tmp_path / "out" / "captions.jsonl"
    arguments = [pictures / "plain.png", pictures / "grey.png", "--jsonl", target]
    assert predict(picture_run, *arguments, "--num-return", 2, "--beam-size", 4) == 0
    records = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [record["image"] for record in records] == [str(path) for path in arguments[:2]]
    for record in records:
        assert set(record) == {"image", "caption", "score", "alternatives"}
        assert record["score"] >= record["alternatives"][0]["score"]
    assert capsys.readouterr().out == ""


def test_lists_and_sampling(picture_run, pictures, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("pictures/plain.png\npictures/film.gif\n")
    outputs = []
    for _ in range(2):
        assert predict(picture_run, tmp_path / "list.txt", "--sample", "--seed", 3) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and len(outputs[0].splitlines()) == 2


def test_features(feature_run, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", features=np.random.default_rng(0).normal(size=(3, 6)))
    np.save(tmp_path / "wide.npy", np.zeros((3, 7)))
    assert predict(feature_run, tmp_path) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 1
    assert "wide.npy" in output.err and "IN_DIM is 6" in output.err


def test_mistakes_end_with_one_sentence(picture_run, pictures, tmp_path, capsys):
    for arguments in (
        [tmp_path, pictures / "plain.png"],
        [picture_run, pictures, "--beam-size", 0],
        [picture_run, pictures, "--jsonl", pictures],
    ):
        assert predict(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and len(error.splitlines()) == 1


def test_help_is_quick_to_import():
    code = (
        "import runpy, sys; sys.argv = ['predict.py', '--help']\n"
        "try: runpy.run_path('tools/predict.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--beam-size" in done.stdout
