"""Tokenizers from settings."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gpt_pretrain.config import TokenizerConfig, nearest
from gpt_pretrain.errors import InputError
from gpt_pretrain.foreign import LARGE, open_plain, read_at_most
from gpt_pretrain.tokenizer.bpe import ENCODINGS, BPETokenizer, gpt2_ranks, read_ranks
from gpt_pretrain.tokenizer.protocol import END_OF_TEXT, Tokenizer
from gpt_pretrain.tokenizer.small import ByteTokenizer, CharacterTokenizer
from gpt_pretrain.tokenizer.tokenizer_json import HuggingFaceTokenizer

Learned = str | dict[bytes, int] | None


def build_tokenizer(config: TokenizerConfig | str, learned: Learned = None) -> Tokenizer:
    """The tokenizer that `config` describes; a text alone is its name.

    `learned` from a text, by data.learned: the alphabet of `characters`, the ranks of `trained`.

    Raises InputError or ArtifactError for a file that cannot be read or is none.
    """
    if isinstance(config, str):
        config = TokenizerConfig(name=config)
    build = TOKENIZERS.get(config.name)
    if build is None:
        known = ", ".join(TOKENIZERS)
        raise InputError(
            f"tokenizer.name={config.name} is none of {known}{nearest(config.name, list(TOKENIZERS))}"
        )
    return build(config, learned)


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Differs wherever two tokenizers give different tokens."""
    settings: dict[str, Any] = tokenizer.settings()
    content = ""
    if isinstance(tokenizer, BPETokenizer):
        content = repr(tokenizer.ranks)
    elif isinstance(tokenizer, HuggingFaceTokenizer):
        content = tokenizer.files()["tokenizer.json"].decode()
    text = json.dumps(settings, sort_keys=True) + content
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def _gpt2(special_tokens: tuple[str, ...]) -> Tokenizer:
    ranks = gpt2_ranks()
    pattern, special = ENCODINGS["gpt2"]
    return BPETokenizer("gpt2", ranks, pattern, special_above(ranks, special, list(special_tokens)))


def special_above(ranks: dict[bytes, int], special: dict[str, int], added: list[str]) -> dict[str, int]:
    """The encoding's special tokens, then the added ones. Other ranks than its own get them right above."""
    highest = max(ranks.values())
    if min(special.values()) <= highest or highest + 2 < min(special.values()):
        special = {token: highest + 1 + n for n, token in enumerate(special)}
    first = max([highest, *special.values()]) + 1
    return special | {token: first + n for n, token in enumerate(t for t in added if t not in special)}


def _characters(config: TokenizerConfig, learned: Learned) -> Tokenizer:
    assert isinstance(learned, str)
    return CharacterTokenizer(learned, config.special_tokens)


def _trained(config: TokenizerConfig, learned: Learned) -> Tokenizer:
    assert isinstance(learned, dict)
    pattern, _ = ENCODINGS["gpt2"]
    special = special_above(learned, {END_OF_TEXT: max(learned.values()) + 1}, config.special_tokens)
    return BPETokenizer("trained", learned, pattern, special)


def _tiktoken(config: TokenizerConfig, learned: Learned) -> Tokenizer:
    ranks = read_ranks(_read(config.path), str(config.path))
    pattern, special = ENCODINGS[config.encoding]
    special = special_above(ranks, special, config.special_tokens)
    return BPETokenizer(f"tiktoken {config.encoding}", ranks, config.pattern or pattern, special)


def _hugging_face(config: TokenizerConfig, learned: Learned) -> Tokenizer:
    return HuggingFaceTokenizer(
        _read(config.path), config.end_of_text, config.special_tokens, str(config.path)
    )


# By tokenizer.name. A new one is an entry here and its option in conf/tokenizer/, and where it is no BPE
# a case in folder.py's `load_tokenizer`.
TOKENIZERS: dict[str, Callable[[TokenizerConfig, Learned], Tokenizer]] = {
    "gpt2": lambda config, learned: _gpt2(tuple(config.special_tokens)),
    "tiktoken": _tiktoken,
    "bytes": lambda config, learned: ByteTokenizer(config.special_tokens),
    "characters": _characters,
    "trained": _trained,
    "huggingface": _hugging_face,
}


def _read(path: str | None) -> bytes:
    try:
        with open_plain(Path(path or ""), follow=True) as stream:
            content = read_at_most(stream, LARGE)
    except OSError as error:
        raise InputError(f"tokenizer.path={path} cannot be read: {error.strerror}") from error
    if len(content) > LARGE:
        raise InputError(f"tokenizer.path={path} is larger than any tokenizer's file")
    return content
