"""What reaches a terminal: text that commands nothing, in any encoding, and to readers that may leave."""

import ast
import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gpt_pretrain import evaluate, export, inspect_data, prepare
from gpt_pretrain.cli import commands
from gpt_pretrain.cli.schemas import config_dir
from gpt_pretrain.terminal.logs import COMMAND, ConsoleHandler, Formatter
from gpt_pretrain.terminal.text import printable, show
from tests.conftest import ROOT

PACKAGE = ROOT / "gpt_pretrain"
ENCODINGS = ["ascii", "latin1", "cp1252", "utf-8"]
HOSTILE = "\x1b]0;title\x07 \x9b31m \x7f \r over \u2028 \u202e desrever \ufeff \ud800 \U000e0041"


def commanding(text: str) -> set[str]:
    """Characters that a terminal, or whoever reads by lines, would obey: Unicode's own classes of them."""
    bidirectional = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI", "BN"}
    return {
        character
        for character in text
        if character not in "\n\t\u200c\u200d"
        and (
            unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
            or (
                unicodedata.bidirectional(character) in bidirectional
                and unicodedata.category(character) == "Cf"
            )
            or character in "\u061c\u200e\u200f"
        )
    }


def test_the_search_for_commanding_characters_finds_them():
    assert len(commanding(HOSTILE)) == 10
    assert not commanding("a line\n\tmore: é, 漢, \ufffd, می\u200cخواهم, 👩\u200d🔬")


@given(st.text(st.characters(codec=None)))
def test_foreign_text_is_shown_without_a_character_that_commands(text):
    shown = printable(text)
    assert not commanding(shown)
    assert commanding(text) or "\\" in shown or shown == text


def test_what_is_escaped_can_be_read_and_everything_else_stays():
    assert printable(HOSTILE) == (
        r"\x1b]0;title\x07 \x9b31m \x7f \r over \u2028 \u202e desrever \ufeff \ud800 \U000e0041"
    )
    for text in ("a\n\tb", "é 漢 \ufffd", "می\u200cخواهم", "👩\u200d🔬", "\u0600١", r"a \x1b that was typed"):
        assert printable(text) == text


@given(st.text(st.characters(codec=None)))
def test_no_log_line_carries_a_character_that_commands(text):
    try:
        raise ValueError(text)
    except ValueError:
        record = logging.LogRecord("n", logging.INFO, "", 0, "it writes: %s", (text,), sys.exc_info())
    assert not commanding(Formatter("%(message)s").format(record))


@pytest.mark.parametrize("file", sorted((config_dir() / "hydra" / "job_logging").glob("*.yaml")), ids=str)
def test_every_handler_of_a_program_formats_what_it_logs_so(file):
    settings = yaml.safe_load(file.read_text())
    formatters = {
        settings["formatters"][entry["formatter"]]["class"] for entry in settings["handlers"].values()
    }
    assert formatters == {"gpt_pretrain.terminal.logs.Formatter"}


def _prints(source: str) -> list[int]:
    """Lines that write to a standard stream without `show`."""
    ways = {
        "print",
        "sys.stdout.write",
        "sys.stderr.write",
        "sys.stdout.writelines",
        "sys.stdout.buffer.write",
    }
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func) in ways]


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_the_package_prints_through_one_function(file):
    assert len(_prints(file.read_text())) == (file == PACKAGE / "terminal" / "text.py")


def test_a_print_beside_that_function_would_be_found():
    assert _prints("import sys\nprint(1)\nshow(2)\nsys.stdout.write('3')") == [2, 4]


