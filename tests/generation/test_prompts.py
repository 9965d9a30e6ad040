"""Files of prompts, good and bad."""

import os
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import GenerateConfig
from gpt_pretrain.errors import InputError
from gpt_pretrain.generation.prompts import check_writable, quoted, read_prompts


@given(st.text("""\\'"${}[](),=: \n~1e3a""", min_size=1) | st.text(min_size=1))
@settings(deadline=None)
def test_a_text_of_any_characters_reaches_hydra_as_it_is(text):
    assume(text != "null" and not (text[0] in "\"'" and text[-1] == text[0]))
    (argument,) = quoted([f"prompt={text}"])
    read = OverridesParser.create().parse_override(argument).value()
    assert OmegaConf.create({"prompt": read}).prompt == text


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time, there was",
        "It's (1) of {x}: [a] = #3",
        " 007 ",
        "日本語",
        "'half",
        "a\nb",
        "\\${x} ${y",
    ],
)
def test_a_prompt_on_the_command_line_is_taken_as_it_is(text):
    assert compose("generate", GenerateConfig, quoted([f"prompt={text}"])).prompt == text
    assert compose("generate", GenerateConfig, quoted([f"score={text}"])).score == text


@pytest.mark.parametrize(
    "text",
    ["\n", "###", "1.50", "the, a", "Q:", "[INST]", "[/INST]", "[a] [b]", "[[a]]", "[it's]", "[3", "["],
)
def test_a_single_stop_or_banned_text_on_the_command_line_is_taken_as_it_is(text):
    typed = quoted([f"decoding.stop={text}", f"decoding.banned_words={text}"])
    decoding = compose("generate", GenerateConfig, typed).decoding
    assert (decoding.stop, decoding.banned_words) == ([text], [text])


@pytest.mark.parametrize(
    ("text", "texts"),
    [("[]", []), ("['[INST]']", ["[INST]"]), ('["a, b"]', ["a, b"]), ("[a, b]", ["a", "b"])],
)
def test_brackets_around_texts_in_quotes_or_between_commas_make_a_list(text, texts):
    assert compose("generate", GenerateConfig, quoted([f"decoding.stop={text}"])).decoding.stop == texts


def test_what_hydra_reads_by_itself_is_left_alone():
    for arguments in (
        ["prompt=", "score=null", "prompt='a, b'", 'score="it\'s"', "decoding.stop=[a,b]", "plot=t.png"],
        ["-m", "prompt=a,b"],
        ["--cfg", "job"],
    ):
        assert quoted(arguments) == arguments


def test_a_text_file_is_one_prompt_a_line(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffEvery effort\r\nnaïve  \n\n\n".encode())
    assert read_prompts(str(file)) == ["Every effort", "naïve  "]


def test_a_jsonl_file_has_objects_or_texts_so_a_prompt_may_have_several_lines(tmp_path):
    for name in ("p.jsonl", "p.ndjson", "P.JSONL"):
        file = tmp_path / name
        file.write_text('{"prompt": "a\\nb", "id": 3}\n"c"\n')
        assert read_prompts(str(file)) == ["a\nb", "c"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.txt", b"", "is empty"),
        ("p.txt", b"a\n\nb\n", "line 2 is an empty prompt"),
        ("p.txt", b"a\xff", "not UTF-8"),
        ("p.jsonl", b'{"prompt": 3}', "line 1 has no text"),
        ("p.jsonl", b'{"text": "a"}', "line 1 has no text"),
        ("p.jsonl", b'"a"\n{', "line 2 is not JSON"),
        ("p.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("p.json", b'["a", "b"]', "line 1 has no text"),
        ("p.jsonl", b'{"prompt": ""}', "line 1 is an empty prompt"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_prompts(str(tmp_path / name))


def test_a_file_that_is_none_is_refused(tmp_path):
    for path, told in ((tmp_path, "a folder: give a file"), (tmp_path / "none.txt", "no such file")):
        with pytest.raises(InputError, match=told):
            read_prompts(str(path))
    for path in ("a.txt", str(tmp_path / "none" / "a.jsonl")):
        with pytest.raises(InputError, match="output="):
            check_writable("output", path, ".jsonl")


def test_a_file_that_may_not_be_read_or_written_is_refused_before_anything_slow(tmp_path, monkeypatch):
    file = tmp_path / "p.jsonl"
    file.write_text('"a"')

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # a chmod does not stop root
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read_prompts(str(file))
    for path in (file, tmp_path / "new.jsonl"):
        check_writable("output", str(path), ".jsonl")
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(InputError, match="may not write there"):
            check_writable("output", str(path), ".jsonl")
        monkeypatch.undo()
