"""A tokenizer made from the text: from its training part alone, once, and the same for everybody."""

import json

import numpy as np
import pytest

from gpt_pretrain.config import DataConfig, TokenizerConfig
from gpt_pretrain.data import learned
from gpt_pretrain.data.corpus import load_corpus
from gpt_pretrain.data.learned import tokenizer_for
from gpt_pretrain.data.sources import cache_dir
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import learn_ranks, tokenizer_fingerprint
from tests.conftest import QUICK

SETTINGS = TokenizerConfig(name="trained", vocab_size=300)


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A text whose validation part, by characters, repeats a word that its training part lacks."""
    monkeypatch.setenv("GPT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "text.txt"
    path.write_text("the statement that the reader reads " * 100 + "zyzzyva " * 49)
    return path


def config_of(path, **more):
    return DataConfig(**{"source": "text_files", "path": str(path), **more})


def tokens_of(tokenizer):
    return {tokenizer.decode_bytes([id_]) for id_ in range(tokenizer.vocab_size)}


@pytest.mark.parametrize("split", ["characters", "tokens"])
def test_what_validates_is_not_learned_from(text, split):
    learned_tokens = tokens_of(tokenizer_for(config_of(text, split=split), SETTINGS))
    assert b" statement" in learned_tokens
    assert not [token for token in learned_tokens if b"zy" in token]


def test_with_documents_each_is_on_one_side(tmp_path, text):
    words = [f" {first}{second}qu" for first in "abcdef" for second in "aeiou"]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": word * 20}) for word in words))
    config = config_of(tmp_path / "rows.jsonl", split="documents", val_fraction=0.3)
    tokenizer = tokenizer_for(config, TokenizerConfig(name="trained", vocab_size=2000))
    val = tokenizer.decode_bytes(load_corpus(config, tokenizer).val[:10_000].tolist()).decode()
    held_out = {word for word in words if word in val}
    assert len(held_out) > 3
    assert {word for word in words if word.encode() in tokens_of(tokenizer)} == set(words) - held_out


def test_another_validation_text_leaves_the_whole_text_to_learn_from(tmp_path, text):
    (tmp_path / "val.txt").write_text("qqqq " * 100)
    found = tokens_of(tokenizer_for(config_of(text, val_path=str(tmp_path / "val.txt")), SETTINGS))
    assert [token for token in found if b"zy" in token]
    assert not [token for token in found if b"qq" in token]


def test_it_is_trained_once_and_again_only_for_another_text_or_settings(text, monkeypatch):
    times = []

    def counted(*arguments):
        times.append(1)
        return learn_ranks(*arguments)

    monkeypatch.setattr(learned, "learn_ranks", counted)
    first = tokenizer_fingerprint(tokenizer_for(config_of(text), SETTINGS))
    assert tokenizer_fingerprint(tokenizer_for(config_of(text), SETTINGS)) == first
    assert len(times) == 1
    (note,) = (cache_dir() / "tokenizers").iterdir()
    for damage in (b"", b"[1, 2]", note.read_bytes()[:-9]):
        note.write_bytes(damage)
        assert tokenizer_fingerprint(tokenizer_for(config_of(text), SETTINGS)) == first
    assert len(times) == 4
    tokenizer_for(config_of(text, val_fraction=0.5), SETTINGS)
    tokenizer_for(config_of(text), TokenizerConfig(name="trained", vocab_size=301))
    text.write_text("another text " * 99)
    tokenizer_for(config_of(text), SETTINGS)
    assert len(times) == 7


def test_the_vocabulary_counts_every_id(text):
    special = TokenizerConfig(name="trained", vocab_size=300, special_tokens=["<|a|>", "<|b|>"])
    tokenizer = tokenizer_for(config_of(text), special)
    assert tokenizer.vocab_size == 300 or len(tokens_of(tokenizer)) == tokenizer.vocab_size
    assert tokenizer.encode("<|b|>", allow_special=True).tolist() == [tokenizer.vocab_size - 1]
    with pytest.raises(InputError, match="cannot hold 256 bytes and 1 \\+ 2 special tokens: at least 259"):
        TokenizerConfig(name="trained", vocab_size=258, special_tokens=["<|a|>", "<|b|>"]).check()


@pytest.mark.parametrize("path", [None, "text.txt"])
def test_what_becomes_one_id_is_not_learned_from(tmp_path, text, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    text.write_text("<|endoftext|>".join(f"one <|pad|> more tree{n % 3}" for n in range(300)))
    settings = TokenizerConfig(name="trained", vocab_size=400, special_tokens=["<|pad|>"], path=path)

    def of_marks(**more):
        found = tokens_of(tokenizer_for(config_of(text, split="documents", **more), settings))
        found -= {b"<|endoftext|>", b"<|pad|>"}
        return {
            token for token in found if len(token) > 1 and any(p in token for p in (b"pad", b"<|", b"of"))
        }

    assert of_marks()  # read as text, they are learned as text
    assert of_marks(special_tokens=True) == set()


def test_only_as_much_text_as_is_asked_for_is_learned_from(text):
    text.write_text("abcabc " * 200_000 + "xyzxyz " * 200_000)  # 1.4 and 1.4 million characters
    config = TokenizerConfig(name="trained", vocab_size=300, train_mb=1)
    found = tokens_of(tokenizer_for(config_of(text), config))
    assert b" abcabc" in found
    assert not [token for token in found if b"xy" in token]


def test_tokens_are_no_text_to_learn_from_but_another_text_may_be_given(tmp_path, text):
    np.arange(200, dtype=np.uint16).tofile(tmp_path / "train.bin")
    config = DataConfig(source="token_files", path=str(tmp_path / "train.bin"), split="tokens")
    with pytest.raises(InputError, match=r"train.bin holds tokens\nname .*tokenizer=gpt2, or give the text"):
        tokenizer_for(config, SETTINGS)
    given = TokenizerConfig(name="trained", vocab_size=300, path=str(text))
    assert b" statement" in tokens_of(tokenizer_for(config, given))


def test_a_run_its_checkpoint_and_what_begins_from_it_have_one_tokenizer(typed, tmp_path, text):
    settings = [*QUICK, "tokenizer=trained", "tokenizer.vocab_size=300", "trainer.max_steps=2", "logger=csv"]
    data = ["data=text_files", f"data.path={text}", "model.context_length=16"]
    assert typed("train", *settings, *data, "hydra.run.dir=run")[0] == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("*2")
    ranks = (checkpoint / "ranks.tiktoken").read_bytes()
    assert typed("train", "resume=run", "trainer.max_steps=3")[0] == 0
    code, error = typed("train", "resume=run", "trainer.max_steps=4", "tokenizer.vocab_size=301")
    assert (code, "tokenizer.vocab_size is 301, but it was 300" in error) == (2, True)
    (tmp_path / "other.txt").write_text("quite another text of other words " * 100)
    other = ["data=text_files", "data.path=other.txt", "model=from_weights", "weights=checkpoint"]
    begun = [*settings, *other, "weights.path=run", "hydra.run.dir=begun"]
    assert typed("train", *begun)[0] == 0
    (checkpoint,) = (tmp_path / "begun" / "checkpoints").glob("*2")
    assert (checkpoint / "ranks.tiktoken").read_bytes() == ranks
    assert typed("generate", "checkpoint=begun", "decoding.max_new_tokens=3")[0] == 0
    assert typed("export", "checkpoint=begun", "out=out")[0] == 0
    assert typed("generate", "checkpoint=out", "prompt=the", "decoding.max_new_tokens=3")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: ")
    assert "other.txt" in card
    assert "| validation loss |" in card
    code, error = typed("train", *begun[:-1], "hydra.run.dir=third", "tokenizer=bytes")
    assert (code, "set tokenizer=from_weights" in error) == (2, True)