def test_a_log_message_is_shown_as_it_is(monkeypatch):
    """Neither as markup, nor with emoji in the place of their names, and to no terminal on one line."""
    console = Console(file=io.StringIO(), width=20)
    monkeypatch.setattr("rich.get_console", lambda: console)
    said = "it writes: [red]:heart:[/red] 'text' 123 \x1b[2J " + "long " * 9
    ConsoleHandler().emit(logging.LogRecord("n", logging.INFO, "", 0, said, (), None))
    handler = ConsoleHandler()
    handler.setFormatter(Formatter())
    handler.emit(logging.LogRecord("n", logging.INFO, "", 0, said, (), None))
    raw, shown = console.file.getvalue().splitlines()
    assert (raw, shown) == (said, printable(said))


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_terminal_s_lines_end_between_words_but_a_command_s_do_not(monkeypatch, width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr("rich.get_console", lambda: console)
    record = logging.LogRecord(
        "n", logging.INFO, "", 0, "plan    " + "some words " * 20 + "\n\n  end", (), None
    )
    ConsoleHandler().emit(record)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("plan    some")
    assert all(line.startswith(8 * " ") for line in lines[1:-2])
    assert lines[-2:] == ["", "  end"]
    assert " ".join(" ".join(lines).split()) == "plan " + "some words " * 20 + "end"
    record.__dict__.update(COMMAND)
    ConsoleHandler().emit(record)
    assert len(console.file.getvalue().splitlines()) == len(lines) + 3


# --- the streams -----------------


def python(code: str, *, shell: str = "{}", **environment: str) -> subprocess.CompletedProcess:
    """Run `code` after the streams are settled, through a shell's redirections."""
    program = (
        "import sys, os\n"
        "from gpt_pretrain.terminal.streams import settle_streams as settle\n"
        "from gpt_pretrain.terminal.text import show\n" + code
    )
    words = shell.format('"$PYTHON" -c "$PROGRAM"')
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "",
        "PYTHONPATH": str(ROOT),
        "PYTHON": sys.executable,
        "PROGRAM": program,
        **environment,
    }
    return subprocess.run(["bash", "-c", words], env=env, capture_output=True, timeout=60)


