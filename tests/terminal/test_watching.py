"""What only watches a run: whatever fails in it, the run trains on, says so once, and loses no digit."""

import csv
import errno
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import Logger
from rich.console import Console

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.data import reading_bar
from gpt_pretrain.data.tokens import Tokens
from gpt_pretrain.errors import ArtifactError, DivergedError, StoppedError
from gpt_pretrain.terminal.logs import ConsoleHandler, Formatter, LogFile
from gpt_pretrain.terminal.watching import forget, watching, watching_threads
from gpt_pretrain.tokenizer import build_tokenizer
from gpt_pretrain.tokenizer.small import CharacterTokenizer
from gpt_pretrain.training.callbacks import progress_bar as progress
from gpt_pretrain.training.callbacks.metrics import Metrics
from gpt_pretrain.training.callbacks.parts import Parts
from gpt_pretrain.training.callbacks.samples import Samples
from gpt_pretrain.training.callbacks.stop import Stop
from gpt_pretrain.training.first_sample import prompt_for
from gpt_pretrain.training.loggers import CSV, TensorBoard, Watched
from gpt_pretrain.training.metrics_csv import MetricsCSV, read_rows
from gpt_pretrain.training.plan import Plan
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.tensorboard import EventFiles
from gpt_pretrain.training.train import train
from tests.conftest import ROOT

SETTINGS = [
    *("model=tiny", "tokenizer=bytes", "trainer=cpu", "data.batch_size=2", "trainer.max_steps=3"),
    *("trainer.eval_batches=1", "trainer.eval_every=1", "trainer.log_every=1", "decoding.max_new_tokens=3"),
]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Panic(BaseException):
    """As tokenizers that are written in Rust raise it."""


@pytest.fixture(autouse=True)
def _anew(caplog):
    forget()
    caplog.set_level(logging.INFO)


def run(folder, *overrides):
    config = compose("train", TrainConfig, [*SETTINGS, *overrides])
    folder.mkdir(exist_ok=True)
    return train(config, preflight(config, folder), folder)


def failures(caplog) -> list[str]:
    return [message for message in caplog.messages if " failed: " in message]


# --- one guard ----------------


@pytest.mark.parametrize(
    "error", [FULL, RuntimeError("no"), MemoryError(), Panic("thread panicked"), StopIteration()]
)
def test_what_fails_is_told_once_a_kind(error, caplog):
    for kind in ("samples", "samples", "loss.png"):
        with watching(kind):
            raise error
    named = [f"{kind} failed: {type(error).__name__}: {error}" for kind in ("samples", "loss.png")]
    assert [message.removesuffix("; training goes on without it") for message in failures(caplog)] == named


@pytest.mark.parametrize(
    "error", [DivergedError("nan"), StoppedError(2, "again"), KeyboardInterrupt(), SystemExit(143)]
)
def test_what_ends_a_run_on_purpose_passes(error, caplog):
    with pytest.raises(type(error)), watching("samples"):
        raise error
    assert not failures(caplog)


def test_a_reader_that_left_is_no_reason_to_exit_though_rich_finds_so(caplog):
    with watching("the terminal"):
        try:
            raise BrokenPipeError("gone")
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 - as rich does it
    assert failures(caplog) == ["the terminal failed: BrokenPipeError: gone; training goes on without it"]


def test_the_end_of_a_thread_is_told_like_any_other(caplog, capsys):
    def fail():
        raise FULL

    with watching_threads():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert len(failures(caplog)) == 1
    assert "Traceback" not in capsys.readouterr().err


# --- runs in which something fails ----------------


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def a_folder_in_its_place(name):
    return lambda folder, patch: (folder / name).mkdir()


def full(name):
    return lambda folder, patch: (folder / name).symlink_to("/dev/full")


def failing(target, error=FULL):
    return lambda folder, patch: patch.setattr(target, raising(error))


def missing(module):
    return lambda folder, patch: patch.setitem(sys.modules, module, None)


