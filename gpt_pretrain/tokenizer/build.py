"""Tokenizers from settings, and from the files of a checkpoint."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gpt_pretrain.config import TokenizerConfig, nearest
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.tokenizer.bpe import ENCODINGS, RANKS_FILE, BPETokenizer, gpt2_ranks, read_ranks
from gpt_pretrain.tokenizer.protocol import Tokenizer, to_json
from gpt_pretrain.tokenizer.small import ByteTokenizer, CharacterTokenizer
from gpt_pretrain.tokenizer.tokenizer_json import HuggingFaceTokenizer

TOKENIZER_FILE = "tokenizer_settings.json"  # in a checkpoint, beside the tokenizer's own files


def build_tokenizer(config: TokenizerConfig | str, alphabet: str | None = None) -> Tokenizer:
    """The tokenizer that `config` describes; a text alone is its name. `characters` needs an `alphabet`.

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
    return build(config, alphabet)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that travels in a checkpoint, from the checkpoint's files alone. Raises ArtifactError."""
    try:
        settings = json.loads((folder / TOKENIZER_FILE).read_bytes())
        match settings["name"]:
            case "bytes":
                return ByteTokenizer(settings["special_tokens"])
            case "characters":
                return CharacterTokenizer(settings["alphabet"], settings["special_tokens"])
            case "huggingface":
                content = (folder / "tokenizer.json").read_bytes()
                return HuggingFaceTokenizer(content, settings["end_of_text"], settings["special_tokens"])
            case "gpt2":
                ranks = gpt2_ranks((folder / "vocab.json").read_bytes())
            case _:
                ranks = read_ranks((folder / RANKS_FILE).read_bytes(), str(folder / RANKS_FILE))
        return BPETokenizer(settings["name"], ranks, settings["pattern"], settings["special"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}: its tokenizer cannot be read: {error}") from error


def settings_file(tokenizer: Tokenizer) -> bytes:
    """Content of `TOKENIZER_FILE`."""
    return to_json(tokenizer.settings())


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
    return BPETokenizer("gpt2", ranks, pattern, _special_above(ranks, special, list(special_tokens)))


def _special_above(ranks: dict[bytes, int], special: dict[str, int], added: list[str]) -> dict[str, int]:
    """The encoding's special tokens, then the added ones. Other ranks than its own get them right above."""
    highest = max(ranks.values())
    if min(special.values()) <= highest or highest + 2 < min(special.values()):
        special = {token: highest + 1 + n for n, token in enumerate(special)}
    first = max([highest, *special.values()]) + 1
    return special | {token: first + n for n, token in enumerate(t for t in added if t not in special)}


def _characters(config: TokenizerConfig, alphabet: str | None) -> Tokenizer:
    assert alphabet is not None, "the data's alphabet: see data.corpus"
    return CharacterTokenizer(alphabet, config.special_tokens)


def _tiktoken(config: TokenizerConfig, alphabet: str | None) -> Tokenizer:
    ranks = read_ranks(_read(config.path), str(config.path))
    pattern, special = ENCODINGS[config.encoding]
    special = _special_above(ranks, special, config.special_tokens)
    return BPETokenizer(f"tiktoken {config.encoding}", ranks, config.pattern or pattern, special)


def _hugging_face(config: TokenizerConfig, alphabet: str | None) -> Tokenizer:
    return HuggingFaceTokenizer(
        _read(config.path), config.end_of_text, config.special_tokens, str(config.path)
    )


# By tokenizer.name. A new one is an entry here and its option in conf/tokenizer/, and where it is no BPE
# a case in `load_tokenizer`.
TOKENIZERS: dict[str, Callable[[TokenizerConfig, str | None], Tokenizer]] = {
    "gpt2": lambda config, alphabet: _gpt2(tuple(config.special_tokens)),
    "tiktoken": _tiktoken,
    "bytes": lambda config, alphabet: ByteTokenizer(config.special_tokens),
    "characters": _characters,
    "huggingface": _hugging_face,
}


def _read(path: str | None) -> bytes:
    try:
        return Path(path or "").read_bytes()
    except OSError as error:
        raise InputError(f"tokenizer.path={path} cannot be read: {error.strerror}") from error
