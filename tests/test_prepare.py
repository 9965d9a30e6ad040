"""`python -m gpt_pretrain.prepare`: what a user types and what is printed, also when it is nonsense."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import PrepareConfig
from gpt_pretrain.data.corpus import load_corpus
from gpt_pretrain.data.learned import tokenizer_for
from gpt_pretrain.errors import UserFacingError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def prepare(tmp_path):
    """prepare("data=text_files", ...) as a user runs it, in an empty folder with an empty cache."""

    def run(*arguments, module="prepare"):
        environment = {**os.environ, "GPT_PRETRAIN_CACHE": str(tmp_path / "cache")}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", f"gpt_pretrain.{module}", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )

    return run


def test_it_tokenizes_once_and_leaves_nothing_behind_but_the_cache(tmp_path, prepare, story):
    first, second = (prepare("data=the_verdict", f"data.path={story}", "tokenizer=gpt2") for _ in range(2))
    assert "4,612 training and 534 validation tokens" in first.stdout
    assert "was tokenized already, checksums hold" in second.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data=text_files"], 2, "data.path is not set"),
        (["data=text_files", "data.path="], 2, "data.path is not set"),
        (["data=text_files", "data.path=nowhere.txt"], 2, "no such file or folder"),
        (["data=text_files", "data.path=latin1.txt"], 2, "latin1.txt is not UTF-8: byte 3 is 0xe9"),
        (["data=text_files", "data.path=empty.txt"], 2, "holds no text"),
        (["data=text_files", "data.path=rows.jsonl"], 2, "data.text_field=text is not in rows.jsonl, line 1"),
        (["data=text_files", "data.path=odd.bin"], 2, "choose data=token_files"),
        (
            ["data=token_files", "data.path=odd.bin", "tokenizer=gpt2"],
            3,
            "3 bytes are not a whole number of uint16 tokens",
        ),
        (
            ["data=token_files", "data.path=high.bin", "tokenizer=gpt2"],
            3,
            "holds id 60000 at token 1, beyond",
        ),
        (["data=mixture"], 2, "data.sources is not set"),
        (["data=mixture", "data.sources={a.txt:0}"], 2, "the weight of a.txt is 0"),
        (["data=mixture", "data.sources=a.txt"], 2, "is no mapping of paths to weights"),
        (["data.sources={a.txt:1}"], 2, "choose data=mixture"),
        (["data.split=sentences"], 2, "is none of characters, tokens, documents"),
        (["data.val_fraction=1"], 2, "data.val_fraction=1.0 is out of range"),
        (["data.text_feild=x"], 2, "did you mean data.text_field?"),
        (["tokenizer=tiktoken"], 2, "tokenizer.path is not set"),
        (["tokenizer=tiktoken", "tokenizer.path=rows.jsonl"], 3, "is no ranks file of tiktoken: line 1"),
        (["tokenizer=characters", "tokenizer.path=nowhere"], 2, "tokenizer.path=nowhere: no such file"),
        (["tokenizer.special_tokens=['a b']"], 2, "'a b' is empty or holds a space"),
    ],
)
def test_nonsense_is_answered_in_a_few_lines(tmp_path, monkeypatch, arguments, code, message):
    (tmp_path / "latin1.txt").write_bytes("café au lait".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "rows.jsonl").write_text('{"body": "a"}\n')
    (tmp_path / "odd.bin").write_bytes(b"abc")
    np.array([1, 60000], np.uint16).tofile(tmp_path / "high.bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT_PRETRAIN_CACHE", str(tmp_path / "cache"))

    def load():
        config = compose("prepare", PrepareConfig, arguments)
        load_corpus(config.data, tokenizer_for(config.data, config.tokenizer))

    with pytest.raises(UserFacingError) as refused:
        load()
    assert message in str(refused.value)
    assert refused.value.exit_code == code
    assert len(str(refused.value).splitlines()) <= 3


def test_the_program_ends_with_the_exit_code_and_says_why_on_stderr(tmp_path, prepare):
    (tmp_path / "odd.bin").write_bytes(b"abc")
    answer = prepare("data=token_files", "data.path=odd.bin", "tokenizer=gpt2")
    assert (answer.returncode, answer.stdout) == (3, "")
    assert answer.stderr.startswith("error: odd.bin is no token file: 3 bytes")


def test_a_large_source_is_tokenized_by_processes_of_its_own(tmp_path, prepare):
    (tmp_path / "a.txt").write_text("All work and no play makes Jack a dull boy.\n" * 50_000)
    answer = prepare("data=text_files", "data.path=a.txt", "data.prepare_workers=2")
    assert "2,200,000 characters" in answer.stdout, answer.stderr
    again = prepare("data=text_files", "data.path=a.txt", "data.prepare_workers=0")
    assert "was tokenized already" in again.stdout


@pytest.mark.parametrize("module", ["prepare", "inspect_data"])
def test_preparing_and_inspecting_import_neither_torch_nor_lightning(tmp_path, prepare, module):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = sys.modules['lightning'] = None\n"  # importing them raises
    )
    assert prepare("data=python_reference", module=module).returncode == 0


def test_inspecting_prints_the_book_s_numbers(prepare, story):
    printed = prepare(
        "data=the_verdict",
        f"data.path={story}",
        "tokenizer=gpt2",
        "model.context_length=256",
        "data.batch_size=2",
        "windows=1",
        module="inspect_data",
    ).stdout
    for line in (
        "tokenizer  gpt2, 50,257 ids",
        "1 documents, 20,479 characters, 5,146 tokens",
        "split by characters: 4,612 training, 534 validation tokens",
        "18 training windows of 256 tokens every 256, 2 validation windows",
        "18 windows / (2 sequences x 1 devices) = 9.0 steps, 4,608 tokens",
        "inputs   '",
    ):
        assert line in printed


def test_inspecting_a_mixture_shows_each_source_s_share_and_passes(tmp_path, prepare):
    (tmp_path / "a.txt").write_text("a " * 2000)
    (tmp_path / "b.txt").write_text("b " * 6000)
    printed = prepare(
        "data=mixture", "data.sources={a.txt:1,b.txt:1}", "tokenizer=bytes", module="inspect_data"
    ).stdout
    assert "50.0% from a.txt: 2.00 passes an epoch" in printed
    assert "50.0% from b.txt: 0.67 passes an epoch" in printed


def test_inspecting_token_files_leaves_no_empty_lines_for_what_is_not_known(tmp_path, prepare):
    (np.arange(2000) % 256).astype(np.uint16).tofile(tmp_path / "a.bin")
    arguments = ("data=token_files", "data.path=a.bin", "tokenizer=gpt2", "model=tiny", "windows=0")
    printed = prepare(*arguments, module="inspect_data").stdout
    assert "2,000 tokens, read in place" in printed
    assert all(printed.splitlines())


@pytest.mark.parametrize("order", ["seed", "book"])
def test_inspecting_says_where_the_windows_order_is_not_that_of_training(tmp_path, prepare, order):
    (tmp_path / "a.txt").write_text("a " * 2000)
    arguments = ("data=text_files", "data.path=a.txt", "tokenizer=bytes", f"data.order={order}")
    printed = prepare(*arguments, module="inspect_data").stdout
    assert ("the book's is drawn while training" in printed) == (order == "book")


def test_ctrl_c_while_the_tokenizing_processes_start_is_answered_once(tmp_path):
    (tmp_path / "a.txt").write_text("All work and no play makes Jack a dull boy.\n" * 50_000)
    environment = {**os.environ, "GPT_PRETRAIN_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    arguments = ["data=text_files", "data.path=a.txt", "data.prepare_workers=2", "tokenizer=gpt2"]
    build = subprocess.Popen(
        [sys.executable, "-m", "gpt_pretrain.prepare", *arguments],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{build.pid}/task/{build.pid}/children")
    while not any(_python_answers_interrupts(pid) for pid in children.read_text().split()):
        assert build.poll() is None, "it was done before its processes were seen"
    os.killpg(build.pid, signal.SIGINT)  # as the terminal does it: to all of them
    assert build.communicate(timeout=60)[1] == "error: interrupted by SIGINT\n"
    assert build.returncode == 130


def _python_answers_interrupts(pid):
    """True for a tokenizing process from when its interpreter has begun."""
    process = Path("/proc") / pid
    try:
        status, command = (process / "status").read_text(), (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # another child, gone since it was listed
        return False
    caught = re.search(r"SigCgt:\s*(\w+)", status)
    is_worker = b"spawn_main" in command
    return is_worker and bool(int(caught[1], 16) & 1 << signal.SIGINT - 1)


@pytest.mark.slow
def test_a_killed_build_leaves_no_process_behind_and_the_next_goes_on(tmp_path, prepare):
    (tmp_path / "a.txt").write_text("All work and no play makes Jack a dull boy.\n" * 8_000_000)
    arguments = ["data=text_files", "data.path=a.txt", "data.prepare_workers=2"]
    environment = {**os.environ, "GPT_PRETRAIN_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    build = subprocess.Popen(
        [sys.executable, "-m", "gpt_pretrain.prepare", *arguments], cwd=tmp_path, env=environment
    )
    while not list(tmp_path.glob("cache/tokens/*.partial/progress.json")):
        assert build.poll() is None, "it was done before it could be killed"
        time.sleep(0.05)
    workers = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()
    build.kill()
    build.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, f"{workers} outlived the build"
        time.sleep(0.05)
    answer = prepare(*arguments)
    assert "an interrupted build of a.txt is there" in answer.stderr
    assert "352,000,000 characters" in answer.stdout