WRITER = "tensorboard.summary.writer.record_writer.RecordWriter.write"
FAULTS = {
    "samples": failing("gpt_pretrain.training.callbacks.samples.generate_text", RuntimeError("no sample")),
    "samples, in Rust": failing("gpt_pretrain.training.callbacks.samples.generate_text", Panic("panicked")),
    "samples.txt is a folder": a_folder_in_its_place("samples.txt"),
    "samples.txt on a full disk": full("samples.txt"),
    "metrics.csv is a folder": a_folder_in_its_place("metrics.csv"),
    "metrics.csv on a full disk": full(".metrics.csv.partial"),
    "loss.png is a folder": a_folder_in_its_place("loss.png"),
    "loss.png on a full disk": full("loss.png"),
    "matplotlib": failing("matplotlib.figure.Figure.savefig", ValueError("no font")),
    "matplotlib, when it is imported": missing("gpt_pretrain.training.plots"),
    "tensorboard is a file": lambda folder, patch: (folder / "val").write_text(""),
    "tensorboard, built": failing("torch.utils.tensorboard.SummaryWriter.__init__"),
    "tensorboard, in its thread": failing(WRITER),
    "tensorboard, a number": failing("torch.utils.tensorboard.FileWriter.add_summary"),
    "tensorboard, a text": failing("torch.utils.tensorboard.SummaryWriter.add_text"),
    "tensorboard, a row of settings": failing("gpt_pretrain.training.tensorboard.EventFileWriter"),
    **{
        f"tensorboard, {name}": failing(f"gpt_pretrain.training.tensorboard.EventFiles.{name}")
        for name in ("begin", "log_metrics", "log_text", "log_picture", "save", "end", "finalize")
    },
    "the environment": failing("gpt_pretrain.training.opening.provenance"),
    "the picture of next tokens": failing("gpt_pretrain.training.callbacks.samples.draw_next_tokens"),
    "csv, log_metrics": failing(
        "gpt_pretrain.training.metrics_csv.MetricsCSV.log_metrics", ValueError("no row")
    ),
    "the progress bar": failing(
        "gpt_pretrain.training.callbacks.progress_bar.get_console", RuntimeError("no terminal")
    ),
    "the progress bar's line": failing(
        "gpt_pretrain.training.callbacks.progress_bar.ProgressBar._say", RuntimeError("no terminal")
    ),
    "report.html is a folder": a_folder_in_its_place("report.html"),
    "report.html": failing("gpt_pretrain.training.page.small_figure", ValueError("no font")),
    "the run's plan": failing("gpt_pretrain.training.report.decode", ValueError("no text")),
    "the run's conclusion": failing("gpt_pretrain.training.report.typed", ValueError("no words")),
    "summary's plot rows": failing("gpt_pretrain.training.report.read_rows", ValueError("no rows")),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / "step-00000003" / "model.safetensors").read_bytes()


def test_a_run_in_which_nothing_fails_says_so_of_nothing(tmp_path, caplog):
    run(tmp_path)
    assert not failures(caplog)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_trains_on_whatever_fails_beside_it(fault, tmp_path, monkeypatch, caplog, undisturbed):
    FAULTS[fault](tmp_path, monkeypatch)
    summary = run(tmp_path)
    assert summary["exit_reason"] == "finished"
    told = failures(caplog)
    kinds = [message.partition(" failed")[0] for message in told]
    # A writer's thread and who waits for it; without matplotlib, each of three pictures.
    assert 1 <= len(kinds) <= (3 if fault == "matplotlib" else 2), told
    assert len(set(kinds)) == len(kinds)
    others = {key for key in undisturbed[1] if "sec" not in key} - {"best_checkpoint"}
    assert {key: summary[key] for key in others} == {key: undisturbed[1][key] for key in others}
    assert weights(tmp_path) == weights(undisturbed[0])


@pytest.mark.parametrize("fault", ["samples", "samples.txt is a folder", "tensorboard is a file", "loss.png"])
def test_what_can_be_tried_early_is_told_before_the_first_step(fault, tmp_path, monkeypatch, caplog):
    FAULTS.get(fault, FAULTS["matplotlib, when it is imported"])(tmp_path, monkeypatch)
    run(tmp_path)
    first = next(at for at, message in enumerate(caplog.messages) if " failed: " in message)
    trained = next(at for at, message in enumerate(caplog.messages) if message.startswith("step 1"))
    assert first < trained


def test_lightnings_every_call_to_a_logger_is_guarded():
    """What a newer Lightning may ask of a logger is to be guarded too."""
    asked = {
        name
        for base in (Logger, *Logger.__mro__)
        for name, value in vars(base).items()
        if callable(value) and not name.startswith("_")
    }
    assert {"log_metrics", "finalize"} <= asked <= set(vars(Watched))
    assert "writer" in vars(TensorBoard)
    for logger, own in ((CSV, MetricsCSV), (TensorBoard, EventFiles)):
        assert issubclass(logger, own)
        assert logger.__mro__.index(Watched) < logger.__mro__.index(own)
        assert not asked & set(vars(logger))  # it would come before the guard


