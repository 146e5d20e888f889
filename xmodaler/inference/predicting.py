"""What ``tools/predict.py`` does with its arguments."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

from xmodaler.inference.captioner import Caption
from xmodaler.inference.loading import load
from xmodaler.utils.errors import UserError

__all__ = ["predict"]


def predict(
    weights: str | Sequence[str],
    pictures: Sequence[str],
    *,
    jsonl: str | None = None,
    config: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    model_weights: Sequence[float] | None = None,
    **options: Any,
) -> int:
    """Captions files, folders and lists, and prints or writes the captions.

    A picture that cannot be read is reported in one line on standard error; the others are
    captioned all the same.

    Args:
        weights: Output folder or weights file; several make an ensemble.
        pictures: Files, folders, ``.txt`` lists.
        jsonl: A file for JSON lines, ``"-"`` for JSON lines on standard output, None for text.
        config: Config of a weights file.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        model_weights: How much each model of an ensemble counts; None: all alike.
        **options: Of :meth:`Captioner.caption`.

    Returns:
        The exit code: 1 if any picture could not be read, else 0.
    """
    bad: list[str] = []

    def report(name: str, error: UserError) -> None:
        bad.append(name)
        message = str(error)
        print(message if name in message else f"{name}: {message}", file=sys.stderr, flush=True)

    if not isinstance(weights, str) and len(weights) == 1 and model_weights is None:
        (weights,) = weights
    captioner = load(
        weights, device=device, config=config, precision=precision, model_weights=model_weights
    )
    with _output(jsonl) as file:
        for caption in captioner.stream(list(pictures), on_error=report, **options):
            file.write(_line(caption, jsonl is not None))
            file.flush()
    return 1 if bad else 0


def _line(caption: Caption, as_json: bool) -> str:
    if as_json:
        return json.dumps(caption.as_dict(), ensure_ascii=False) + "\n"
    sentences = [caption, *caption.alternatives]
    return "".join(f"{caption.id}\t{sentence.text}\n" for sentence in sentences)


@contextlib.contextmanager
def _output(jsonl: str | None) -> Iterator[IO[str]]:
    if jsonl is None or jsonl == "-":
        yield sys.stdout
        return
    from xmodaler.utils.atomic import atomic_write

    with atomic_write(jsonl, "w") as file:
        yield file
