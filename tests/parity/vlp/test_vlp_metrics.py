"""Ranks, recalls and accuracies of the reference on given scores and answers."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from xmodaler.config import get_cfg
from xmodaler.evaluation import RetrievalEvaler, VCREvaler, VQAEvaler
from xmodaler.evaluation.retrieval import itm_eval


@pytest.fixture(scope="module")
def folder(vlp_shared):
    return vlp_shared / "metrics"


@pytest.fixture(scope="module")
def given(folder):
    return load_file(str(folder / "inputs.safetensors"))


@pytest.fixture(scope="module")
def expected(folder):
    return load_file(str(folder / "expected.safetensors"))


@pytest.fixture(scope="module")
def released(folder):
    return json.loads((folder / "meta.json").read_text())["results"]


@pytest.fixture(scope="module")
def answers(folder):
    return json.loads((folder / "vqa_vcr.json").read_text())


def retrieval_cases(given):
    return sorted({name.split("/")[0] for name in given if name.endswith("/vfeats")})


def test_ranks_and_recalls_of_retrieval(given, expected, released):
    assert retrieval_cases(given)
    for case in retrieval_cases(given):
        images, texts, labels = (given[f"{case}/{name}"] for name in ("vfeats", "tfeats", "labels"))
        evaler = RetrievalEvaler()
        metrics = evaler.eval(images, texts, labels)
        ranks = expected[f"{case}/rank_of_match"]
        np.testing.assert_array_equal(evaler.text_ranks, ranks)
        # The reference ranks nothing below one hundred captions.
        if len(texts) >= 100:
            for name, value in released[case].items():
                assert metrics[name] == pytest.approx(value), (case, name)
        for k in (1, 5, 10):
            assert metrics[f"r{k}"] == pytest.approx(100 * (ranks < k).mean())


def test_recalls_of_matching_scores(given, released):
    metrics = itm_eval(given["itm/score_matrix"], given["itm/gt"])
    for name, value in released["itm"].items():
        assert metrics[name] == pytest.approx(value), name


def test_vqa_accuracy_and_result_file(answers, tmp_path):
    vqa = answers["vqa"]
    (tmp_path / "trainval_label2ans.pkl").write_bytes(pickle.dumps(vqa["label2ans"]))
    (tmp_path / "targets.pkl").write_bytes(pickle.dumps(vqa["annotations"]))
    cfg = get_cfg()
    cfg.DATALOADER.ANNO_FOLDER = str(tmp_path)
    cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE = "question_id", "answer"
    evaler = VQAEvaler(cfg, str(tmp_path / "targets.pkl"), str(tmp_path))
    epoch = int(Path(vqa["output_file"]).stem)
    accuracy = evaler.eval(vqa["predictions"], epoch)["accuracy"]
    assert accuracy == pytest.approx(vqa["expected"]["accuracy"])
    assert json.loads((tmp_path / vqa["output_file"]).read_text()) == vqa["output_content"]
    stranger = [*vqa["predictions"], {"question_id": 10**9, "answer": 0}]
    assert evaler.eval(stranger, epoch) == vqa["with_one_unknown_question"]


def test_vcr_accuracies(answers):
    cfg = get_cfg()
    cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE = "question_id", "answer"
    vcr = answers["vcr"]
    metrics = VCREvaler(cfg).eval([vcr["q2a"], vcr["qa2r"]])
    assert metrics == pytest.approx(vcr["expected"])
