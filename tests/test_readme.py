"""What the README shows is what there is."""

import importlib.util
import re
import shlex

import pytest

from gpt_pretrain.cli.schemas import config_dir
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
REFUSALS = re.findall(r"^\$ python train\.py (.+)\n(error: .+)$", README, re.MULTILINE)
TABLE = dict(re.findall(r"^\| `(\w+)` \| (`.+`) \|$", README, re.MULTILINE))


@pytest.mark.parametrize(("arguments", "said"), REFUSALS)
def test_a_refusal_reads_as_shown(typed, arguments, said):
    assert typed("train", *shlex.split(arguments)) == (2, said + "\n")


def test_there_are_refusals_to_compare():
    assert len(REFUSALS) >= 2


def test_the_table_of_groups_has_every_option():
    primary = (config_dir() / "train.yaml").read_text()
    groups = {path.name for path in config_dir().iterdir() if path.is_dir() and f"- {path.name}:" in primary}
    options = {group: {file.stem for file in (config_dir() / group).glob("*.yaml")} for group in groups}
    assert {
        group: set(re.findall(r"`(\w+)`", row)) for group, row in TABLE.items() if group in groups
    } == options


def test_every_module_that_is_run_exists():
    modules = set(re.findall(r"python -m (gpt_pretrain[\w.]*)", README))
    assert len(modules) >= 6
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
