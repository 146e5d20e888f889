"""Saving, loading, resuming, and what happens with files that do not fit or are broken."""

import errno
import logging
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from xmodaler import checkpoint as ck
from xmodaler.checkpoint import files
from xmodaler.utils.errors import UserError


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)


class Counter:
    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def fill(model, value):
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)
    return model


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_save_then_a_second_process_resumes(tmp_path):
    model, trainer = fill(Net(), 0.5), Counter()
    trainer.count = 7
    checkpointer = ck.XmodalerCheckpointer(model, str(tmp_path), trainer=trainer)
    assert not checkpointer.has_checkpoint()
    assert checkpointer.resume_or_load("", resume=True) == {}
    checkpointer.save("model_00", iteration=41, note="x")
    assert (tmp_path / "last_checkpoint").read_text() == "model_00.pth"
    saved = torch.load(tmp_path / "model_00.pth", weights_only=True)
    assert set(saved) == {"model", "trainer", "iteration", "note"}

    other, counter = fill(Net(), 0.1), Counter()
    second = ck.XmodalerCheckpointer(other, str(tmp_path), trainer=counter)
    assert second.has_checkpoint()
    assert second.get_checkpoint_file() == str(tmp_path / "model_00.pth")
    assert second.get_all_checkpoint_files() == [str(tmp_path / "model_00.pth")]
    rest = second.resume_or_load("does/not/matter.pth", resume=True)
    assert rest == {"iteration": 41, "note": "x"}
    assert equal(model, other) and counter.count == 7


def test_without_resume_only_the_weights_are_loaded(tmp_path):
    model, trainer = fill(Net(), 0.5), Counter()
    trainer.count = 7
    ck.XmodalerCheckpointer(model, str(tmp_path), trainer=trainer).save("a", iteration=3)
    other, counter = Net(), Counter()
    checkpointer = ck.XmodalerCheckpointer(other, str(tmp_path), trainer=counter)
    rest = checkpointer.resume_or_load(str(tmp_path / "a.pth"), resume=False)
    assert equal(model, other) and counter.count == 0
    assert rest["iteration"] == 3 and rest["trainer"] == {"count": 7}


def test_nothing_is_written_without_folder_or_permission(tmp_path):
    ck.XmodalerCheckpointer(Net()).save("a")
    ck.XmodalerCheckpointer(Net(), str(tmp_path), save_to_disk=False).save("a")
    assert list(tmp_path.iterdir()) == []


def test_documented_names_exist():
    assert ck.XmodalerCheckpoint is ck.XmodalerCheckpointer
    assert ck.PeriodicEpochCheckpoint is ck.PeriodicEpochCheckpointer
    assert issubclass(ck.XmodalerCheckpointer, ck.Checkpointer)


def test_wrappers_leave_no_trace_in_the_file(tmp_path):
    model = nn.DataParallel(Net())
    ck.XmodalerCheckpointer(model, str(tmp_path)).save("a")
    assert set(files.read_checkpoint(tmp_path / "a.pth")["model"]) == set(Net().state_dict())
    compiled = torch.compile(Net(), backend="eager")
    assert not isinstance(ck.XmodalerCheckpointer(compiled).model, type(compiled))


@pytest.mark.parametrize(
    "layout",
    ["model", "bare", "module.", "_orig_mod.", "state_dict", "numpy", "pkl", "safetensors"],
)
def test_layouts_of_other_programs(layout, tmp_path):
    source = fill(Net(), 0.25)
    state = source.state_dict()
    path = tmp_path / "w.pth"
    if layout in ("model", "state_dict"):
        torch.save({layout: state, "epoch": 3}, path)
    elif layout == "bare":
        torch.save(state, path)
    elif layout == "numpy":
        arrays = {k: v.numpy() for k, v in state.items()}
        torch.save({"model": arrays, "score": np.float64(0.5)}, path)
    elif layout == "pkl":
        path = tmp_path / "w.pkl"
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}))
    elif layout == "safetensors":
        path = tmp_path / "w.safetensors"
        ck.save_weights(source, path)
    else:
        torch.save({layout + k: v for k, v in state.items()}, path)
    model = Net()
    ck.XmodalerCheckpointer(model).load(str(path), strict=True)
    assert equal(model, source)
    assert {k: v.shape for k, v in ck.load_weights(path).items()} == {
        k: v.shape for k, v in state.items()
    }


