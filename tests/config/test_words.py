"""What the program prints to be typed, pasted into a shell and read by Hydra, is what was meant."""

import re
import subprocess
from pathlib import Path, PureWindowsPath

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.paths import expanded, here
from gpt_pretrain.config.words import text_of, typed, value_of, word
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.runs.record import SETTINGS, read_record
from gpt_pretrain.terminal.text import printable
from gpt_pretrain.training.preflight import _training_state

NASTY = [
    *(
        "a b",
        "it's",
        'say "x"',
        "a=b",
        "a,b",
        "{a}",
        "${a}",
        "$HOME",
        "$(id)",
        "`id`",
        "\\${a}",
        "a\\",
        "~",
        "#x",
    ),
    *(
        "caf\u00e9",
        "\u65e5\u672c",
        "\U0001f600",
        "[1,2]",
        "(x)",
        "a;b",
        "a&b",
        "a|b",
        "*",
        "?",
        "!x",
        "-m",
        "%s",
    ),
    *(
        "1e5",
        "1.10",
        "007",
        "0x10",
        "1_000",
        "null",
        "NULL",
        "true",
        "True",
        "nan",
        "-inf",
        ".5",
        "+1",
        "a:b",
        "@x",
    ),
]
texts = st.text(
    st.sampled_from("ab1e. /=,'\"\\{}$[]()`~#!&|;*?<>:@%+-_\u00e9\u65e5"), min_size=1, max_size=12
)


def pasted(line: str) -> list[str]:
    """The words that a shell makes of a line."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return done.stdout.split("\0")[:-1]


def examples(values):
    def decorate(test):
        for value in values:
            test = example(value)(test)
        return test

    return decorate


@settings(max_examples=150, deadline=None)
@given(texts)
@examples([*NASTY, "???"])  # which is OmegaConf's word for a missing value, quoted too
def test_a_hint_survives_the_shell_and_hydra(path):
    shown = printable(typed("resume", path))
    (argument,) = pasted(shown)
    assert value_of("resume", [argument]) == here(path)
    assert expanded("resume", here(path)) == here(path)  # what is named ~ here is nobody's home


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, min_size=2, max_size=3))
def test_hints_on_one_line_stay_words_of_their_own(paths):
    line = " ".join(typed("weights.path", path) for path in paths)
    assert [value_of("weights.path", [argument]) for argument in pasted(line)] == list(map(here, paths))


@pytest.mark.parametrize("path", NASTY)
def test_the_program_reads_what_was_pasted(path):
    (argument,) = pasted(typed("data.cache_dir", path))
    assert compose("train", TrainConfig, [argument]).data.cache_dir == here(path)
    prompt = word("trainer.sample_prompt", path)
    assert compose("train", TrainConfig, [prompt]).trainer.sample_prompt == path


@pytest.mark.parametrize("name", ["my run", "it's", "a=b", "a,b", "{a}", "$HOME", "caf\u00e9"])
def test_hints_of_damaged_checkpoints_can_be_pasted(tmp_path, name):
    checkpoint = tmp_path / name / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / SETTINGS).write_text("nosuch: 1\n")
    with pytest.raises(ArtifactError) as of_record:
        read_record(checkpoint)
    with pytest.raises(ArtifactError) as of_state, _training_state(checkpoint):
        raise KeyError("global_step")
    for refusal in (of_record, of_state):
        hint = str(refusal.value).rpartition("weights=checkpoint ")[2]
        (argument,) = pasted(hint)
        assert Path(value_of("weights.path", [argument]) or "") == checkpoint


def windows_words(line: str) -> list[str]:
    """The arguments that Windows' own rule makes of a line: double quotes group, and nothing escapes them."""
    return [word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*")+', line)]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (r"outputs\2026-11-26\10-00-00", "resume=outputs/2026-11-26/10-00-00"),
        (r"C:\Users\me\run", "\"resume='C:/Users/me/run'\""),
        (r"my runs\it's", None),
        (r"\\server\share\café", None),
        (r"~\run", "\"resume='./~/run'\""),
    ],
)
def test_a_hint_on_windows_is_one_word_there_and_names_the_same_folder(path, shown):
    line = typed("resume", path, windows=True)
    assert shown in (None, line)
    (argument,) = windows_words(line)
    assert PureWindowsPath(value_of("resume", [argument])) == PureWindowsPath(path)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        3,
        1e-05,
        -2.5,
        [1, None, "a b", "null", "1"],
        {"a": None, "b": [True, "c,d"]},
        [],
        {},
    ],
)
def test_a_preset_s_value_is_read_as_it_stands_in_its_yaml(value):
    word = f"key={text_of(value)}"
    assert OverridesParser.create().parse_override(word).value() == value


def test_a_preset_s_text_is_in_hydra_s_grammar_already():
    assert text_of("1e-4,1e-3") == "1e-4,1e-3"