ALL = "settle(outlive_reader=True); "


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("settled", [False, True])
def test_no_encoding_ends_a_program(encoding, settled):
    done = python((ALL if settled else "") + "print('\\ufffd é \\udcff')", PYTHONIOENCODING=encoding)
    assert (done.returncode == 0) == settled
    if settled:
        assert done.stdout.decode(encoding).startswith("\ufffd é" if encoding == "utf-8" else "\\ufffd ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("settled", [False, True])
def test_a_closed_stream_takes_everything_and_gives_its_number_to_no_file(closed, settled, tmp_path):
    code = (
        f"file = open({str(tmp_path / 'mine')!r}, 'w')\n"
        "good = file.fileno() > 2 and None not in (sys.stdin, sys.stdout, sys.stderr)\n"
        "print('out'); print('err', file=sys.stderr); os._exit(0 if good else 9)"
    )
    done = python((ALL if settled else "") + code, shell=f"{{}} {closed}")
    assert done.returncode == (0 if settled else 9)


@pytest.mark.parametrize("broken", ["{} | true", "{} > /dev/full", "{} 2> /dev/full", "{} 2> >(true)"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_outlives_its_reader_works_on_to_its_end(broken, unbuffered, tmp_path):
    file = tmp_path / "done"
    code = (
        "import time\n"
        "for _ in range(20): print('x' * 9999, flush=True); print('y' * 9999, file=sys.stderr)\n"
        f"time.sleep(0.05); print('more'); open({str(file)!r}, 'w').close()"
    )
    done = python(ALL + code, shell=broken + "; exit ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, file.exists()) == (0, True), done.stderr[-300:]
    assert b"Error" not in done.stderr
    file.unlink()
    unsettled = python(code, shell=broken + "; exit ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED=unbuffered)
    assert unsettled.returncode != 0
    assert not file.exists()


def test_a_program_whose_output_is_its_result_notices_that_nobody_reads_it():
    code = "settle(outlive_reader=False)\nfor _ in range(99): print('x' * 9999, flush=True)"
    done = python(code, shell="{} | true; exit ${{PIPESTATUS[0]}}")
    assert b"BrokenPipeError" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_terminal_that_does_not_block_loses_nothing(unbuffered):
    shell = "{} | (sleep 0.5; cat)"
    code = "os.set_blocking(1, False)\nfor _ in range(50): print('x' * 9999, flush=True)"
    done = python(ALL + code, shell=shell, PYTHONUNBUFFERED=unbuffered)
    assert done.stdout.count(b"x") == 50 * 9999
    assert python(code, shell=shell, PYTHONUNBUFFERED=unbuffered).stdout.count(b"x") < 50 * 9999


def test_a_file_put_in_a_stream_s_place_keeps_its_descriptor(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    code = (
        f"sys.stdout = open({str(mine)!r}, 'w'); {ALL}other = open({str(other)!r}, 'w')\n"
        "print('to mine'); sys.stdout.flush()"
    )
    assert python(code).returncode == 0
    assert (mine.read_text(), other.read_text()) == ("to mine\n", "")


# --- the programs -----------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run of a model of bytes that has learned next to nothing, so that it writes all of them."""
    folder = tmp_path_factory.mktemp("written")
    quick = ["model=tiny", "tokenizer=bytes", "trainer=cpu", "trainer.max_steps=1", "trainer.eval_batches=1"]
    draw = ["decoding=temperature", "decoding.temperature=5", "decoding.max_new_tokens=300"]
    _type(folder, "utf-8", commands.train_command, *quick, *draw, "hydra.run.dir=run")
    return folder


def _type(folder: Path, encoding: str, program, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Exit code, and what a terminal of this encoding got."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["program.py", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), encoding=encoding))
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="") for _ in range(2)]
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = 0
        try:
            program()
        except SystemExit as exit_:
            code = exit_.code
        for handler in logging.getLogger().handlers:
            handler.flush()
        for stream in streams:
            stream.flush()
    return code, "".join(stream.buffer.getvalue().decode(encoding) for stream in streams)


SETTINGS = ["data=text_files", "data.path=foreign.txt"]
BYTES = [*SETTINGS, "tokenizer=bytes", "model=tiny"]
DRAW = ["checkpoint=run", "decoding=temperature", "decoding.temperature=9", "decoding.max_new_tokens=300"]
PROMPT = "prompt='caf\u00e9 \x1b[31m \u202e'"
VERBS = {
    "prepare": (prepare.prepare, [*SETTINGS, "tokenizer=bytes"]),
    "inspect_data": (inspect_data.inspect_data, [*BYTES, "windows=9"]),
    "evaluate": (evaluate.evaluate, [*SETTINGS, "checkpoint=run"]),
    "generate": (commands.generate_command, [*DRAW, PROMPT]),
    "many": (commands.generate_command, [*DRAW, PROMPT, "num_samples=2", "decoding.num_return_sequences=2"]),
    "next_tokens": (commands.generate_command, [*DRAW, PROMPT, "next_tokens=257"]),
    "score": (commands.generate_command, [*DRAW, "score='\x1b[31m \ufffd'"]),
    "interactive": (commands.generate_command, [*DRAW, "interactive=true"]),
    "a refusal": (commands.generate_command, ["checkpoint='\x1b[31m\ufffd'"]),
    "train": (
        commands.train_command,
        [
            *(*BYTES, "trainer=cpu", "trainer.max_steps=1", "trainer.eval_batches=1", *DRAW[1:]),
            *(f"trainer.sample_{PROMPT}", "hydra.run.dir=new"),
        ],
    ),
    "export": (export.export, ["checkpoint=run", "out='caf\u00e9 \u202e'"]),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("verb", VERBS)
def test_no_program_fails_for_its_terminal_or_lets_foreign_text_command_it(written, tmp_path, verb, encoding):
    text = "".join(map(chr, range(1, 256))) + HOSTILE.replace("\ud800", "") + "some text\n\n" * 60
    (tmp_path / "foreign.txt").write_text(text * 5, encoding="utf-8", newline="")
    (tmp_path / "run").symlink_to(written / "run")
    program, arguments = VERBS[verb]
    code, shown = _type(tmp_path, encoding, program, *arguments, typed="caf\u00e9\n/stop \x1b\n/settings\n")
    assert code == (2 if verb == "a refusal" else 0), shown
    assert shown
    assert not commanding(shown)
    for name in ("samples.txt", "train.log", "report.html", "environment.json") if verb == "train" else ():
        assert not commanding((tmp_path / "new" / name).read_text(encoding="utf-8")), name


def test_what_the_model_of_these_tests_writes_would_command_a_terminal(written, tmp_path):
    (tmp_path / "run").symlink_to(written / "run")
    assert _type(tmp_path, "utf-8", commands.generate_command, *DRAW, "output=rows.jsonl")[0] == 0
    text = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))["text"]
    assert len(commanding(text)) > 5  # in a file for programs it stays as it is
    assert "\ufffd" in text


def test_what_tensorboard_shows_of_a_sample_is_printable_too(written):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(written / "run"), size_guidance={"tensors": 0})
    events.Reload()
    samples = events.Tensors("1 sample/text_summary")
    assert len(samples) == 2  # before and after the only step
    text = "".join(sample.tensor_proto.string_val[0].decode() for sample in samples)
    assert not commanding(text)
    assert "\\x" in text


def test_show_prints_as_print_does(capsys):
    show("a", end="")
    show(12)
    show()
    show("to\x1b", file=sys.stderr, flush=True)
    assert tuple(capsys.readouterr()) == ("a12\n\n", "to\\x1b\n")
