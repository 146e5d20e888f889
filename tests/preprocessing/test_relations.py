"""Relation files from boxes and from triples, as the data sets read them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from xmodaler.datasets.feature_store import SideFile
from xmodaler.preprocessing.relations import semantic_matrices, write_relations
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

# The second lies in the first, the third far to the right of both.
BOXES = np.array([[0, 0, 50, 50], [10, 10, 20, 20], [60, 0, 100, 50]], dtype=np.float32)


def run(*arguments):
    spec = importlib.util.spec_from_file_location("rel", ROOT / "tools" / "build_relations.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main([str(argument) for argument in arguments])


@pytest.fixture
def regions(tmp_path):
    folder = tmp_path / "regions"
    folder.mkdir()
    for name in ("7", "file"):
        size = {"image_w": np.array([100]), "image_h": np.array([50])}
        np.savez(folder / f"{name}.npz", features=np.ones((3, 4)), boxes=BOXES, **size)
    return folder


@pytest.mark.parametrize("name", ["relations.npz", "relations.xmf"])
def test_spatial_relations_reach_the_data_sets(regions, tmp_path, name, capsys):
    run("--boxes", regions, "--out", tmp_path / name)
    side_file = SideFile(str(tmp_path / name))
    for item_id in ("7", "file", "007"):
        matrix = np.asarray(side_file.get(item_id))
        assert matrix.shape == (3, 3) and (np.diag(matrix) == 0).all()
        assert (matrix[0, 1], matrix[1, 0]) == (1, 2)
        assert matrix[0, 2] == 11 and matrix[2, 0] == 7
    printed = capsys.readouterr().out
    assert "2 pictures, 6 regions, left out 0; edges by label: 1: 2, 2: 2" in printed


def test_pictures_without_boxes_are_left_out(regions, tmp_path, capsys):
    np.savez(regions / "bare.npz", features=np.ones((3, 4)))
    with pytest.raises(UserError, match=r"1 of 3 records .*, the first: record 'bare': has no box"):
        run("--boxes", regions, "--out", tmp_path / "r.npz")
    with pytest.raises(UserError, match="1 of 3 records are bad"):
        run("--boxes", regions, "--out", tmp_path / "r.xmf")
    run("--boxes", regions, "--out", tmp_path / "r.npz", "--max-bad-fraction", "0.5")
    assert "left out record 'bare': has no boxes, image_w, image_h" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"must end with \.npz"):
        run("--boxes", regions, "--out", tmp_path / "r.pkl")


def test_semantic_relations(tmp_path):
    lines = [
        {"id": 3, "regions": 3, "relations": [[0, 5, 1], [0, 6, 1], [2, 20, 0]]},
        {"id": 4, "regions": 2, "relations": [[0, 5, 2]]},
        {"id": 5, "relations": []},
        {"id": 3, "regions": 1, "relations": []},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n{\n"
    (tmp_path / "t.jsonl").write_text(text)
    summary = write_relations(
        semantic_matrices(tmp_path / "t.jsonl"), tmp_path / "r.npz", max_bad_fraction=0.9
    )
    matrix = SideFile(str(tmp_path / "r.npz")).get("3")
    assert matrix.tolist() == [[0, 5, 0], [0, 0, 0], [20, 0, 0]]
    assert (summary.pictures, summary.edges) == (1, {5: 1, 20: 1})
    problems = [str(problem) for problem in summary.problems]
    assert problems[0] == "t.jsonl line 2: no relations: [0, 5, 2] among 2 regions"
    assert problems[1].startswith("t.jsonl line 3") and problems[3].startswith("t.jsonl line 5")
    assert problems[2] == "record '3': occurs twice"
