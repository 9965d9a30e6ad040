"""Files of prompts, good and bad."""

import pytest

from gpt_pretrain.errors import InputError
from gpt_pretrain.prompts import check_writable, read_prompts


def test_a_text_file_is_one_prompt_a_line(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffEvery effort\r\nnaïve  \n\n\n".encode())
    assert read_prompts(str(file)) == ["Every effort", "naïve  "]


def test_a_jsonl_file_has_objects_or_texts_so_a_prompt_may_have_several_lines(tmp_path):
    file = tmp_path / "p.jsonl"
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
        ("p.jsonl", b'{"prompt": ""}', "line 1 is an empty prompt"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_prompts(str(tmp_path / name))


def test_a_file_that_is_none_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(InputError, match="no such file"):
            read_prompts(str(path))
    for path in ("a.txt", str(tmp_path / "none" / "a.jsonl")):
        with pytest.raises(InputError, match="output="):
            check_writable("output", path, ".jsonl")
