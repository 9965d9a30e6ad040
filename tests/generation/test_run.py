"""generate.py as its user sees it, on a checkpoint with random weights."""

import json
import math

import pytest
import torch
from omegaconf import OmegaConf

from gpt_pretrain.config import (
    DecodingConfig,
    GenerateConfig,
    ModelConfig,
    ModelSettings,
    WeightsConfig,
    to_config,
)
from gpt_pretrain.errors import InputError
from gpt_pretrain.generation.run import generate
from gpt_pretrain.model import GPTModel
from gpt_pretrain.runs.checkpoint import TrainingState, write_checkpoint
from gpt_pretrain.terminal.text import printable
from gpt_pretrain.tokenizer import build_tokenizer
from gpt_pretrain.tokenizer.small import ByteTokenizer
from tests.decoding.conftest import COMPILES, KERNELS

EMPTY_SECTIONS: dict[str, dict] = {"model": {}, "weights": {}, "decoding": {}}
SECTIONS = {"model": ModelSettings(), "weights": WeightsConfig(name="checkpoint")}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=257, context_length=48, emb_dim=32, n_heads=2, n_layers=1)
    model = GPTModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("run") / "step-00000001"
    write_checkpoint(
        folder,
        parameters=model.state_dict(),
        model_config=config,
        tokenizer=build_tokenizer("bytes"),
        settings={"tokenizer": {"name": "bytes"}},
        training=TrainingState(optimizer_tensors={}, progress={}),
    )
    return folder


@pytest.fixture
def ask(checkpoint, capsys):
    """ask(prompt="a", ...) -> standard output, standard error."""

    def ask(decoding=None, **settings):
        decoding = DecodingConfig(**{"max_new_tokens": 12, "top_k": 40, **(decoding or {})})
        generate(GenerateConfig(**SECTIONS, decoding=decoding, checkpoint=str(checkpoint), **settings))
        captured = capsys.readouterr()
        return captured.out, captured.err

    return ask


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_text_goes_to_standard_output_and_all_else_beside_it(ask):
    text, notes = ask(prompt="ab")
    assert text.startswith("ab")
    assert "from " in notes
    assert "ab" + ask(prompt="ab", echo=False)[0] == text


def test_a_row_of_the_output_is_what_the_prompt_gives_alone(ask, tmp_path):
    (tmp_path / "p.txt").write_text("ab\nnaïve\nz\n", encoding="utf-8")
    ask(prompts_file=str(tmp_path / "p.txt"), output=str(tmp_path / "o.jsonl"), num_samples=2, batch_size=2)
    given = rows(tmp_path / "o.jsonl")
    assert [row["prompt"] for row in given] == ["ab", "ab", "naïve", "naïve", "z", "z"]
    names = ["prompt", "prompt_token_ids", "text", "token_ids", "logprobs", "finish_reason"]
    for at, row in enumerate(given):
        assert list(row) == names
        assert row["prompt_token_ids"] == list(row["prompt"].encode())
        assert len(row["token_ids"]) == len(row["logprobs"]) <= 12
        assert row["finish_reason"] == ("end_of_text" if row["token_ids"][-1] == 256 else "length")
        assert all(logprob <= 0 for logprob in row["logprobs"])
        alone, _ = ask({"seed": at % 2}, prompt=row["prompt"], echo=False)
        assert alone == printable(row["text"]) + "\n"  # the file has it as it is