def test_a_diverged_model_that_a_sample_finds_ends_the_run(tmp_path, monkeypatch):
    found = ArtifactError("the model's logits are no numbers")
    monkeypatch.setattr("gpt_pretrain.training.callbacks.samples.generate_text", raising(found))
    with pytest.raises(DivergedError, match="logits are no numbers"):
        run(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["exit_reason"] == "diverged"


def test_an_interruption_amid_a_sample_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Samples, "_sample", raising(StoppedError(2, "interrupted again")))
    with pytest.raises(StoppedError):
        run(tmp_path)


def test_a_summary_that_cannot_be_written_hides_nothing_that_ended_the_run(tmp_path, caplog):
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(DivergedError):
        run(tmp_path, "optimizer=sgd", "optimizer.lr=1e30", "trainer.grad_clip=null", "trainer.max_steps=40")
    assert [message.split()[0] for message in failures(caplog)] == ["summary.json"]


# --- logs ----------------


def test_a_log_file_on_a_full_disk_is_told_once_on_the_terminal(tmp_path, monkeypatch, capsys):
    console = Console(file=io.StringIO())
    monkeypatch.setattr("rich.get_console", lambda: console)
    logger = logging.getLogger()
    for file in ("/dev/full", str(tmp_path), str(tmp_path / "nowhere" / "train.log")):
        forget()
        handlers = [ConsoleHandler(), LogFile(file)]
        handlers[1].begin()
        try:
            for handler in handlers:
                logger.addHandler(handler)
            for number in range(3):
                logger.warning("message %d", number)
            handlers[1].flush()
        finally:
            for handler in handlers:
                logger.removeHandler(handler)
    said = console.file.getvalue()
    assert [said.count(f"message {number}") for number in range(3)] == [3, 3, 3]
    assert said.count("the log file failed") == 3
    assert "Logging error" not in capsys.readouterr().err


def test_a_terminal_that_fails_is_told_in_the_log_file(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt_pretrain.terminal.logs.lost", {})  # of a program before
    monkeypatch.setattr("rich.console.Console.print", raising(OSError(errno.EIO, "hung up")))
    logger, handlers = logging.getLogger(), [ConsoleHandler(), LogFile(str(tmp_path / "train.log"))]
    handlers[1].begin()
    try:
        for handler in handlers:
            logger.addHandler(handler)
        logger.warning("one")
        logger.warning("two")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == ["one", "the", "two"]


def test_a_log_file_takes_every_character_in_any_locale(tmp_path):
    log = LogFile(str(tmp_path / "train.log"))
    log.emit(logging.LogRecord("n", logging.INFO, "", 0, "\ufffd é \udcff", (), None))
    assert not (tmp_path / "train.log").exists()  # nothing is written before a run came about
    log.begin()
    log.close()
    assert (tmp_path / "train.log").read_bytes() == "\ufffd é \\udcff\n".encode()


# --- metrics.csv ----------------


def full_for_writing(file: Path, mode: str = "r", **how):
    if mode != "r":
        raise FULL
    return open(file, mode, **how)


def test_rows_that_a_full_disk_has_kept_out_come_with_the_next_that_fits(tmp_path, monkeypatch):
    logger = CSV(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 1.0}, 1)
    with monkeypatch.context() as patch:
        patch.setattr("gpt_pretrain.training.metrics_csv.replace", raising(FULL))
        patch.setattr(Path, "open", full_for_writing)
        logger.log_metrics({"a": 2.0}, 2)
        logger.log_metrics({"b": 3.0}, 3)
        assert read_rows(tmp_path / "metrics.csv") == [{"step": 1, "a": 1}]
    logger.log_metrics({"a": 4.0}, 4)
    assert read_rows(tmp_path / "metrics.csv") == [
        *({"step": 1, "a": 1}, {"step": 2, "a": 2}, {"step": 3, "b": 3}, {"step": 4, "a": 4})
    ]


