"""Where text comes from. Every source gives one string, and an InputError that names the file where it
cannot.
"""

import glob
import hashlib
import os
import pydoc_data.topics
import urllib.error
import urllib.request
from pathlib import Path

from gpt_pretrain.config import DataConfig
from gpt_pretrain.errors import ArtifactError, InputError


def read_text(config: DataConfig) -> str:
    """The whole text of the configured source."""
    match config.source:
        case "python_reference":
            topics = pydoc_data.topics.topics
            return "\n\n".join(topics[name] for name in sorted(topics))
        case "the_verdict":
            return _read_file(Path(config.path) if config.path else _the_verdict(config))
        case _:
            return "\n\n".join(_read_file(file) for file in _find_files(config))


def cache_dir() -> Path:
    """What all runs share: downloads and token caches."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GPT_PRETRAIN_CACHE") or Path(base) / "gpt_pretrain")


def _find_files(config: DataConfig) -> list[Path]:
    path = Path(config.path or "")
    if path.is_dir():
        found = sorted(file for file in path.rglob(config.pattern) if file.is_file())
        if not found:
            raise InputError(f"data.path={path} holds no file named {config.pattern}: set data.pattern")
        return found
    found = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not found:
        raise InputError(f"data.path={path}: no such file or folder, and no file matches it as a pattern")
    return [file for file in found if file.is_file()]


def _read_file(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"data.path={path} cannot be read: {error.strerror}") from error
    if not content.strip():
        raise InputError(f"data.path={path} is empty: give a file with text")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"data.path={path} is not UTF-8: byte {error.start} is {content[error.start]:#04x}\n"
            f"convert it first, as in: iconv -f latin1 -t utf-8 {path.name} > utf8.txt"
        ) from error


def _the_verdict(config: DataConfig) -> Path:
    """The story's file in the cache, downloaded once and checked against its SHA-256."""
    path = cache_dir() / "the-verdict.txt"
    if path.exists():
        return path
    remedy = "download it by hand and give its file as data.path=<the-verdict.txt>"
    try:
        with urllib.request.urlopen(config.url or "", timeout=5) as response:
            content = response.read(1 << 20)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise InputError(f"data.url={config.url} cannot be reached ({error}):\n{remedy}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != config.sha256:
        raise ArtifactError(f"{config.url} has SHA-256 {digest}, not {config.sha256}:\n{remedy}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.rename(path)
    return path
