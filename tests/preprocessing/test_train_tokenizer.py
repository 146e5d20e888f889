"""Learning a WordPiece vocabulary from captions, questions and plain text."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from xmodaler.preprocessing.text_files import read_texts
from xmodaler.preprocessing.wordpieces import SPECIAL_TOKENS, train_wordpieces, write_tokenizer
from xmodaler.tokenization import BertTokenizer
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = [
    f"a {color} {thing} stands left of the {other}"
    for color in ("red", "green", "yellow", "dark blue")
    for thing in ("circle", "square", "triangle", "Café")
    for other in ("circle", "squares", "triangles")
]


def run_tool(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "train_tokenizer.py", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_same_sentences_give_the_same_pieces_in_any_order() -> None:
    mixed = random.Random(0).sample(SENTENCES, len(SENTENCES))
    assert train_wordpieces(SENTENCES, 120) == train_wordpieces(mixed, 120)


def test_files_do_not_depend_on_process_or_threads(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    contents = set()
    for number, threads in enumerate("113"):
        out = str(tmp_path / f"pieces{number}")
        result = run_tool(
            "--texts", str(tmp_path / "text.txt"), "--out", out, "--vocab-size", "90",
            PYTHONHASHSEED=str(number), RAYON_NUM_THREADS=threads,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        contents.add((Path(out, "vocab.txt").read_text(), Path(out, "tokenizer.json").read_text()))
    assert len(contents) == 1


def test_written_folder_is_read_as_a_tokenizer(tmp_path: Path) -> None:
    pieces = train_wordpieces(SENTENCES, 200, whole_words=["left", "Right"])
    assert tuple(pieces[:5]) == SPECIAL_TOKENS
    assert {"left", "right"} <= set(pieces)
    write_tokenizer(tmp_path / "pieces", pieces)
    tokenizer = BertTokenizer.from_pretrained(str(tmp_path / "pieces"))
    assert tokenizer.vocab_size == len(pieces)
    ids = tokenizer.encode("A RED cafe stands left of the circle")
    assert tokenizer.ids_to_tokens[ids[0]] == "a" and tokenizer.unk_token_id not in ids
    assert tokenizer.encode("left") == [pieces.index("left")]
    from_file = BertTokenizer.from_pretrained(str(tmp_path / "pieces" / "vocab.txt"))
    assert from_file.encode("yellow triangles") == tokenizer.encode("yellow triangles")


def test_letters_never_become_unknown() -> None:
    pieces = train_wordpieces(["zebra quiz"], 60, min_count=100)
    assert {"z", "##z", "q", "##q"} <= set(pieces)


def test_texts_are_found_in_every_kind_of_file(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 1, "split": "train"}, {"id": 2, "split": "test"}],
        "annotations": [
            {"image_id": 1, "caption": "a dog"},
            {"image_id": 2, "caption": "hidden"},
        ],
    }
    karpathy = {"images": [{"split": "train", "sentences": [{"raw": "a cat", "tokens": ["x"]}]}]}
    questions = {"questions": [{"question": "is it red ?", "question_id": 1}]}
    answers = {"annotations": [{"answers": [{"answer": "yes"}], "multiple_choice_answer": "no"}]}
    vcr = {
        "question": ["Why", "is", [0, 1], "here"],
        "answer_choices": [[[0], "waits"], ["runs", "."]],
        "objects": ["person"],
    }
    for name, content in (("coco", coco), ("karpathy", karpathy), ("q", questions), ("a", answers)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "vcr.jsonl").write_text(json.dumps(vcr) + "\n")
    (tmp_path / "f30k.jsonline").write_text('{"img_path": "1.jpg", "sentences": ["two men"]}\n')
    (tmp_path / "cc.tsv").write_text("a view\thttp://x/1.jpg\n")
    names = ["coco.json", "karpathy.json", "q.json", "a.json", "vcr.jsonl", "f30k.jsonline"]
    found = read_texts([tmp_path / name for name in [*names, "cc.tsv"]], "train")
    assert found == [
        "a dog", "a cat", "is it red ?", "yes", "no", "Why is here", "waits", "runs .",
        "two men", "a view",
    ]  # fmt: skip
    with pytest.raises(UserError, match="holds no sentence"):
        read_texts([tmp_path / "a.json"], answers=False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "cannot be read"),
        ("latin.txt", b"caf\xe9", "not UTF-8"),
        ("broken.jsonl", b'{"caption": "a"}\n{"capt', "line 2 is not valid JSON"),
        ("empty.json", b"[]", "holds no sentence"),
        ("blank.txt", b"  \n \n", "holds no sentence"),
    ],
)
def test_bad_text_files_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run_tool("--texts", str(tmp_path / name), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert message in result.stderr and name in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="at least"):
        train_wordpieces(SENTENCES, 20)
    with pytest.raises(UserError, match="no word"):
        train_wordpieces(["", "  "], 100)
    with pytest.raises(UserError, match="not one word"):
        train_wordpieces(SENTENCES, 100, whole_words=["dark blue"])
