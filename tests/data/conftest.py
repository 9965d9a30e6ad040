"""What the data tests share: a cache of their own, and settings for files."""

import pytest

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data.corpus import load_corpus
from gpt_pretrain.tokenizer import build_tokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("GPT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def load(cache):
    """load("path", split="tokens") gives the corpus of byte tokens, or of another tokenizer's."""

    def load(path, tokenizer="bytes", **settings):
        config = DataConfig(**{"source": "text_files", "path": path and str(path), **settings})
        config.check()
        return load_corpus(config, build_tokenizer(tokenizer))

    return load


@pytest.fixture
def text_of():
    """The text of byte tokens, `|` where a document ends."""

    def text_of(tokens):
        tokenizer = build_tokenizer("bytes")
        return tokenizer.decode_bytes(tokens[:].tolist()).decode().replace("<|endoftext|>", "|")

    return text_of
