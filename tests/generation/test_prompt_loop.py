"""The prompt loop, with a model that answers by telling what it was asked."""

import io
from pathlib import Path

import pytest

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.generation.prompt_loop import converse
from gpt_pretrain.generation.typing import typed_lines


@pytest.fixture
def talk(capsys):
    """talk("line", ...) -> what the loop prints, one line a list entry."""

    def talk(*lines, config=DecodingConfig(seed=5)):  # noqa: B008 - it is never changed
        def stream(prompt, config):
            yield f"<{prompt}|T={config.temperature:g}|seed={config.seed}>"

        converse(stream, config, iter(lines))
        return capsys.readouterr().out.splitlines()

    return talk


def test_what_was_written_stays_the_context_and_each_answer_draws_with_the_next_seed(talk):
    assert talk("hi", "", "more") == [
        "<hi|T=1|seed=5>",
        "<hi<hi|T=1|seed=5>|T=1|seed=6>",
        "<hi<hi|T=1|seed=5><hi<hi|T=1|seed=5>|T=1|seed=6>",
        "more|T=1|seed=7>",
    ]


def test_settings_change_on_the_fly_and_reset_takes_all_back(talk):
    printed = talk("/temperature 0.8", "/seed 1", "a", "/reset", "b")
    assert printed[:3] == ["temperature=0.8", "seed=1", "<a|T=0.8|seed=1>"]
    assert printed[-1] == "<b|T=1|seed=5>"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/temperature -1", "out of range"),
        ("/temperature warm", "could not be converted"),
        ("/temprature 1", "did you mean temperature?"),
        ("/top_k 1.5", "could not be converted"),
        ("/stop {", "cannot be read"),
        ("/min_new_tokens 51", "exceeds"),
        ("/num_return_sequences 2", "one text is written at a time"),
        ("/", "no such command"),
        ("", "no text yet"),
    ],
)
def test_nonsense_is_told_in_a_line_and_changes_nothing(talk, line, told):
    printed = talk(line, "a")
    assert told in printed[0]
    assert printed[1:] == ["<a|T=1|seed=5>"]


def test_help_settings_and_single_values_are_shown_and_quit_ends(talk):
    printed = talk("/help", "/settings", "/top_p", "/quit", "never")
    assert any("/reset" in line for line in printed)
    assert any("temperature=1.0" in line for line in printed)
    assert printed[-1] == "top_p=null"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("/stop Q:", 'stop=["Q:"]'),
        ("/stop ###", 'stop=["###"]'),
        ("/stop 1.50", 'stop=["1.50"]'),
        ('/stop ["a\\n", "é"]', 'stop=["a\\n", "é"]'),
        ("/stop [INST]", 'stop=["[INST]"]'),
        ("/stop [it's]", """stop=["[it's]"]"""),
        ("/banned_words [a, b]", 'banned_words=["a", "b"]'),
        ("/stop []", "stop=[]"),
        ("/stop null", "stop=[]"),
        ("/top_k null", "top_k=null"),
        ("/early_stopping never", 'early_stopping="never"'),
        ('/logit_bias {" a": 1}', 'logit_bias={" a": 1.0}'),
    ],
)
def test_a_setting_is_shown_as_it_can_be_typed_and_takes_the_place_of_the_old_one(talk, typed, shown):
    settings = DecodingConfig(top_k=5, stop=["x"], logit_bias={"old": 2})
    assert talk(typed, config=settings) == [shown]
    assert talk("/" + shown.replace("=", " ", 1), config=settings) == [shown]


def test_lines_of_a_pipe_may_be_no_utf_8(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\nb\n"), encoding="utf-8"))
    assert list(typed_lines(Path("history"))) == ["a\udcff", "b"]


def test_a_text_that_the_tokenizer_lacks_ends_neither_the_loop_nor_the_text_so_far(capsys):
    def stream(prompt, config):
        if "é" in prompt:
            raise InputError("lacks 'é'")
        yield f"<{prompt}|{config.seed}>"

    converse(stream, DecodingConfig(), iter(["a", "é", ""]))
    assert capsys.readouterr().out.splitlines() == ["<a|0>", "error: lacks 'é'", "<a<a|0>|1>"]


def test_ctrl_c_ends_the_answer_not_the_loop(capsys):
    def stream(prompt, config):
        yield "half"
        raise KeyboardInterrupt

    converse(stream, DecodingConfig(), iter(["a", "/seed 3"]))
    assert capsys.readouterr().out.splitlines() == ["half", "seed=3"]


def test_half_a_character_at_the_end_of_an_answer_is_shown_and_not_read_again(capsys):
    def stream(prompt, config):
        yield f"<{prompt}>"
        yield "\N{REPLACEMENT CHARACTER}"

    converse(stream, DecodingConfig(), iter(["é", ""]))
    assert capsys.readouterr().out.splitlines() == ["<é>\ufffd", "<é<é>>\ufffd"]
