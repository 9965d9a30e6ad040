"""docs/chapter5.ipynb prints what it says that it prints, run as a reader would."""

import ast
import contextlib
import io
import json
import re
import shutil

import pytest

from tests.conftest import ROOT

NOTEBOOK = json.loads((ROOT / "docs" / "chapter5.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
NUMBER = re.compile(r"\d+\.\d+(?:e-?\d+)?")


def stored(cell) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if "text" in output)


def executed(cells, replace=("", "")) -> list[str]:
    """What each cell prints, one after another in one Python."""
    space, printed = {"__name__": "__main__"}, []
    for cell in cells:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            exec(compile("".join(cell["source"]).replace(*replace), "cell", "exec"), space)
        printed.append(output.getvalue())
    return printed


def same(printed: str, expected: str) -> bool:
    """The same words, and the same numbers to the digit before last: another CPU may round the last."""
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, expected)]
    return NUMBER.sub("#", printed) == NUMBER.sub("#", expected) and numbers[0] == pytest.approx(
        numbers[1], rel=2e-4
    )


def test_every_cell_is_python_and_every_import_is_there():
    for cell in CELLS:
        tree = ast.parse("".join(cell["source"]))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = __import__(node.module, fromlist=["_"])
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_chapter_s_numbers_stand_in_the_notebook():
    printed = "".join(map(stored, CELLS))
    for number in ("10.7940", "48725.82", "10.98758", "10.98111", "5145", "'forward': 582", "'forward': 985"):
        assert number in printed
    assert "Every effort moves you rentingetic" in printed


@pytest.mark.slow
def test_a_reader_who_runs_it_sees_what_is_stored(tmp_path, monkeypatch, story):
    shutil.copy(story, tmp_path / "the-verdict.txt")
    monkeypatch.chdir(tmp_path)
    for cell, printed in zip(CELLS, executed(CELLS), strict=True):
        assert same(printed, stored(cell)), (printed, stored(cell))


@pytest.mark.slow
@pytest.mark.whole_chapter
def test_the_long_cell_prints_the_book_s_table(tmp_path, monkeypatch, story):
    from tests.test_chapter5 import TABLE

    shutil.copy(story, tmp_path / "the-verdict.txt")
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in CELLS if "minutes" not in cell["metadata"].get("tags", [])]
    (place,) = [i for i, cell in enumerate(cells) if "training" in cell["metadata"].get("tags", [])]
    printed = executed(cells[: place + 1], ("TRAIN = False", "TRAIN = True"))[-1]
    assert re.findall(r"step\s+(\d+): training ([\d.]+), validation ([\d.]+)", printed) == list(
        zip(*[iter(TABLE.split())] * 3, strict=True)
    )
