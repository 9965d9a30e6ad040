"""Curves drawn with letters."""

import math

import pytest

from gpt_pretrain.terminal.curve import draw


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_curve_falls_where_its_numbers_do(width):
    points = [(x, 10 - x) for x in range(11)]
    lines = draw({"training": points}, width=width, height=5, x_label="steps")
    rows = [line.partition("|")[2] for line in lines[:5]]
    firsts = [row.index("t") for row in rows]
    assert firsts == sorted(firsts)
    assert firsts[0] == 0
    assert max(map(len, rows)) == width - len(lines[0].partition("|")[0]) - 1
    assert all(line.isascii() and len(line) <= width for line in lines)


def test_both_curves_stand_on_one_scale_with_a_legend():
    lines = draw(
        {"training": [(0, 4), (9, 2)], "validation": [(0, 4), (9, 1)]}, width=40, height=7, x_label="steps"
    )
    assert lines[0].startswith("  4 |v")
    assert lines[6].startswith("  1 |")
    assert lines[6].rstrip().endswith("v")
    assert lines[-1].split() == ["t", "training", "v", "validation"]
    assert lines[-2].split() == ["0", "9", "steps"]


def test_the_narrowest_terminal_and_a_curve_without_a_point_harm_nothing():
    lines = draw({"training": [(0, 4), (9, 2)], "validation": []}, width=10, height=5, x_label="steps")
    assert max(map(len, lines)) <= 10
    assert [line.partition("|")[2].find("t") for line in lines[:5]][::4] == [0, 6]


@pytest.mark.parametrize("points", [[], [(1, 2)], [(1, math.nan), (2, math.inf)]])
def test_nothing_is_drawn_of_nothing(points):
    assert draw({"training": points}, width=40, height=5, x_label="steps") == []


def test_what_is_no_number_and_a_flat_curve_harm_nothing():
    lines = draw({"training": [(1, 2.0), (2, math.nan), (3, 2.0)]}, width=40, height=5, x_label="steps")
    assert "t" in lines[2]
