"""The tokenizer that lies beside weights: what a checkpoint keeps of it, and what other programs leave.

How many ids a model has says nothing about what they mean: only files do, or the user.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import parse_json
from gpt_pretrain.terminal.text import show
from gpt_pretrain.tokenizer.bpe import ENCODINGS, RANKS_FILE, BPETokenizer, gpt2_ranks, read_ranks
from gpt_pretrain.tokenizer.build import special_above
from gpt_pretrain.tokenizer.protocol import END_OF_TEXT, Tokenizer, added_token, to_json
from gpt_pretrain.tokenizer.small import ByteTokenizer, CharacterTokenizer
from gpt_pretrain.tokenizer.tokenizer_json import HuggingFaceTokenizer

TOKENIZER_FILE = "tokenizer_settings.json"  # beside the tokenizer's own files
# Vocabulary and merges as GPT-2's tokenizers have them: transformers' names, then OpenAI's.
_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))

Read = Callable[[Path], bytes]  # how files are read: with which bounds, following which links


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """All that a folder needs for the tokenizer to be found again, by us and by transformers."""
    return tokenizer.files() | {TOKENIZER_FILE: to_json(tokenizer.settings())}


def load_tokenizer(folder: Path, read: Read = Path.read_bytes) -> Tokenizer:
    """The tokenizer of `tokenizer_files` in a folder. Raises ArtifactError."""
    try:
        settings = parse_json(read(folder / TOKENIZER_FILE))
        match settings["name"]:
            case "bytes":
                return ByteTokenizer(settings["special_tokens"])
            case "characters":
                return CharacterTokenizer(settings["alphabet"], settings["special_tokens"])
            case "huggingface":
                content = read(folder / "tokenizer.json")
                return HuggingFaceTokenizer(content, settings["end_of_text"], settings["special_tokens"])
            case "gpt2":
                ranks = gpt2_ranks(read(folder / "vocab.json"))
            case _:
                ranks = read_ranks(read(folder / RANKS_FILE), str(folder / RANKS_FILE))
        end_of_text = settings.get("end_of_text", END_OF_TEXT)
        return BPETokenizer(settings["name"], ranks, settings["pattern"], settings["special"], end_of_text)
    except (ArtifactError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{folder}: its tokenizer cannot be read: {error}") from error


def find_tokenizer(folder: Path, read: Read = Path.read_bytes) -> Tokenizer | None:
    """The tokenizer that lies in a folder, whoever left it there; None where there is none.

    Raises ArtifactError for one that cannot be read, InputError where something has to be said about it.
    """
    if (folder / TOKENIZER_FILE).is_file():
        return load_tokenizer(folder, read)
    try:
        if (folder / "tokenizer.json").is_file():
            return _from_tokenizer_json(folder, read)
        for vocab, merges in _PAIRS:
            if (folder / vocab).is_file() and (folder / merges).is_file():
                return _from_pair(folder, vocab, merges, read)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # of another shape than ours
        raise ArtifactError(f"{folder}: no tokenizer can be read from its files: {error!r}") from error
    return None


def _from_tokenizer_json(folder: Path, read: Read) -> Tokenizer:
    content = read(folder / "tokenizer.json")
    whole = _parsed(content, folder / "tokenizer.json")
    config = _object(folder / "tokenizer_config.json", read)
    before = whole.get("pre_tokenizer") or {}
    # transformers' own class for GPT-2 builds this step anew, as the settings beside it say.
    rebuilt = before.get("type") == "ByteLevel" and str(config.get("tokenizer_class")).startswith("GPT2Tok")
    if rebuilt and config.get("add_prefix_space") and not before.get("add_prefix_space"):
        before["add_prefix_space"] = True
        content = to_json(whole)
    is_gpt2, end_of_text = _is_gpt2(whole), _end_of_text(folder, read, whole)
    if is_gpt2:
        added = {str(entry["content"]): int(entry["id"]) for entry in whole.get("added_tokens") or []}
        if (gpt2 := _gpt2(added, end_of_text)) is not None:
            return gpt2
    found = HuggingFaceTokenizer(content, end_of_text, path=f"{folder}/tokenizer.json")
    if found.adds:
        _say_what_is_left_out(folder / "tokenizer.json")
    return found


def _from_pair(folder: Path, vocab: str, merges: str, read: Read) -> Tokenizer:
    """GPT-2's own, or another vocabulary in its form, which the tokenizers library merges."""
    ids = _parsed(read(folder / vocab), folder / vocab)
    added = _added_beside(folder, read)
    lines = read(folder / merges).decode("utf-8", "replace").splitlines()
    config = _object(folder / "tokenizer_config.json", read)
    spaced = bool(config.get("add_prefix_space"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": True}
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    whole = {
        "version": "1.0",
        "added_tokens": [added_token(token, added[token]) for token in sorted(added, key=added.__getitem__)],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": ids, "merges": pairs},
    }
    end_of_text = _end_of_text(folder, read, whole)
    if config.get("add_bos_token"):
        _say_what_is_left_out(folder / "tokenizer_config.json")
    if not spaced and ids == _published() and (gpt2 := _gpt2(added, end_of_text)) is not None:
        return gpt2
    return HuggingFaceTokenizer(to_json(whole), end_of_text, [end_of_text], f"{folder}/{vocab}")


def _say_what_is_left_out(file: Path) -> None:
    show(
        f"{file} sets tokens around each text: they are left out, here and in what is written",
        file=sys.stderr,
    )


def _is_gpt2(whole: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json holds GPT-2's published vocabulary and does nothing else to a text."""
    model, before = whole.get("model") or {}, whole.get("pre_tokenizer") or {}
    return (
        before.get("type") == "ByteLevel"
        and not before.get("add_prefix_space")
        and before.get("use_regex", True)
        and whole.get("normalizer") is None
        and not model.get("ignore_merges")
        and model.get("vocab") == _published()
    )


def _published() -> dict[str, int]:
    """GPT-2's tokens in their stand-in characters, with the end of a text."""
    return dict(parse_json(BPETokenizer("gpt2", gpt2_ranks(), *ENCODINGS["gpt2"]).files()["vocab.json"]))


def _gpt2(added: dict[str, int], end_of_text: str) -> Tokenizer | None:
    """GPT-2's with special tokens above it; None where they have other ids, or a plain token ends a text."""
    pattern, special = ENCODINGS["gpt2"]
    ranks = gpt2_ranks()
    above = sorted((token for token in added if token not in special), key=added.__getitem__)
    more = special_above(ranks, special, above)
    if end_of_text not in more or any(more[token] != id_ for token, id_ in added.items()):
        return None
    return BPETokenizer("gpt2", ranks, pattern, more, end_of_text)


def _added_beside(folder: Path, read: Read) -> dict[str, int]:
    """Tokens that were added to a vocabulary, and their ids: as transformers writes them, then as it did."""
    config = _object(folder / "tokenizer_config.json", read)
    if listed := config.get("added_tokens_decoder"):
        return {str(entry["content"]): int(id_) for id_, entry in listed.items()}
    return {token: int(id_) for token, id_ in _object(folder / "added_tokens.json", read).items()}


def _end_of_text(folder: Path, read: Read, whole: Mapping[str, Any]) -> str:
    """The token that ends a text, by whichever file says it. Raises InputError where none does."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _object(folder / name, read).get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    ids = {entry["content"]: entry["id"] for entry in whole.get("added_tokens") or []}
    vocab = (whole.get("model") or {}).get("vocab")
    ids = (vocab if isinstance(vocab, dict) else {}) | ids
    for name in ("generation_config.json", "config.json"):
        wanted = _object(folder / name, read).get("eos_token_id")
        first = wanted[0] if isinstance(wanted, list) and wanted else wanted  # of several the main one
        for token, id_ in ids.items():
            if isinstance(first, int) and id_ == first:
                return token
    if END_OF_TEXT in ids:
        return END_OF_TEXT
    raise InputError(
        f"{folder} does not say which of its tokenizer's tokens ends a text: set tokenizer=huggingface "
        f"tokenizer.path={folder}/tokenizer.json tokenizer.end_of_text=<one of its tokens>"
    )


def _object(file: Path, read: Read) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    return _parsed(read(file), file) if file.is_file() else {}


def _parsed(content: bytes, file: Path) -> dict[str, Any]:
    try:
        whole = parse_json(content)
    except ValueError as error:
        raise ArtifactError(f"{file} is no tokenizer: {error}") from error
    if not isinstance(whole, dict):
        raise ArtifactError(f"{file} is no tokenizer: it is no JSON object")
    return whole
