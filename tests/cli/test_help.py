"""--help, --version and what the tab key gives."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

import gpt_pretrain
from gpt_pretrain.cli import commands
from gpt_pretrain.cli.completion import candidates
from gpt_pretrain.cli.help import WIDTH
from gpt_pretrain.cli.schemas import options
from gpt_pretrain.config import MEMBERS, TrainConfig, known_keys, sections
from tests.conftest import ROOT
from tests.test_readme import PROGRAMS


@pytest.fixture
def asked(monkeypatch, capsys):
    def ask(program, *arguments):
        monkeypatch.setattr(sys, "argv", ["program.py", *arguments])
        try:
            program()
        except SystemExit as exit_:
            return exit_.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    return ask


def settings(printed: str) -> dict[str, str]:
    """Each setting that a help names, with what stands behind its value, on lines of its own or not."""
    found, key = {}, ""
    for line in printed.splitlines():
        word = line.strip().partition("=")[0]
        if line.startswith("  ") and "=" in line and word.replace(".", "").replace("_", "").isalnum():
            key = word
            rest = line.strip()[len(key) :]
            found.setdefault(key, "")
            found[key] += rest.partition("  ")[2].strip() or rest.partition(" ")[2].strip()
        elif key and line.startswith(" " * 20):
            found[key] += " " + line.strip()
        else:
            key = ""
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_setting_of_every_program_has_a_line_with_its_meaning(asked, name):
    program = PROGRAMS[name]
    code, printed = asked(program, "--help")
    assert code == 0
    assert max(map(len, printed.splitlines()[8:])) <= WIDTH
    said = settings(printed)
    groups = {group for group, _ in sections(program.root)}
    wanted = {key for key in known_keys(program.root) if key not in groups and not key.endswith(".name")}
    assert wanted - {"data.source"} - set(said) == set()
    assert [key for key in wanted & set(said) if not said[key]] == []
    assert [key for key, meaning in said.items() if re.search("noqa|type: ignore", meaning)] == []


def test_five_examples_and_the_groups_in_a_newcomer_s_order(asked):
    _, printed = asked(commands.train_command, "--help")
    examples = [line for line in printed.splitlines() if line.startswith("  python ")]
    assert len(examples) == 5
    places = [
        printed.index(f"\n{group}=") for group in ("data", "model", "tokenizer", "optimizer", "trainer")
    ]
    assert places == sorted(places)
    for option in options("experiment", TrainConfig):
        assert f"  {option} " in printed


def test_an_option_s_own_defaults_are_shown_as_they_are(asked):
    _, printed = asked(commands.train_command, "--help")
    of_sgd = printed.split("with optimizer=sgd:")[1].split("with optimizer")[0]
    assert "optimizer.lr=0.1 " in of_sgd
    assert "optimizer.momentum=0.9 " in of_sgd
    assert "decoding.top_k=25 " in printed  # of conf/decoding/top_k.yaml, the default
    _, group = asked(commands.train_command, "--help", "optimizer")
    of_sgd = group.split("optimizer=sgd\n")[1]
    assert "optimizer.lr=0.1 " in of_sgd
    assert [line for line in group.splitlines() if not line.startswith(" ") and line] == [
        f"optimizer={name}{'  (the default)' if f'optimizer={name}, or' in printed else ''}"
        for name in options("optimizer", TrainConfig)
    ]


@pytest.mark.parametrize("group", [name for name, _ in sections(TrainConfig)] + ["experiment"])
def test_help_of_a_group_names_all_its_options_and_settings(asked, group):
    code, printed = asked(commands.train_command, "--help", group)
    assert code == 0
    for option in options(group, TrainConfig):
        assert f"{group}={option}" in printed
    base = dict(sections(TrainConfig)).get(group)
    for cls in [base, *MEMBERS.get(base, {}).values()] if base else []:
        for entry in dataclasses.fields(cls):
            if entry.name not in ("name", "source"):
                assert f"{group}.{entry.name}=" in printed


def test_help_of_no_group_is_refused_with_the_nearest(asked):
    code, error = asked(commands.generate_command, "--help", "decodin")
    assert (code, "did you mean decoding?" in error) == (2, True)


def test_the_version_is_the_program_s_own(asked):
    assert asked(commands.train_command, "--version") == (0, f"gpt_pretrain {gpt_pretrain.__version__}\n")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer=", {"optimizer=adam", "optimizer=adamw", "optimizer=muon", "optimizer=sgd"}),
        ("optimizer=ada", {"optimizer=adam", "optimizer=adamw"}),
        ("optimizer=adamw,mu", {"optimizer=adamw,muon"}),
        ("optimizer=adamw,", {"optimizer=adamw,adam", "optimizer=adamw,muon", "optimizer=adamw,sgd"}),
        ("trainer.precision=b", {"trainer.precision=bf16-mixed", "trainer.precision=bf16-true"}),
        ("logger.csv=", {"logger.csv=true", "logger.csv=false"}),
        ("data.path=bo", {"data.path=books/"}),
        ("data.path=books/", {"data.path=books/a.txt", "data.path=books/[b].txt"}),
        ("data.path=books/[", {"data.path=books/[b].txt"}),
        ("resume=./bo", {"resume=./books/"}),
        ("--v", {"--version"}),
        ("seed=", set()),
        ("nonsense=x", set()),
        ("trainer.ma", {"trainer.max_epochs=", "trainer.max_steps=", "trainer.max_tokens="}),
        ("exper", {"experiment="}),
    ],
)
def test_a_word_is_completed(tmp_path, monkeypatch, word, expected):
    (tmp_path / "books").mkdir()
    for name in ("a.txt", "[b].txt"):
        (tmp_path / "books" / name).touch()
    monkeypatch.chdir(tmp_path)
    assert set(candidates(word, "train", TrainConfig)) == expected


@pytest.mark.parametrize(
    ("line", "breaks", "expected"),
    [
        ("python train.py optimizer=mu", "=: ", ["muon"]),  # as bash is by default
        ("python train.py optimizer=mu", " ", ["optimizer=muon"]),
        ("python train.py -m optimizer=adamw,mu", "=: ", ["adamw,muon"]),
        ("python train.py data.path=conf/model/ti", "=: ", ["conf/model/tiny.yaml"]),
        ("python other.py optimizer=mu", "=: ", []),
    ],
)
def test_bash_completes(line, breaks, expected, tmp_path):
    script = f"""
    python() {{ '{sys.executable}' "$@"; }}
    eval "$(python train.py -sc install=bash)"
    COMP_WORDBREAKS='{breaks}' COMP_LINE='{line}' COMP_POINT={len(line)}
    _gpt_pretrain
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    bash = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, env={**os.environ}, check=True
    )
    assert bash.stdout.split() == expected