@pytest.mark.parametrize("damage", ["3,4.5,oops\n", "3,1,2,3,4\n", "\0\0\0\n", "\n\n", "3,é\n", ",1\n"])
def test_a_row_that_is_none_costs_a_resumed_run_that_row_only(damage, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(f"step,a,b\n1,2,3\n{damage}2,4,5\n".encode("latin1"))
    rows = CSV(tmp_path / "metrics.csv", due=10).rows
    assert [row for row in rows if row["step"] != 3] == [
        {"step": 1, "a": 2, "b": 3},
        {"step": 2, "a": 4, "b": 5},
    ]


# --- the progress bar ----------------


def bar_of(step: int, steps: int, **newest: float) -> progress.ProgressBar:
    plan = Plan(**dict.fromkeys(Plan.__dataclass_fields__, steps))
    stop = Stop(plan)
    metrics = Metrics(plan, stop, 1, Parts(plan))
    metrics.newest, metrics.best_val_loss = newest, 3.4567
    bar = progress.ProgressBar(plan, stop, metrics)
    bar.step, bar.began = step, bar.began - 3600.0
    return bar


def shown(bar, width: int, encoding: str = "utf-8", colours: str | None = None) -> str:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=terminal, force_terminal=True, width=width, color_system=colours, _environ={})
    lines = console.render_lines(bar)
    assert len(lines) == 1
    text = "".join(segment.text for segment in lines[0])
    assert len(text) <= width
    text.encode(encoding)
    return text


MEASURED = {"train/loss": 12.345, "tokens_per_sec": 1234567.0}


@pytest.mark.parametrize("width", [10, 40, 41, 80, 160, 200])
@pytest.mark.parametrize("encoding", ["ascii", "latin1", "utf-8"])
def test_the_progress_bar_is_one_line_of_what_the_terminal_can_show(width, encoding):
    assert "123456" in shown(bar_of(123456, 10**6, **MEASURED), width, encoding) or width == 10


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (40, ["12345/100000", "loss 3.210"]),
        (80, ["12345/100000", "loss 3.210", "best 3.457", "2,215 tokens/s", "left"]),
        (160, ["12345/100000", "loss 3.210", "best val loss 3.457", "2,215 tokens/s", "7:06:"]),
    ],
)
def test_the_bar_and_the_total_are_there_at_every_width_and_a_hundred_thousand_steps(width, words):
    bar = bar_of(12345, 100_000, **{"train/loss": 3.21, "tokens_per_sec": 2215.0})
    text = shown(bar, width, colours="standard")  # without colours, what is left of a bar is blank
    assert [word for word in words if word not in text] == []
    assert text.count("━") + text.count("╸") + text.count("╺") >= progress.NARROWEST_BAR


def test_the_bar_says_what_is_done_instead_of_training():
    bar = bar_of(5, 10, **MEASURED)
    with bar.during("saving 6.2 GB"):
        assert "saving 6.2 GB" in shown(bar, 80)
    assert "saving" not in shown(bar, 80)


def test_where_there_is_no_bar_nobody_waits_long_for_a_line(monkeypatch, caplog):
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.05)
    bar = bar_of(5, 10, **MEASURED)
    bar.doing = "evaluating 3/40"
    bar._begin()
    deadline = time.monotonic() + 10
    while len(caplog.messages) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    bar._end()
    assert caplog.messages[0] == "step  5/10  loss 12.345  1,234,567 tokens/s  evaluating 3/40"
    time.sleep(0.1)
    ended = len(caplog.messages)
    time.sleep(0.2)
    assert len(caplog.messages) == ended


