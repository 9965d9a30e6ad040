"""Pictures of runs, from the folders that they left."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from gpt_pretrain.errors import InputError
from gpt_pretrain.plot import find
from gpt_pretrain.training.plots import comparison_figure


def made(folder, losses):
    (folder / ".hydra").mkdir(parents=True)
    rows = [f"{step},{step * 10},{loss},{0.1 / (step + 1)}" for step, loss in enumerate(losses)]
    (folder / "metrics.csv").write_text("\n".join(["step,tokens_seen,val/loss,lr", *rows]) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        made(tmp_path / "outputs" / "day" / name, losses) for name, losses in (("a", [5, 4]), ("b$_", [5, 3]))
    ]


@pytest.mark.parametrize("format", ["both", "png", "svg"])
def test_one_command_draws_every_run_below_a_folder(typed, tmp_path, runs, format):
    assert typed("plot", "runs=outputs", "out=pictures", f"format={format}")[0] == 0
    kinds = ["png", "svg"] if format == "both" else [format]
    names = ["comparison", "learning_rate", "loss-1", "loss-2"]
    written = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert written == sorted(f"{name}.{kind}" for name in names for kind in kinds)
    for path in (tmp_path / "pictures").iterdir():
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            ElementTree.parse(path)


def test_one_run_alone_has_no_comparison(typed, tmp_path, runs):
    assert typed("plot", f"runs='{runs[0]}'", "format=png")[0] == 0
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"loss.png", "learning_rate.png"}


def test_the_lowest_loss_of_all_is_marked_and_named():
    rows = {
        "a": [{"tokens_seen": 1.0, "val/loss": 3.5}],
        "b": [{"tokens_seen": 9.0, "val/loss": 3.25}, {"step": 1.0}],
    }
    (axes,) = comparison_figure(rows).axes
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([9.0], [3.25])
    assert star.get_label() == "best: 3.250, b"


def test_runs_are_named_by_folders_globs_and_lists(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {path.name for path in find(["outputs"])} == {"a", "b$_"}
    assert [path.name for path in find(["outputs/*/a", "outputs/day/a"])] == ["a"]
    assert [path.name for path in find([str(tmp_path / "outputs" / "*" / "a")])] == ["a"]
    with pytest.raises(InputError, match="no run is there"):
        find(["nowhere"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs=nowhere"], "runs=nowhere: no run is there"),
        (["runs=[]"], "give folders"),
        (["runs=3"], "give folders"),
        (["runs='**x'"], "runs=\\*\\*x cannot be looked up"),
        (["runs='~nobody-of-this-name/x'"], "runs=~nobody-of-this-name/x cannot be looked up"),
        (["runs=outputs", "format=jpg"], "none of both, png, svg"),
        (["run=outputs"], "did you mean runs"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(typed, tmp_path, words, said):
    code, printed = typed("plot", *words)
    assert (code, len(printed.splitlines()) <= 3) == (2, True)
    assert re.search(said, printed)
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_pictures_go_into_no_file(typed, tmp_path, runs, out):
    (tmp_path / "file").write_text("mine")
    code, printed = typed("plot", "runs=outputs", f"out={out}")
    assert (code, f"error: out={out} cannot be made" in printed, len(printed.splitlines())) == (2, True, 1)
    assert (tmp_path / "file").read_text() == "mine"