def test_a_prompt_that_utf_8_cannot_hold_comes_back_as_it_was(ask, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a\\ud83d"}\n{"prompt": "a\\udcff"}\n')
    ask(prompts_file=str(tmp_path / "p.jsonl"), output=str(tmp_path / "o.jsonl"))
    assert [row["prompt"] for row in rows(tmp_path / "o.jsonl")] == ["a\ud83d", "a\udcff"]


def test_the_best_beams_come_best_first(ask, tmp_path):
    ask(
        {"temperature": 0.0, "num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.0},
        output=str(tmp_path / "o.jsonl"),
    )
    totals = [sum(row["logprobs"]) for row in rows(tmp_path / "o.jsonl")]
    assert len(totals) == 3
    assert totals == sorted(totals, reverse=True)


def test_the_table_has_the_most_likely_tokens_with_their_probabilities(ask):
    lines = ask(prompt="ab", next_tokens=300)[0].splitlines()
    probabilities = [float(line.split()[0]) for line in lines[1:]]
    assert len(probabilities) == 257
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)
    assert probabilities == sorted(probabilities, reverse=True)
    assert lines[1:6] == ask(prompt="ab", next_tokens=5)[0].splitlines()[1:]


def test_the_plot_is_a_picture(ask, tmp_path):
    ask(prompt="a$_b", plot=str(tmp_path / "t.png"))
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_texts_score_is_the_sum_of_its_rows_logprobs(ask, tmp_path):
    ask(prompt="ab", output=str(tmp_path / "o.jsonl"))
    [row] = rows(tmp_path / "o.jsonl")

    def score(text):
        lines = ask(score=text)[0].splitlines()
        return {line.split()[0]: float(line.split()[-1]) for line in lines[1:]}

    text = bytes(id_ for id_ in row["token_ids"] if id_ < 128).decode()
    whole = score("ab" + text)
    assert whole["perplexity"] == pytest.approx(math.exp(whole["loss"]), rel=1e-3)
    if len(text) == len(row["token_ids"]):
        gained = whole["log-probability"] - score("ab")["log-probability"]
        assert gained == pytest.approx(sum(row["logprobs"]), abs=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_weights_write_too(ask, dtype, kernel):
    assert len(ask(dtype=dtype, kernel=kernel)[0]) > 12


@COMPILES
def test_whatever_computes_the_text_is_the_same_and_what_was_compiled_is_said(ask, monkeypatch):
    text, notes = ask(prompt="ab")
    assert "compiled" not in notes  # a small model has written before a compiler is done
    assert ask(prompt="ab", kernel="torch") == (text, notes)
    compiled, said = ask(prompt="ab", kernel="c")
    assert compiled == text
    assert "compiled" in said
    monkeypatch.setattr("gpt_pretrain.decoding.layout.WORTH", 1)
    assert ask(prompt="ab") == (text, said)
    assert "compiled" not in ask(score="ab")[1]  # no token is written


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"interactive": True, "output": "x.jsonl"}, "leave out prompts_file and output"),
        ({"decoding": {"num_beams": 2, "num_return_sequences": 3}}, "no more texts than it has beams"),
        ({"decoding": {"temperature": 0.0, "num_return_sequences": 2}}, "the same text each time"),
        ({"decoding": {"penalty_alpha": 0.5}}, "needs decoding.top_k"),
        ({"decoding": {"penalty_alpha": 0.5, "top_k": 4, "num_beams": 2}}, "follows one text"),
        ({"decoding": {"min_new_tokens": 51}}, "exceeds decoding.max_new_tokens"),
        ({"decoding": {"early_stopping": "soon"}}, "none of False, True, never"),
        ({"decoding": {"stop": [""]}}, "empty text"),
        ({"score": "ab", "output": "x.jsonl"}, "leave out prompts_file, output and interactive"),
        ({"next_tokens": 3, "prompts_file": "x.txt"}, "leave out prompts_file, output and interactive"),
        ({"plot": "x.png", "interactive": True}, "leave out prompts_file, output and interactive"),
        ({"plot": "x.png", "next_tokens": 501}, "at most 500"),
        ({"prompts_file": ""}, "prompts_file is empty"),
        ({"output": ""}, "output is empty"),
        ({"prompt": "a", "prompts_file": "x.txt"}, "prompt has no effect beside prompts_file"),
        ({"prompt": "a", "interactive": True}, "prompt has no effect beside interactive"),
        ({"prompt": "a", "score": "b"}, "prompt has no effect beside score"),
        ({"score": "ab", "next_tokens": 3}, "score has no effect beside next_tokens"),
        ({"score": "ab", "plot": "x.png"}, "score has no effect beside plot"),
        ({"num_samples": 2, "score": "ab"}, "num_samples has no effect beside score"),
        ({"num_samples": 2, "next_tokens": 3}, "num_samples has no effect beside next_tokens"),
        ({"num_samples": 2, "interactive": True}, "num_samples has no effect beside interactive"),
        ({"num_samples": 2, "decoding": {"temperature": 0.0}}, "find the same text each time"),
        ({"num_samples": 2, "decoding": {"penalty_alpha": 0.5, "top_k": 4}}, "find the same text each time"),
        ({"interactive": True, "decoding": {"num_return_sequences": 2}}, "one text is written at a time"),
        ({"prompts_file": "x.jsonl", "output": "x.jsonl"}, "would overwrite"),
        ({"prompts_file": "x.jsonl", "output": "./x.jsonl"}, "would overwrite"),
        ({"decoding": {"stop": [["a"]]}}, "neither a text nor a list of texts"),
        ({"decoding": {"stop": "\udcff"}}, "no UTF-8 text"),
        ({"decoding": {"logit_bias": {"the": "x"}}}, "a text and a number"),
        ({"decoding": {"logit_bias": {"the": "nan"}}}, "out of range"),
        ({"decoding": {"logit_bias": {"the": 1e300}}}, "out of range"),
        ({"decoding": {"repetition_penalty": 1e-60}}, "out of range"),
        ({"decoding": {"seed": 2**64}}, "out of range"),
        ({"decoding": {"top_p": 0}}, "out of range"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, told):
    all_settings = OmegaConf.merge(OmegaConf.structured(GenerateConfig), EMPTY_SECTIONS, settings)
    with pytest.raises(InputError, match=told):
        to_config(all_settings, GenerateConfig)