def test_shared_weights_survive_safetensors(tmp_path):
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    ck.save_weights(model, tmp_path / "w.safetensors", {"note": "tied"})
    assert set(ck.load_weights(tmp_path / "w.safetensors")) == {"0.weight", "1.weight"}
    # Files of other programs hold one name of a shared weight: the other one is not missing.
    ck.save_weights({"0.weight": torch.ones(5, 3)}, tmp_path / "one.safetensors")
    ck.XmodalerCheckpointer(model).load(str(tmp_path / "one.safetensors"), strict=True)
    assert torch.equal(model[1].weight, torch.ones(5, 3))


def test_weights_that_do_not_fit_are_reported(tmp_path, caplog):
    source = fill(Net(), 0.25).state_dict()
    source["embedding.weight"] = source.pop("embed.weight")
    source["head.weight"] = torch.zeros(2, 9)
    torch.save(source, tmp_path / "w.pth")
    model = fill(Net(), 1.0)
    with caplog.at_level(logging.INFO, logger="xmodaler"):
        ck.XmodalerCheckpointer(model).load(str(tmp_path / "w.pth"))
    assert torch.all(model.norm.weight == 0.25) and torch.all(model.head.weight == 1.0)
    assert "Loaded 4 of 6 weights" in caplog.text
    assert "missing     embed.weight (4, 3)" in caplog.text
    assert "nearest in the file: embedding.weight" in caplog.text
    assert "unexpected  embedding.weight (4, 3)" in caplog.text
    assert "(2, 9) in the file, (2, 4) in the model" in caplog.text
    assert any(record.levelno == logging.WARNING for record in caplog.records)


def test_strict_refuses_and_leaves_the_model_alone(tmp_path):
    source = Net().state_dict()
    del source["embed.bias"]
    torch.save(source, tmp_path / "w.pth")
    model = fill(Net(), 1.0)
    with pytest.raises(UserError, match=r"does not fit.*1 missing \(such as 'embed.bias'\)"):
        ck.XmodalerCheckpointer(model).load(str(tmp_path / "w.pth"), strict=True)
    assert equal(model, fill(Net(), 1.0))


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"no weight of this Net.*'weight'.*'embed.weight'"):
        ck.XmodalerCheckpointer(Net()).load(str(tmp_path / "w.pth"))


def test_rename_tables(tmp_path):
    source = fill(Net(), 0.25).state_dict()
    old = {"bert." + k.replace("norm.weight", "norm.gamma"): v for k, v in source.items()}
    old = {k.replace("norm.bias", "norm.beta"): v for k, v in old.items()}
    old["bert.extra"] = torch.zeros(1)
    torch.save(old, tmp_path / "w.pth")
    model = Net()
    rules = [(r"extra$", None), (r"^bert\.", ""), (r"\.gamma$", ".weight"), (r"\.beta$", ".bias")]
    ck.XmodalerCheckpointer(model).load(str(tmp_path / "w.pth"), strict=True, rename=rules)
    assert torch.all(model.norm.weight == 0.25)


def test_bert_table_and_its_errors():
    keys = ["a.LayerNorm.gamma", "a.LayerNorm.beta", "a.dense.gamma", "norm1.beta"]
    renamed = ck.rename_keys(dict.fromkeys(keys), "bert")
    expected = ["a.LayerNorm.weight", "a.LayerNorm.bias", "a.dense.gamma", "norm1.bias"]
    assert list(renamed) == expected
    with pytest.raises(UserError, match="did you mean 'bert'"):
        ck.rename_keys({}, "brt")
    with pytest.raises(UserError, match="same name 'x'"):
        ck.rename_keys({"a": 0, "b": 0}, [(r"[ab]", "x")])
    with pytest.raises(UserError, match="no regular expression"):
        ck.rename_keys({}, [("(", "")])
    with pytest.raises(UserError, match="registered already"):
        ck.register_rename_table("bert", [])


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".bin"])
@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_malicious_file_executes_nothing(suffix, writer, tmp_path):
    path, proof = tmp_path / f"w{suffix}", tmp_path / "executed"
    content = {"model": {"a": torch.zeros(1)}, "x": Malicious(proof)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"x": Malicious(proof)}))
    with pytest.raises(UserError):
        ck.XmodalerCheckpointer(Net()).load(str(path))
    assert not proof.exists()