def test_a_log_file_holds_no_control_character_whatever_was_written(tmp_path):
    handler = LogFile(str(tmp_path / "train.log"))
    handler.setFormatter(Formatter("%(message)s"))
    handler.begin()
    handler.emit(logging.makeLogRecord({"msg": "".join(map(chr, range(0x200)))}))
    handler.close()
    text = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert not [c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_so_is_the_one_of_tokenizing(width, encoding, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=terminal, force_terminal=True, width=width, color_system=None, _environ={})
    monkeypatch.setattr(reading_bar, "Console", lambda **_: console)
    monkeypatch.setattr(reading_bar, "QUIET_SECONDS", -1)
    source = SimpleNamespace(n_bytes=10**10, n_files=1234, files_read=567)
    with reading_bar.ReadingBar("tokenizing", source) as shown:
        shown.advance(10**9)
        lines = console.render_lines(shown._bar.get_renderable())
    text = "".join(segment.text for segment in lines[0])
    assert (len(lines), len(text) <= width) == (1, True)
    text.encode(encoding)


# --- what samples begin with ----------------


def characters(tmp_path, text: str) -> list[str]:
    (tmp_path / "text.txt").write_text(text)
    return ["tokenizer=characters", "data=text_files", f"data.path='{tmp_path / 'text.txt'}'"]


def test_a_tokenizer_without_the_prompts_letters_trains_and_samples_something_else(tmp_path, caplog):
    text = characters(tmp_path, "the fox and the dog. " * 200)
    prompt = "trainer.sample_prompt='Every effort moves you'"
    summary = run(tmp_path / "run", *text, prompt, "trainer.max_steps=40")
    assert summary["exit_reason"] == "finished"
    (told,) = [record for record in caplog.records if "sample_prompt" in record.getMessage()]
    assert told.levelname == "WARNING"
    for part in ("'Every effort moves you'", "lacks 'E'", "trainer.sample_prompt=<text>"):
        assert part in told.getMessage()
    assert "\n" not in told.getMessage()
    assert not failures(caplog)
    sample = (tmp_path / "run" / "samples.txt").read_text().splitlines()[1]
    opening = told.getMessage().partition("samples begin with '")[2].partition("'")[0]
    assert opening
    assert sample.startswith(opening)
    steps = [message.startswith("step ") for message in caplog.messages]
    assert caplog.messages.index(told.getMessage()) < steps.index(True)


def test_a_prompt_that_the_tokenizer_can_read_stays(tmp_path, caplog):
    text = "the fox and the dog. " * 200
    run(
        tmp_path / "run",
        *characters(tmp_path, text),
        "trainer.sample_prompt='the fox'",
        "trainer.max_steps=1",
    )
    assert not [message for message in caplog.messages if "sample_prompt" in message]
    assert (tmp_path / "run" / "samples.txt").read_text().splitlines()[1].startswith("the fox")


@pytest.mark.parametrize(
    "decoding",
    [
        ["decoding.logit_bias=['É=1', 't=2']"],
        ["decoding.banned_words=['É', 't']"],
        ["decoding.stop=['É']"],
        ["decoding.num_beams=3", "decoding.logit_bias=['É=1']"],
        ["decoding=contrastive", "decoding.banned_words=['É']"],
    ],
)
def test_texts_of_the_decoding_that_the_tokenizer_lacks_end_no_run(decoding, tmp_path, caplog):
    text = characters(tmp_path, "the fox and the dog. " * 200)
    assert run(tmp_path / "run", *text, *decoding, "trainer.max_steps=1")["exit_reason"] == "finished"
    assert not failures(caplog)
    biased = [message for message in caplog.messages if "logit_bias" in message]
    assert len(biased) == ("logit_bias" in decoding[-1])
    assert "--- step 1\n" in (tmp_path / "run" / "samples.txt").read_text()


@given(st.text("ab<|endoftx>\n é", min_size=1), st.text(min_size=1), st.booleans())
def test_samples_always_begin_with_what_the_tokenizer_can_read(alphabet, prompt, ended):
    tokenizer = CharacterTokenizer(alphabet)
    ids = [tokenizer.end_of_text_id] * ended + tokenizer.encode(tokenizer.alphabet * 3).tolist()
    chosen = prompt_for(tokenizer, prompt, Tokens([np.array(ids, np.uint16)]))
    assert len(tokenizer.encode(chosen)) > 0
    assert chosen == prompt or not set(prompt) <= set(tokenizer.alphabet)


def test_a_tokenizer_that_finds_no_token_in_the_prompt_gets_another(caplog):
    class Deaf(type(build_tokenizer("bytes"))):
        def encode_segment(self, text, *, allow_special=False):
            return super().encode_segment(text.replace("E", ""))

    assert prompt_for(Deaf(), "EE", Tokens([np.frombuffer(b"hello", np.uint8)])) == "hello"
    assert "finds no token in it" in caplog.text


# --- whole programs ----------------

QUIET = [*SETTINGS, "hydra.run.dir=run"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "environment"),
    [
        ("{} | head -n 1", {}),
        ("{} > /dev/full 2>&1", {}),
        ("{} >&-", {}),
        ("{} 2>&-", {}),
        ("{} <&- >&- 2>&-", {}),
        ("{} | cat", {"PYTHONIOENCODING": "ascii"}),
        ("{} | cat", {"PYTHONIOENCODING": "cp1252", "FORCE_COLOR": "1", "COLUMNS": "40"}),
        ("{} | cat", {"TERM": "dumb", "NO_COLOR": "1", "FORCE_COLOR": "1", "PYTHONIOENCODING": "latin1"}),
        ("{} | cat", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_training_goes_on_to_its_end_whoever_reads_it(redirected, environment, tmp_path):
    words = f'"$PYTHON" "$ROOT/train.py" {" ".join(QUIET)} decoding=temperature decoding.temperature=9'
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "ROOT": str(ROOT), **environment}
    done = subprocess.run(
        ["bash", "-c", redirected.format(words) + "; exit ${PIPESTATUS[0]}"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    log = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert "finished after 3 steps" in log
    assert log.count("standard output failed") == ("head" in redirected or "full" in redirected)
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 4
