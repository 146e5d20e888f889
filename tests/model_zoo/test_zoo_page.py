"""The README and the documentation say what the zoo's data say."""

import importlib.util
import re
from pathlib import Path

import pytest

from xmodaler import model_zoo
from xmodaler.model_zoo.page import model_table, replace_block, score_tables
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def tool():
    spec = importlib.util.spec_from_file_location("zoo_tool", ROOT / "tools" / "make_zoo_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(capsys):
    assert tool().main(["--check"]) == 0, capsys.readouterr().out


def test_stale_pages_are_noticed_and_rewritten(tmp_path, monkeypatch, capsys):
    module = tool()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    page = "# Title\n<!-- zoo:begin -->\nold\n<!-- zoo:end -->\nend\n"
    for name in ("README.md", "docs/model_zoo.md"):
        (tmp_path / name).write_text(page)
    assert module.main(["--check"]) == 1
    assert (tmp_path / "README.md").read_text() == page
    assert module.main([]) == 0 and module.main(["--check"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "old" not in text and text.startswith("# Title") and text.endswith("\nend\n")
    assert "README.md, docs/model_zoo.md" in capsys.readouterr().out


def test_every_link_leads_to_a_config():
    links = re.findall(r"\]\((configs/[^)]+)\)", model_table("configs"))
    shapes = {(e.model, e.shapes) for e in map(model_zoo.get_entry, model_zoo.list()) if e.shapes}
    assert len(links) == len(model_zoo.list()) + len(shapes)
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_all_scores_are_shown():
    tables = score_tables()
    for name in model_zoo.list():
        (row,) = (line for line in tables.splitlines() if line.startswith(f"| `{name}`"))
        shown = [cell for cell in row.split(" | ")[1:]]
        values = [f"{value:.1f}" for value in model_zoo.get_entry(name).scores.values()]
        assert [cell.strip(" |") for cell in shown] == (values or ["–"] * len(shown))


def test_a_page_without_a_block_is_refused():
    with pytest.raises(UserError, match="has 0 blocks"):
        replace_block("nothing here", "block", "x.md")
