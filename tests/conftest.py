"""What tests share: the book's story where it is at hand, small settings, and runs of the real program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def story() -> Path:
    """The Verdict's file, from GPT_PRETRAIN_TEST_DATA; tests that need it skip where it is absent."""
    folder = os.environ.get("GPT_PRETRAIN_TEST_DATA") or ROOT.parent / "shared" / "data"
    file = Path(folder) / "the-verdict.txt"
    if not file.is_file():
        pytest.skip("the-verdict.txt is not here: set GPT_PRETRAIN_TEST_DATA to its folder")
    return file


@pytest.fixture
def program(tmp_path):
    """Run one of the programs in an empty folder, as a user would: program("train.py", "model=tiny")."""

    def run(script: str, *arguments: str, timeout: float = 300, env: dict[str, str] | None = None):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        return subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
