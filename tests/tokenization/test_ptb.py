"""The Python PTB tokenizer against recorded and live answers of the Java one."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.tokenization import PTBTokenizer
from xmodaler.tokenization.ptb import PUNCTUATION

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR", ROOT.parent / "shared" / "data"))
GOLDEN = Path(__file__).with_name("ptb_golden.tsv")
TOKENIZER = PTBTokenizer()


def golden_cases():
    for line in GOLDEN.read_text(encoding="utf-8").split("\n"):
        if line and not line.startswith("# caption<TAB>"):
            caption, tokens = line.split("\t")
            caption = caption.replace("\\\\", "\0").replace("\\t", "\t").replace("\0", "\\")
            yield caption, [token for token in tokens.split(" ") if token]


def test_agrees_with_java_on_disagreement_prone_snippets():
    cases = list(golden_cases())
    assert len(cases) > 300
    wrong = [
        (caption, TOKENIZER.tokenize(caption), tokens)
        for caption, tokens in cases
        if TOKENIZER.tokenize(caption) != tokens
    ]
    assert not wrong


def test_an_initial_at_the_end_depends_on_the_next_caption():
    reads_k = "A sign that reads K."
    assert TOKENIZER.tokenize(reads_k)[-1] == "k."
    assert TOKENIZER.tokenize_document([reads_k, "A dog ."])[0][-1] == "k"
    assert TOKENIZER.tokenize_document([reads_k, "dogs ."])[0][-1] == "k."


def test_line_breaks_inside_a_caption_do_not_shift_the_next():
    lines = TOKENIZER.tokenize_document(["a\nb\r\nc", "", "d\u2028e\x85", "f"])
    assert lines == [["a", "b", "c"], [], ["d", "e"], ["f"]]
    assert TOKENIZER.tokenize_document([]) == []


def test_calling_is_tokenizing():
    assert TOKENIZER("It's 5:30pm!") == ["it", "'s", "5:30", "pm"]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_clean_tokens(text):
    tokens = TOKENIZER.tokenize(text)
    assert all(token and token not in PUNCTUATION and "\n" not in token for token in tokens)
    assert all(" " not in token or token.startswith("<") for token in tokens)
    assert all(token == token.lower() for token in tokens)


@pytest.mark.parametrize(
    "text", ["a" * 20_000, "<a " + "b " * 5_000, "a,b-" * 5_000, "'" * 10_000, "<a" + " " * 10_000]
)
def test_hostile_captions_end_in_reasonable_time(text):
    TOKENIZER.tokenize(text)


def java_lines(captions):
    package = pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")
    jar = Path(package.__path__[0]) / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command = ["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase"]
    text = "\n".join(caption.replace("\n", " ") for caption in captions)
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return [
        [token for token in line.rstrip().split(" ") if token and token not in PUNCTUATION]
        for line in done.stdout.decode().split("\n")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "coco_val2017_text/captions_val2017.json",
        "flickr8k/captions.json",
        "flickr8k_features/captions.json",
    ],
)
def test_agrees_with_java_on_every_caption(file):
    if not (DATA / file).is_file():
        pytest.skip(f"{file} is not there (set XMODALER_DATA_DIR)")
    captions = [a["caption"] for a in json.loads((DATA / file).read_text())["annotations"]]
    golden = java_lines(captions)
    assert len(golden) == len(captions)
    assert TOKENIZER.tokenize_document(captions) == golden
