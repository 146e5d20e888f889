"""What ``tools/predict.py`` does with its arguments."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.inference.answerer import Answer, Answerer
from xmodaler.inference.captioner import Caption, Captioner
from xmodaler.inference.chooser import Choice, Chooser
from xmodaler.inference.comparer import Comparer, Comparison
from xmodaler.inference.grounder import Grounder, Grounding
from xmodaler.inference.loading import load
from xmodaler.inference.retriever import Ranking, Retriever
from xmodaler.inference.vector_retriever import VectorRetriever
from xmodaler.utils.errors import UserError

__all__ = ["predict"]

Result = Caption | Answer | Choice | Ranking | Grounding | Comparison
OnError = Callable[[str, UserError], None]


def predict(
    weights: str | Sequence[str],
    pictures: Sequence[str],
    *,
    question: Sequence[str] = (),
    choices: Sequence[str] = (),
    given: str = "",
    objects: Sequence[str] = (),
    texts: Sequence[str] = (),
    phrase: Sequence[str] = (),
    statement: Sequence[str] = (),
    draw: str = "",
    index: str = "",
    jsonl: str | None = None,
    config: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    model_weights: Sequence[float] | None = None,
    **options: Any,
) -> int:
    """Captions, asks about, or searches files, folders and lists, and prints or writes the results.

    A picture that cannot be read is reported in one line on standard error; the others go on all
    the same.

    Args:
        weights: Output folder or weights file; several make an ensemble of captioners.
        pictures: Files, folders, ``.txt`` lists.
        question: Questions to ask about the pictures.
        choices: Answers to choose from.
        given: An answer, for which ``choices`` are reasons.
        objects: Classes of the objects that texts refer to as ``[0]``, ``[1]``.
        texts: Texts to search pictures with, or, with ``by="picture"``, to be found by pictures; a
            ``.txt`` file stands for its lines.
        phrase: What to find in the pictures.
        statement: What to tell of pictures, two by two, whether it is true.
        draw: A folder for pictures with the boxes of phrases.
        index: A file that keeps the vectors of pictures; made or extended, then searched.
        jsonl: A file for JSON lines, ``"-"`` for JSON lines on standard output, None for text.
        config: Config of a weights file.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        model_weights: How much each model of an ensemble counts; None: all alike.
        **options: Of ``caption``, ``answer``, ``choose``, ``retrieve``, ``ground`` or ``compare``,
            whichever is done.

    Returns:
        The exit code: 1 if any picture could not be read, else 0.

    Raises:
        UserError: The arguments do not go together, or the model cannot do what they ask for.
    """
    task = _pixel_task(phrase, statement, [*question, *texts])
    task = task or _task(question, choices, given, texts, index)
    if draw and task != "ground":
        raise UserError("--draw keeps pictures with boxes; give --phrase too")
    _check_options(task, options)
    if not pictures and not (task == "retrieve" and os.path.isfile(index)):
        raise UserError("no picture is given; name files, folders or .txt lists")
    bad: list[str] = []

    def report(name: str, error: UserError) -> None:
        bad.append(name)
        message = str(error)
        print(message if name in message else f"{name}: {message}", file=sys.stderr, flush=True)

    if not isinstance(weights, str) and len(weights) == 1 and model_weights is None:
        (weights,) = weights
    loaded = load(
        weights, device=device, config=config, precision=precision, model_weights=model_weights
    )
    if not isinstance(loaded, _KINDS[task]):
        loaded.refuse(task)
    with _output(jsonl) as file:
        source = pictures[0] if len(pictures) == 1 else list(pictures)
        results: Iterable[Result]
        if task == "caption":
            results = loaded.stream(source, on_error=report, **options)
        elif task == "answer":
            results = loaded.stream(source, list(question), on_error=report, **options)
        elif task == "choose":
            asked, offered, known = _with_objects([question, choices, [given]], bool(objects))
            results = loaded.stream(
                source, asked, offered, objects, known[0], on_error=report, **options
            )
        elif task == "ground":
            results = loaded.stream(source, list(phrase), on_error=report, **options)
        elif task == "compare":
            results = _compared(loaded, pictures, list(statement), report, **options)
        else:
            results = _retrieved(loaded, source, texts, index, report, **options)
        for result in results:
            file.write(_line(result, jsonl is not None))
            file.flush()
            if draw:
                _save_drawing(result, draw)
    return 1 if bad else 0


_KINDS = {
    **{"caption": Captioner, "answer": Answerer, "choose": Chooser, "retrieve": Retriever},
    **{"ground": Grounder, "compare": Comparer},
}
_OPTIONS = {
    "caption": ("beam_size", "batch_size", "num_return", "sample"),
    "answer": ("top_k", "batch_size"),
    "choose": ("batch_size",),
    "ground": ("batch_size",),
    "compare": ("batch_size",),
    "retrieve": ("top_k", "batch_size", "by"),
}


def _task(
    question: Sequence[str], choices: Sequence[str], given: str, texts: Sequence[str], index: str
) -> str:
    if question and texts:
        raise UserError(
            "--question asks about pictures and --texts searches them; give one of them"
        )
    if (choices or given) and not question:
        raise UserError("--choices and --given belong to a question; give --question too")
    if given and not choices:
        raise UserError("--given is an answer, for which --choices are reasons; give --choices too")
    if index and not texts:
        raise UserError("--index keeps pictures to be searched; give --texts to search them with")
    if texts:
        return "retrieve"
    return "choose" if choices else "answer" if question else "caption"


def _pixel_task(phrase: Sequence[str], statement: Sequence[str], others: Sequence[str]) -> str:
    if not (phrase or statement):
        return ""
    if others or (phrase and statement):
        raise UserError(
            "--phrase finds things in pictures and --statement compares pictures; give one of them "
            "alone"
        )
    return "ground" if phrase else "compare"


def _check_options(task: str, options: dict[str, Any]) -> None:
    for name in options:
        if name not in _OPTIONS[task]:
            owners = [other for other, names in _OPTIONS.items() if name in names]
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is an option to {' and '.join(owners)}, not to {task}")


def _with_objects(groups: Sequence[Sequence[str]], are_there: bool) -> list[list[Any]]:
    """Texts with ``[0]`` and ``[0,1]`` as lists of numbers, where there are objects to refer to."""
    if not are_there:
        return [list(texts) for texts in groups]
    return [[_parts(text) if text else text for text in texts] for texts in groups]


def _parts(text: str) -> list[Any]:
    pieces = re.split(r"\[(\d+(?:\s*,\s*\d+)*)\]", text)
    # Every other piece is what the brackets hold.
    parts = [
        [int(number) for number in piece.split(",")] if place % 2 else piece.strip()
        for place, piece in enumerate(pieces)
    ]
    return [part for part in parts if part != ""]


def _compared(
    loaded: Comparer,
    pictures: Sequence[str],
    statements: list[str],
    report: OnError,
    **options: Any,
) -> Iterable[Comparison]:
    """Pictures two by two."""
    if len(pictures) % 2:
        raise UserError(
            f"{len(pictures)} pictures do not make pairs; give two for every comparison, one after "
            "the other"
        )
    return loaded.compare(
        list(pictures[::2]), list(pictures[1::2]), statements, on_error=report, **options
    )


def _save_drawing(found: Grounding, folder: str) -> None:
    """The picture with its box, under a name that says what was searched."""
    os.makedirs(folder, exist_ok=True)
    stem = os.path.splitext(os.path.basename(found.id))[0]
    words = re.sub(r"\W+", "-", found.phrase.lower()).strip("-")[:60]
    found.save(os.path.join(folder, f"{stem}_{words}.png"))


def _retrieved(
    loaded: Retriever,
    pictures: Any,
    texts: Sequence[str],
    index: str,
    report: OnError,
    by: str = "text",
    **options: Any,
) -> Iterable[Ranking]:
    found = list(_texts(texts))
    if by == "picture":
        if index:
            raise UserError("--index is searched by text; leave out --by picture")
        rankings = loaded.retrieve([*_listed(pictures)], found, by=by, on_error=report, **options)
    else:
        pool = _extended(loaded, pictures, index, report) if index else pictures
        rankings = loaded.retrieve(found, pool, by=by, on_error=report, **options)
    return rankings


def _listed(pictures: str | list[str]) -> list[str]:
    return [pictures] if isinstance(pictures, str) else pictures


def _extended(loaded: Retriever, pictures: Any, path: str, report: OnError) -> VectorIndex:
    """The index at a path with what it lacks of the pictures, kept there."""
    if not isinstance(loaded, VectorRetriever):
        raise UserError(
            f"--index needs a model with a vector for each picture, but {loaded!r} has none"
        )
    known = VectorIndex.load(path) if os.path.isfile(path) else None
    if known is not None and not pictures:
        return known
    extended = loaded.index(pictures, into=known, on_error=report)
    extended.save(path)
    return extended


def _texts(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        if not text.lower().endswith(".txt"):
            yield text
            continue
        try:
            with open(text, encoding="utf-8-sig") as file:
                yield from (line.strip() for line in file if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the list of texts '{text}' cannot be read: {error}") from error


def _line(result: Result, as_json: bool) -> str:
    if as_json:
        return json.dumps(result.as_dict(), ensure_ascii=False) + "\n"
    if isinstance(result, Caption):
        rows = [(result.id, sentence.text) for sentence in [result, *result.alternatives]]
    elif isinstance(result, Answer):
        rows = [(result.id, result.question, text, f"{share:.4f}") for text, share in result]
    elif isinstance(result, Grounding):
        rows = [(result.id, result.phrase, *(f"{side:.1f}" for side in result.box))]
    elif isinstance(result, Comparison):
        rows = [(*result.ids, result.statement, str(result), f"{result.probability:.4f}")]
    elif isinstance(result, Choice):
        rows = [(result.id, result.question, result.text, f"{result.probability:.4f}")]
    else:
        ranked = enumerate(result, 1)
        rows = [(result.query, str(place), hit.id, f"{hit.score:.4f}") for place, hit in ranked]
    return "".join("\t".join(row) + "\n" for row in rows)


@contextlib.contextmanager
def _output(jsonl: str | None) -> Iterator[IO[str]]:
    if jsonl is None or jsonl == "-":
        yield sys.stdout
        return
    from xmodaler.utils.atomic import atomic_write

    with atomic_write(jsonl, "w") as file:
        yield file
