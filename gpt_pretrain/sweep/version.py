"""Which version of the code a trial ran."""

import subprocess
from importlib import metadata
from pathlib import Path


def code_version() -> str:
    """The package's version; in a clone also the commit, with `-dirty` where files differ from it."""
    try:
        version = metadata.version("gpt_pretrain")
    except metadata.PackageNotFoundError:
        version = ""
    package = Path(__file__).parent.parent
    if not (package.parent / ".git").exists():
        return version
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return version
    return " ".join(filter(None, [version, done.stdout.strip()]))
