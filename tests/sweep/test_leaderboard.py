"""What comes out of a sweep: order, importance and pictures, by arithmetic."""

import csv
import io

import pytest
from PIL import Image

from gpt_pretrain.sweep.leaderboard import best, importance, ranked, table, to_csv, to_markdown
from gpt_pretrain.sweep.pictures import draw, places
from gpt_pretrain.sweep.record import DIVERGED, FINISHED, Trial


def trial(number, loss, **point):
    status = DIVERGED if loss is None else FINISHED
    return Trial(number=number, point=point, status=status, objective=loss, best_val_loss=loss)


def test_trials_without_a_result_come_last_and_equal_ones_by_their_number():
    trials = [trial(0, None), trial(1, 2.0), trial(2, 1.0), trial(3, 1.0), trial(4, float("nan"))]
    assert [entry.number for entry in ranked(trials)] == [2, 3, 1, 0, 4]
    assert best(trials).number == 2
    assert best(trials[:1]) is None


def test_importance_is_the_share_of_variance_between_a_setting_s_values():
    # loss = 2 a + b over the whole grid of a, b in {0, 1}: variances 1 and 1/4
    trials = [trial(2 * a + b, 2.0 * a + b, a=str(a), b=str(b), c="x") for a in (0, 1) for b in (0, 1)]
    assert importance(trials, ["a", "b", "c"]) == pytest.approx({"a": 0.8, "b": 0.2, "c": 0.0})
    assert list(importance(trials, ["b", "a"])) == ["a", "b"]
    assert importance(trials[:2], ["a"]) == {}


def test_importance_of_drawn_numbers_is_no_matter_of_their_digits():
    trials = [
        trial(n, float(n), rate=repr(1e-4 * 1.1**n), noise=repr(n * 7919 % 100 / 100)) for n in range(40)
    ]
    shares = importance(trials, ["rate", "noise"])
    assert shares["rate"] > 0.9
    assert shares["noise"] < 0.2


def test_no_cell_is_a_formula_or_breaks_the_table():
    rows = table([trial(0, 1.0, a="=HYPERLINK(1)", b="x|y")], ["a", "b"])
    (read,) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert read["a"] == "'=HYPERLINK(1)"
    assert to_markdown(rows, ["a", "b"]).count("\n") == 3
    assert "x\\|y" in to_markdown(rows, ["a", "b"])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1e-4", "1e-2", "1e-3"], ([-4, -2, -3], True)),
        (["1", "3", "2"], ([1, 3, 2], False)),
        (["0", "100"], ([0, 100], False)),
        (["adamw", "muon", "adamw"], ([0, 1, 0], False)),
        (["1", "null"], ([0, 1], False)),
    ],
)
def test_values_stand_where_they_belong(texts, expected):
    at, _, by_size = places(texts)
    assert (pytest.approx(at), by_size) == expected


def test_pictures_are_drawn_of_whatever_was_swept(tmp_path):
    trials = [
        trial(n, 3.0 - 0.1 * n, **{"lr": repr(10.0**-n), "text": "$x_" * n, "group": "ab"[n % 2]})
        for n in range(5)
    ]
    for one in trials:
        one.metrics = {"val/loss": [[1, 5.0], [2 + one.number, one.objective]]}
    draw([*trials, trial(9, None, lr="1", text="", group="a")], ["lr", "text", "group"], tmp_path)
    names = {"curves.png", "loss_over_values.png", "parallel.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert all(min(Image.open(file).size) > 300 for file in tmp_path.iterdir())


def test_a_point_that_was_refused_keeps_the_values_that_it_was_to_try():
    refused = Trial(number=1, point={"seed": "7", "lr": "1"}, status="refused")
    (row,) = table([refused], ["seed", "lr"])
    assert (row["seed"], row["lr"]) == ("7", "1")
    assert list(row)[:4] == ["rank", "trial", "seed", "lr"]


def test_importance_is_the_same_for_losses_of_any_size():
    trials = [trial(2 * a + b, 1e299 * (2 * a + b - 2), a=str(a), b=str(b)) for a in (0, 1) for b in (0, 1)]
    assert importance(trials, ["a", "b"]) == pytest.approx({"a": 0.8, "b": 0.2})
