"""Files from elsewhere are plain, bounded and parsed into plain values."""

import ast
import json
import math
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gpt_pretrain.config.border import as_typed, escaped
from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import (
    OF_OTHERS,
    check_folder,
    json_text,
    open_plain,
    parse_json,
    read_bytes,
    read_json,
    read_yaml,
    to_yaml,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_settings_are_read_back_as_they_were_written(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("y") / "settings.yaml"
    file.write_text(to_yaml(content), encoding="utf-8")
    assert read_yaml(file) == content


@given(st.text("""\\'"${}[]: \n~?a.:""") | st.text())
def test_no_text_is_a_variable_to_omegaconf(text):
    from gpt_pretrain.config import DecodingConfig

    if text != "???":  # OmegaConf's word for a missing value
        typed = OmegaConf.to_container(as_typed({"stop": [text]}, DecodingConfig), resolve=True)
        assert typed["stop"] == [text]
    assert escaped({"a": [1, {"b": text}]})["a"][0] == 1


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1\nb: *x\n",
        "!!python/object/apply:os.system [true]",
        "a: !!python/name:os.system",
        "[" * 100,
        "- 1",
        "1: a",
        "a: [",
        "",
        "a: " + "b" * (5 << 20),
    ],
)
def test_yaml_that_no_settings_need_is_refused(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ArtifactError) as refused:
        read_yaml(tmp_path / "s.yaml")
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '"a"', "9" * 10_000, ""])
def test_json_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ArtifactError):
        read_json(tmp_path / "s.json")


def test_only_plain_files_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    assert read_bytes(tmp_path / "file") == b"x"
    for name in ("link", "pipe", ".", "missing"):
        with pytest.raises(ArtifactError):
            read_bytes(tmp_path / name)
    with pytest.raises(ArtifactError):
        read_bytes(tmp_path / "file", at_most=0)


@pytest.mark.parametrize("depth", ["", "a/b/"])
@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "broken link", "pipe"])
def test_a_folder_with_anything_but_files_and_folders_is_refused(tmp_path, depth, kind):
    (tmp_path / "run" / "a" / "b").mkdir(parents=True)
    (tmp_path / "file").touch()
    check_folder(tmp_path / "run")
    odd = tmp_path / "run" / f"{depth}odd"
    match kind:
        case "link to a file":
            odd.symlink_to(tmp_path / "file")
        case "link to a folder":
            odd.symlink_to(tmp_path)
        case "broken link":
            odd.symlink_to("nowhere")
        case _:
            os.mkfifo(odd)
    with pytest.raises(ArtifactError, match="is not followed"):
        check_folder(tmp_path / "run")


@pytest.mark.parametrize("name", OF_OTHERS)
def test_what_another_program_keeps_in_a_folder_may_hold_its_own_links_but_be_none(tmp_path, name):
    kept = tmp_path / "run" / "0" / name
    kept.mkdir(parents=True)
    (kept / "latest").symlink_to(tmp_path)
    check_folder(tmp_path / "run")
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is not followed"):
        check_folder(tmp_path / "run")


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"a":' * 100_000, "[" + "[]," * 2_000_000 + "[]]", "[" + "0," * 3_000_000 + "0]"],
)
def test_json_that_is_deep_or_swells_is_refused_before_it_does(content):
    for given_ in (content, content.encode()):
        with pytest.raises(ValueError, match=r"nested too deep|values, too many for its size"):
            parse_json(given_)


@pytest.mark.parametrize(
    "content",
    [
        {f"token {n}": n for n in range(200_000)},
        {"text": "1,2,[3],{4}\n" * 400_000},
        {"text": '\\",[' * 1_000_000 + "\\"},
    ],
    ids=["a vocabulary", "a table", "quotes"],
)
def test_json_of_as_many_values_as_its_size_allows_is_read(content):
    assert parse_json(json.dumps(content)) == content
    assert parse_json(json.dumps(content).encode()) == content


def test_a_device_and_a_pipe_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(ArtifactError, match="is no plain file"):
            open_plain(path, follow=True)


def test_a_link_is_followed_only_where_its_path_was_typed(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bytes(tmp_path / "link", follow=True) == b"content"
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_bytes(tmp_path / "link")


def _opens(source: str) -> list[str]:
    """Calls that open a file to read it, past the rules."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] in ("read_bytes", "read_text") and called != "read_bytes":
                found.append(called)
            if called in ("json.load", "json.loads", "yaml.load", "pickle.load", "pickle.loads"):
                found.append(called)
    return found


# Files of our own: the cache's, the package's, the settings folder, the kernel's; what a run's processes tell
# each other; and text, which has bounds of its own.
OWN = {
    "cli/completion.py",
    "cli/help.py",
    "cli/schemas.py",
    "data/notes.py",
    "data/sources.py",
    "data/token_files.py",
    "foreign.py",
}
OWN |= {
    "generation/prompts.py",
    "generation/questions.py",
    "launch/meeting.py",
    "launch/watch.py",
    "tokenizer/bpe.py",
    "training/callbacks/samples.py",
    "training/provenance.py",
}


def test_every_room_that_opens_foreign_files_goes_through_the_rules():
    package = Path(__file__).parent.parent / "gpt_pretrain"
    for file in package.rglob("*.py"):
        name = str(file.relative_to(package))
        if name not in OWN and not name.startswith(("benchmark", "sweep")):
            assert _opens(file.read_text(encoding="utf-8")) == [], name


def test_a_call_past_the_rules_would_be_found():
    assert _opens("json.loads(file.read_bytes())") == ["json.loads", "file.read_bytes"]
    assert _opens("read_bytes(file)") == []


def _writes_json(source: str) -> list[str]:
    """Calls that make JSON, past `json_text`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    strict = [ast.unparse(call) for call in calls if "allow_nan=False" not in ast.unparse(call)]
    return [call for call in strict if re.match(r"json\.dumps?\(", call)]


# What nobody else reads: a word of a command line, what is compared or hashed, notes of our own cache, and
# what a run's processes tell each other.
NOT_FOR_OTHERS = {
    "config/fields.py",
    "data/notes.py",
    "generation/prompt_loop.py",
    "launch/meeting.py",
    "launch/watch.py",
    "sweep/search.py",
    "tokenizer/build.py",
}


def test_every_json_that_others_read_is_strict():
    package = Path(__file__).parent.parent / "gpt_pretrain"
    found = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if _writes_json(file.read_text(encoding="utf-8"))
    }
    assert found == NOT_FOR_OTHERS


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"figures": [1.5, number]})
    assert _writes_json("file.write_text(json.dumps(figures))") == ["json.dumps(figures)"]
