"""Which tokenizer lies in a folder: told by its files, never by how many ids there are."""

import json

import pytest

from gpt_pretrain.config import TokenizerConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.tokenizer import (
    build_tokenizer,
    byte_lengths,
    count_pieces,
    find_tokenizer,
    learn_ranks,
    tokenizer_files,
    tokenizer_fingerprint,
)

TEXT = "The statement, 漢字 été\n    return  <|endoftext|>"


def of(name):
    learned = learn_ranks(count_pieces([TEXT * 3]), 300) if name == "trained" else TEXT
    return build_tokenizer(TokenizerConfig(name=name), learned)


def laid(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.mark.parametrize("by", ["us", "transformers", "tokenizer.json alone", "save_pretrained"])
@pytest.mark.parametrize("name", ["gpt2", "bytes", "characters", "trained"])
def test_every_tokenizer_is_found_whoever_wrote_the_folder(name, by, tmp_path):
    tokenizer = of(name)
    files = tokenizer_files(tokenizer)
    laid(tmp_path, files)
    if by != "us":
        (tmp_path / "tokenizer_settings.json").unlink()
    if by in ("tokenizer.json alone", "save_pretrained"):
        transformers = pytest.importorskip("transformers")
        config = {"model_type": "gpt2", "eos_token_id": tokenizer.end_of_text_id}
        laid(tmp_path, {"config.json": config})
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        for file in tmp_path.iterdir():
            file.unlink()
        theirs.save_pretrained(tmp_path)
        if by == "tokenizer.json alone":
            (tmp_path / "tokenizer_config.json").unlink()
            laid(tmp_path, {"config.json": config})
    found = find_tokenizer(tmp_path)
    assert found.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()
    assert (found.vocab_size, found.end_of_text_id) == (tokenizer.vocab_size, tokenizer.end_of_text_id)
    assert [found.decode_bytes([i]) for i in range(300)] == [tokenizer.decode_bytes([i]) for i in range(300)]


def test_gpt2_s_files_need_no_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    laid(tmp_path, {k: v for k, v in of("gpt2").files().items() if k != "tokenizer_config.json"})
    assert find_tokenizer(tmp_path).name == "gpt2"
    for theirs, ours in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        (tmp_path / ours).rename(tmp_path / theirs)
    assert find_tokenizer(tmp_path).name == "gpt2"


def test_another_vocabulary_in_gpt2_s_two_files_is_no_gpt2(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    learned = tokenizers.ByteLevelBPETokenizer()
    learned.train_from_iterator(["hello there, hello world"] * 5, vocab_size=300)
    learned.save_model(str(tmp_path))
    laid(tmp_path, {"tokenizer_config.json": {"eos_token": {"content": "</s>"}}})
    found = find_tokenizer(tmp_path)
    assert found.encode("hello there").tolist() == learned.encode("hello there").ids
    assert found.decode_bytes([found.end_of_text_id]) == b"</s>"


def test_an_empty_folder_has_none(tmp_path):
    assert find_tokenizer(tmp_path) is None


WORDS = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"tokenizer.json": WORDS}, InputError, "tokens ends a text"),
        ({"tokenizer.json": WORDS, "config.json": {"eos_token_id": 7}}, InputError, "ends a text"),
        ({"tokenizer.json": []}, ArtifactError, "no tokenizer"),
        ({"tokenizer.json": {"model": 3}}, ArtifactError, "no tokenizer"),
        ({"tokenizer.json": {"pre_tokenizer": "x"}}, ArtifactError, "no tokenizer"),
        ({"tokenizer.json": {"added_tokens": [1]}, "config.json": {}}, ArtifactError, "no tokenizer"),
        ({"tokenizer.json": b"[" * 100_000}, ArtifactError, "no tokenizer"),
        ({"vocab.json": [], "merges.txt": b""}, ArtifactError, "no tokenizer"),
        ({"vocab.json": {"a": "b"}, "merges.txt": b"\xff"}, InputError, "ends a text"),
        (
            {
                "vocab.json": {"</s>": "b"},
                "merges.txt": b"\xff",
                "special_tokens_map.json": {"eos_token": "</s>"},
            },
            ArtifactError,
            "no tokenizer",
        ),
        (
            {
                "tokenizer.json": WORDS | {"model": WORDS["model"] | {"vocab": {"a": 0, "</s>": 1 << 31}}},
                "tokenizer_config.json": {"eos_token": "</s>"},
            },
            ArtifactError,
            "above",
        ),
    ],
)
def test_files_that_say_nothing_or_lie_are_refused_in_one_line(tmp_path, files, error, said):
    laid(tmp_path, files)
    with pytest.raises(error, match=said) as refused:
        find_tokenizer(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


CHAT = ["<|im_start|>", "<|im_end|>"]


def chat_tuned(form, folder):
    """GPT-2's folder with chat tokens as transformers writes it now, wrote it, and wrote it before that."""
    transformers = pytest.importorskip("transformers")
    laid(folder, of("gpt2").files())
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.add_special_tokens({"additional_special_tokens": CHAT, "eos_token": CHAT[1]})
    ids = {token: theirs.convert_tokens_to_ids(token) for token in CHAT}
    if form == "tokenizer.json":
        theirs.save_pretrained(folder)
        for name in ("vocab.json", "merges.txt"):
            (folder / name).unlink()
    elif form == "added_tokens_decoder":
        added = {str(id_): {"content": token, "special": True} for token, id_ in ids.items()}
        laid(folder, {"tokenizer_config.json": {"eos_token": CHAT[1], "added_tokens_decoder": added}})
    else:
        laid(folder, {"tokenizer_config.json": {"eos_token": CHAT[1]}, "added_tokens.json": ids})
    return theirs


@pytest.mark.parametrize("form", ["tokenizer.json", "added_tokens_decoder", "added_tokens.json"])
def test_a_chat_tuned_gpt2_ends_where_its_files_say_and_is_handed_on_so(form, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = chat_tuned(form, tmp_path)
    found = find_tokenizer(tmp_path)
    assert found.name == "gpt2"
    assert found.end_of_text_id == theirs.eos_token_id != 50256
    assert byte_lengths(found)[theirs.eos_token_id] == 0
    for token in (*CHAT, "<|endoftext|>"):
        assert found.encode(f"a{token}", allow_special=True).tolist() == theirs.encode(f"a{token}")
    assert tokenizer_fingerprint(found) != tokenizer_fingerprint(of("gpt2"))
    on = tmp_path / "on"
    on.mkdir()
    laid(on, tokenizer_files(found))
    assert find_tokenizer(on).settings() == found.settings()
    assert find_tokenizer(on).end_of_text_id == found.end_of_text_id
    assert transformers.AutoTokenizer.from_pretrained(on).eos_token_id == theirs.eos_token_id


@pytest.mark.parametrize("eos", [50258, [50258, 50256]])
def test_the_settings_of_generation_say_the_end_where_the_tokenizer_s_do_not(eos, tmp_path):
    chat_tuned("added_tokens_decoder", tmp_path)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del said["eos_token"]
    laid(tmp_path, {"tokenizer_config.json": said, "config.json": {"eos_token_id": 50256}})
    assert find_tokenizer(tmp_path).end_of_text_id == 50256
    laid(tmp_path, {"generation_config.json": {"eos_token_id": eos}})
    assert find_tokenizer(tmp_path).end_of_text_id == 50258


def test_gpt2_s_vocabulary_with_an_end_in_its_midst_is_read_as_the_library_reads_it(tmp_path):
    laid(tmp_path, of("gpt2").files() | {"tokenizer_config.json": {"eos_token": "!"}})
    found = find_tokenizer(tmp_path)
    assert found.end_of_text_id == 0
    assert found.encode(TEXT).tolist() == of("gpt2").encode(TEXT).tolist()


@pytest.mark.parametrize("form", ["two files", "tokenizer.json"])
def test_a_gpt2_that_sets_a_space_before_a_text_is_read_so_and_handed_on_so(form, tmp_path):
    transformers = pytest.importorskip("transformers")
    laid(tmp_path, of("gpt2").files())
    if form == "tokenizer.json":
        transformers.AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
        for name in ("vocab.json", "merges.txt"):
            (tmp_path / name).unlink(missing_ok=True)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    laid(tmp_path, {"tokenizer_config.json": said | {"add_prefix_space": True}})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    found = find_tokenizer(tmp_path)
    on = tmp_path / "on"
    on.mkdir()
    laid(on, tokenizer_files(found))
    handed_on = transformers.AutoTokenizer.from_pretrained(on)
    for text in ("Hello world", " Hello", TEXT):
        ids = theirs.encode(text)
        assert found.encode(text, allow_special=True).tolist() == ids == handed_on.encode(text)
    assert theirs.encode("Hello") == of("gpt2").encode(" Hello").tolist()  # the control
    assert found.end_of_text_id == theirs.eos_token_id


def test_tokens_set_around_a_text_are_left_out_and_that_is_said(tmp_path, capsys):
    laid(tmp_path, of("gpt2").files())
    find_tokenizer(tmp_path)
    assert capsys.readouterr().err == ""
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    laid(tmp_path, {"tokenizer_config.json": said | {"add_bos_token": True}})
    assert find_tokenizer(tmp_path).encode("a").tolist() == of("gpt2").encode("a").tolist()
    (line,) = capsys.readouterr().err.splitlines()
    assert "tokenizer_config.json sets tokens around each text: they are left out" in line


def test_a_template_is_left_out_so_that_prompts_are_as_in_training(tmp_path, capsys):
    library, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    laid(tmp_path, of("trained").files())
    whole = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    bos = whole.token_to_id("<|endoftext|>")
    template = library.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    whole.post_processor = library.processors.Sequence([library.processors.ByteLevel(), template])
    whole.save(str(tmp_path / "tokenizer.json"))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).encode("a")[0] == bos  # the control
    found = find_tokenizer(tmp_path)
    assert "tokenizer.json sets tokens around each text" in capsys.readouterr().err
    on = tmp_path / "on"
    on.mkdir()
    laid(on, tokenizer_files(found))
    ids = found.encode("the statement").tolist()
    assert bos not in ids
    assert transformers.AutoTokenizer.from_pretrained(on).encode("the statement") == ids
    again = find_tokenizer(on)
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(found)
    assert capsys.readouterr().err == ""  # of ours, which was trained without