def test_the_refused_name_is_told(tmp_path):
    torch.save({"x": Malicious(tmp_path / "executed")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"names 'posix.mkdir', which is refused"):
        files.read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", r"is empty \(0 bytes\)"),
        ("page.pth", b"<!DOCTYPE html><html>404</html>", "web page"),
        ("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("noise.pth", b"\x00\x01\x02noise" * 50, "damaged, incomplete, or no torch checkpoint"),
        ("text.pth", b"not weights at all", "damaged, incomplete, or no torch checkpoint"),
        ("noise.safetensors", b"\xff" * 64, "no safetensors file"),
    ],
)
def test_broken_files_are_one_sentence(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        ck.XmodalerCheckpointer(Net()).load(str(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_folders_and_foreign_content(tmp_path):
    load = ck.XmodalerCheckpointer(Net()).load
    torch.save(torch.zeros(3), tmp_path / "model_final.pth")
    with pytest.raises(UserError, match=r"does not exist; did you mean 'model_final.pth'"):
        load(str(tmp_path / "model_fnal.pth"))
    with pytest.raises(UserError, match=r"is a folder; name a weights file.*model_final.pth"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="holds a Tensor"):
        load(str(tmp_path / "model_final.pth"))
    torch.save({"epoch": 3, "w": torch.zeros(1)}, tmp_path / "mixed.pth")
    with pytest.raises(UserError, match=r"holds a int under 'epoch'"):
        load(str(tmp_path / "mixed.pth"))
    for cut in (1, 200, 1000):
        torch.save(Net().state_dict(), tmp_path / "cut.pth")
        data = (tmp_path / "cut.pth").read_bytes()
        (tmp_path / "cut.pth").write_bytes(data[:-cut])
        with pytest.raises(UserError, match=r"damaged, incomplete"):
            load(str(tmp_path / "cut.pth"))


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = b""
    else:
        with zipfile.ZipFile(path) as archive:
            entry = next(i for i in archive.infolist() if "/data/" in i.filename)
        # Behind the local header of the entry lie its name, padding, and then the numbers.
        position = entry.header_offset + 200
        data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "empty", "flip", "gone"])
def test_resume_falls_back_to_the_previous_complete_checkpoint(how, tmp_path, caplog):
    model, trainer = Net(width=64), Counter()
    checkpointer = ck.XmodalerCheckpointer(model, str(tmp_path), trainer=trainer)
    for step in (1, 2):
        trainer.count = step
        fill(model, step)
        checkpointer.save(f"model_{step}", iteration=step)
        os.utime(tmp_path / f"model_{step}.pth", (step, step))
    ck.save_weights(model, tmp_path / "model_best.pth")
    newest = tmp_path / "model_2.pth"
    newest.unlink() if how == "gone" else damage(newest, how)

    other, counter = Net(width=64), Counter()
    second = ck.XmodalerCheckpointer(other, str(tmp_path), trainer=counter)
    with caplog.at_level(logging.WARNING, logger="xmodaler"):
        rest = second.resume_or_load("", resume=True)
    assert rest["iteration"] == 1 and counter.count == 1
    assert torch.all(other.embed.weight == 1)
    assert "RESUMING FROM AN OLDER CHECKPOINT" in caplog.text
    assert (tmp_path / "last_checkpoint").read_text() == "model_1.pth"


def test_resume_without_any_complete_checkpoint_is_an_error(tmp_path):
    checkpointer = ck.XmodalerCheckpointer(Net(), str(tmp_path))
    checkpointer.save("model_1")
    damage(tmp_path / "model_1.pth", "cut")
    with pytest.raises(UserError, match="no complete checkpoint"):
        checkpointer.resume_or_load("", resume=True)


def test_a_first_checkpoint_without_pointer_is_found(tmp_path):
    model = fill(Net(), 0.5)
    checkpointer = ck.XmodalerCheckpointer(model, str(tmp_path))
    checkpointer.save("model_Epoch_00001_Iter_0000004", iteration=4)
    (tmp_path / "last_checkpoint").unlink()
    other = Net()
    second = ck.XmodalerCheckpointer(other, str(tmp_path))
    assert second.resume_or_load("", resume=True) == {"iteration": 4}
    assert equal(model, other)


def test_a_state_that_does_not_fit_the_run(tmp_path):
    class Picky(Counter):
        def load_state_dict(self, state):
            raise ValueError("different number of parameter groups")

    checkpointer = ck.XmodalerCheckpointer(Net(), str(tmp_path), trainer=Picky())
    checkpointer.save("a")
    with pytest.raises(UserError, match=r"'trainer' in .* does not fit this run"):
        checkpointer.resume_or_load("", resume=True)


def test_only_what_can_be_loaded_is_saved(tmp_path):
    checkpointer = ck.XmodalerCheckpointer(Net(), str(tmp_path))
    with pytest.raises(UserError, match=r"pathlib\.\w+ under 'extra.1.where'"):
        checkpointer.save("a", extra=[0, {"where": tmp_path}])
    assert list(tmp_path.iterdir()) == []
    plain = {
        "none": None, "flag": True, "int": 3, "float": 0.5, "complex": 1j, "text": "ü", "raw": b"x",
        "list": [1, (2, {"k": 3})], "set": {1, 2}, "size": torch.Size([2]), "dtype": torch.float16,
        "device": torch.device("cpu"), "array": np.arange(3), "scalar": np.float64(0.5),
        "bool": np.bool_(True), "half": np.zeros(2, np.float16), 5: "five",
    }  # fmt: skip
    checkpointer.save("a", **{"extra": plain})
    back = checkpointer.load(str(tmp_path / "a.pth"))["extra"]
    assert np.array_equal(back.pop("array"), plain.pop("array"))
    assert np.array_equal(back.pop("half"), plain.pop("half"))
    assert back == plain


def test_bad_names_and_checkpointables():
    checkpointer = ck.XmodalerCheckpointer(Net(), "somewhere", trainer=Counter())
    with pytest.raises(UserError, match="without folders"):
        checkpointer.save("a/b")
    with pytest.raises(UserError, match="already"):
        checkpointer.add_checkpointable("trainer", Counter())
    with pytest.raises(UserError, match="state_dict and load_state_dict"):
        checkpointer.add_checkpointable("x", object())


@pytest.mark.parametrize("fails", ["write", "fsync", "pointer"])
def test_a_full_disk_keeps_the_old_checkpoint(fails, tmp_path, monkeypatch):
    model = fill(Net(), 1.0)
    checkpointer = ck.XmodalerCheckpointer(model, str(tmp_path))
    checkpointer.save("model_1")
    before = sorted(p.name for p in tmp_path.iterdir())
    good = (tmp_path / "model_1.pth").read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*args):
        raise full

    real_save = torch.save
    if fails == "write":

        def half_a_save(content, file):
            file.write(b"half")
            raise full

        monkeypatch.setattr(torch, "save", half_a_save)
    elif fails == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:

        def then_full(content, file):
            real_save(content, file)
            monkeypatch.setattr(os, "replace", refuse)

        monkeypatch.setattr(torch, "save", then_full)
    with pytest.raises(UserError, match="disk is full"):
        checkpointer.save("model_1" if fails == "write" else "model_2")
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "model_1.pth").read_bytes() == good
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_1.pth")


LIMITED = """
import resource, signal, sys, torch
from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.utils.errors import UserError
checkpointer = XmodalerCheckpointer(torch.nn.Linear(300, 300), sys.argv[1])
checkpointer.save("model_1")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpointer.save("model_2")
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_FSIZE")
def test_a_save_that_runs_out_of_room_halfway(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "model_2.pth" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_1.pth"]
    model = nn.Linear(300, 300)
    ck.XmodalerCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)
