"""What tests share: the book's story where it is at hand, small settings, and runs of the real program."""

import importlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_pretrain.cli import commands
from gpt_pretrain.data.sources import cache_dir

# Before torch is loaded, and for the programs that tests start: models so small gain nothing by threads, and
# no sum then depends on how many cores there are. Tests with threads: OMP_NUM_THREADS=4 pytest
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
# Runs that are compared with float32 arithmetic say trainer.precision=32-true themselves, after QUICK.
PRECISION = os.environ.get("GPT_PRETRAIN_TEST_PRECISION", "32-true")
QUICK = [
    *("model=tiny", "tokenizer=bytes", "trainer=cpu", f"trainer.precision={PRECISION}"),
    *("decoding.max_new_tokens=3", "logger.pictures=false"),  # a run's pictures take longer than its steps
]
STORY = Path(os.environ.get("GPT_PRETRAIN_TEST_DATA") or cache_dir()) / "the-verdict.txt"


@pytest.fixture(scope="session", autouse=True)
def _hang_up():
    """Tests that are run under nohup are of programs that are not: those hear SIGHUP, too."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def story() -> Path:
    """The Verdict's file, from GPT_PRETRAIN_TEST_DATA or the cache; tests that need it skip elsewhere."""
    if not STORY.is_file():
        pytest.skip("the-verdict.txt is not here: set GPT_PRETRAIN_TEST_DATA to its folder")
    return STORY


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Tests build their token caches anew, and leave the user's alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT_PRETRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _audible():
    """A test hears what is logged, whatever a program before it in this process has silenced."""
    logging.disable(logging.NOTSET)
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.disabled = False


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


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Type a command in an empty folder: exit code and what went to standard error.

    A name is one of the two scripts, else a module that holds a program of its own name.
    """
    monkeypatch.chdir(tmp_path)

    def type_(name: str, *arguments: str):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        scripts = {"train": commands.train_command, "generate": commands.generate_command}
        program = scripts.get(name) or getattr(importlib.import_module(f"gpt_pretrain.{name}"), name)
        try:
            program()
        except SystemExit as exit_:
            return exit_.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return type_