def test_texts_may_be_given_alone_in_a_list_or_as_numbers():
    assert DecodingConfig(stop="end", banned_words=[7, "x"]).stop == ["end"]
    assert DecodingConfig(banned_words=[7, "x"]).banned_words == ["7", "x"]
    assert DecodingConfig(logit_bias=[" a=b=-2"]).logit_bias == {" a=b": -2.0}


def test_a_mark_in_a_prompt_is_said_to_be_text(ask):
    said = "<|endoftext|> in a prompt is read as text"
    assert said in ask(prompt="a<|endoftext|>b")[1]
    assert said not in ask(prompt="a<|endoftext|")[1]


@pytest.fixture
def without_spaces(monkeypatch):
    """The tokenizer drops white space, as some do."""
    own = ByteTokenizer.encode_segment
    monkeypatch.setattr(ByteTokenizer, "encode_segment", lambda self, text, **_: own(self, text.strip()))


@pytest.mark.parametrize("wanted", [{}, {"next_tokens": 3}, {"plot": "t.png"}, {"output": "o.jsonl"}])
def test_a_prompt_without_a_token_is_refused_whatever_is_asked_of_it(
    ask, tmp_path, monkeypatch, without_spaces, wanted
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="prompt: tokenizer=bytes makes no token of '  ': give other text"):
        ask(prompt="  ", **wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_score_of_no_token_is_refused(ask, without_spaces):
    with pytest.raises(InputError, match="fewer than two tokens"):
        ask(score="  ")


def test_prompts_that_cannot_be_read_are_refused_by_their_line_before_anything_is_written(
    ask, tmp_path, without_spaces
):
    (tmp_path / "p.txt").write_text("a\n" * 20 + "   \na\n")
    (tmp_path / "o.jsonl").write_text("of before\n")
    with pytest.raises(InputError, match=r"p\.txt: line 21: tokenizer=bytes makes no token of '   '"):
        ask(prompts_file=str(tmp_path / "p.txt"), output=str(tmp_path / "o.jsonl"))
    for decoding in ({"logit_bias": {" ": 1.0}}, {"logit_bias": {"a": 1.0, "\n": 2.0}}):
        with pytest.raises(InputError, match=r"decoding\.logit_bias: tokenizer=bytes makes no token"):
            ask(decoding, prompt="a", output=str(tmp_path / "o.jsonl"))
    assert (tmp_path / "o.jsonl").read_text() == "of before\n"


def test_auto_is_told_how_many_tokens_follow_each_other(ask, monkeypatch, tmp_path):
    told = []

    def find(model, dtype, wanted, steps):
        told.append(steps)
        return "torch", None

    monkeypatch.setattr("gpt_pretrain.generation.run.find_kernel", find)
    (tmp_path / "p.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    ask(prompts_file=str(tmp_path / "p.txt"), batch_size=2, num_samples=3)
    ask(prompt="a")
    ask(score="ab")
    assert told == [12 * 3 * 3, 12, 0]
