"""What the README says exists: its commands, snippets, options, files and pictures."""

import ast
import contextlib
import importlib
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from gpt_pretrain.benchmark.data import benchmark_data
from gpt_pretrain.benchmark.decoding import benchmark_decoding
from gpt_pretrain.benchmark.ranks import benchmark_ranks
from gpt_pretrain.benchmark.shards import benchmark_shards
from gpt_pretrain.benchmark.sweeping import benchmark_sweeping
from gpt_pretrain.benchmark.training import benchmark
from gpt_pretrain.cli import commands
from gpt_pretrain.cli.compose import compose
from gpt_pretrain.cli.program import Program
from gpt_pretrain.cli.schemas import config_dir
from gpt_pretrain.config import resolve_model
from gpt_pretrain.errors import InputError
from gpt_pretrain.evaluate import evaluate
from gpt_pretrain.export import export
from gpt_pretrain.generation.prompts import quoted
from gpt_pretrain.inspect_data import inspect_data
from gpt_pretrain.playground import playground
from gpt_pretrain.plot import plot
from gpt_pretrain.prepare import prepare
from gpt_pretrain.slurm import after_dashes, slurm
from gpt_pretrain.training.plan import make_plan
from tests.conftest import QUICK, STORY
from tests.test_import_order import ORDER

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
# What a shell or another program answers for. The first block is run as it is, by .ci/run.
NOT_OURS = ("python3 -m venv ", "pip ", "source ", "tensorboard ", "torchrun ", "python -c ")
# What takes minutes, downloads or serves is run by other tests: of the chapter, weights, benchmarks, pages.
ELSEWHERE = (
    *("experiment=", "weights=gpt2", "gpt_pretrain.benchmark", "tests/weights/", "trainer.devices="),
    *("gpt_pretrain.playground", "-sc install=", "tests.scoreboard"),
)
SHORT = [*QUICK, "trainer.eval_batches=1", "logger=csv"]
PROGRAMS = {
    "train.py": commands.train_command,
    "generate.py": commands.generate_command,
    "-m gpt_pretrain.evaluate": evaluate,
    "-m gpt_pretrain.export": export,
    "-m gpt_pretrain.playground": playground,
    "-m gpt_pretrain.prepare": prepare,
    "-m gpt_pretrain.inspect_data": inspect_data,
    "-m gpt_pretrain.plot": plot,
    "-m gpt_pretrain.slurm": slurm,
    "-m gpt_pretrain.benchmark": benchmark,
    "-m gpt_pretrain.benchmark.data": benchmark_data,
    "-m gpt_pretrain.benchmark.decoding": benchmark_decoding,
    "-m gpt_pretrain.benchmark.sweeping": benchmark_sweeping,
    "-m gpt_pretrain.benchmark.ranks": benchmark_ranks,
    "-m gpt_pretrain.benchmark.shards": benchmark_shards,
}


def _commands() -> list[str]:
    """Shell lines that are no example of a refusal, and those inside sentences."""
    lines = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
    lines += re.findall(r"`(python3? [^`\n]+)`", README)
    lines += re.findall(r"^\$ (.*)\n(?!error: )", README, re.MULTILINE)
    return list(dict.fromkeys(lines))


def _refusals() -> list[tuple[str, str]]:
    return re.findall(r"^\$ (.*)\nerror: (.*)$", README, re.MULTILINE)


def _words(command: str) -> list[str]:
    """The words of a line as bash hands them to a program."""
    script = f"words() {{ printf '%s\\0' \"$@\"; }}; words {command}"
    printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not printed.stderr
    return printed.stdout.split("\0")[:-1]


def _program(words: list[str]) -> tuple[Program, list[str]]:
    python, *words = words
    name, arguments = (" ".join(words[:2]), words[2:]) if words[0] == "-m" else (words[0], words[1:])
    assert python == "python"
    return PROGRAMS[name], arguments


def _trials(words: list[str]) -> list[list[str]]:
    """The settings of each trial that `-m` starts; of a single run, its own."""
    if "-m" not in words:
        return [words]
    parsed = [OverridesParser.create().parse_override(word) for word in words if word != "-m"]
    choices = [
        [f"{setting.key_or_group}={value}" for value in setting.sweep_string_iterator()]
        if setting.is_sweep_override()
        else [str(setting.input_line)]
        for setting in parsed
    ]
    return [list(trial) for trial in itertools.product(*choices)]


def _compose(command: str) -> None:
    """Everything that a program checks before it reads a text or weights."""
    program, arguments = _program(_words(command))
    if program is slurm:  # which composes what stands after -- itself
        arguments = after_dashes(arguments, config_dir())
    if arguments in (["--help"], ["--help", "optimizer"], ["--cfg", "job"]) or arguments[:1] == ["-sc"]:
        return
    for words in _trials(arguments):
        words = quoted(words) if program is commands.generate_command else words
        config = compose(program.config_name, program.root, words)
        if program is commands.train_command and config.weights.name == "scratch":
            shape = resolve_model(config.model, read=None, tokenizer_vocab_size=256)
            make_plan(config, shape, n_windows=10**6, world_size=config.trainer.devices or 1)


@pytest.mark.parametrize("command", [line for line in _commands() if not line.startswith(NOT_OURS)])
def test_a_command_composes(command):
    if command.startswith("python tests/"):
        assert (ROOT / _words(command)[1]).is_file()
    elif command.startswith("python -m tests."):
        assert (ROOT / _words(command)[2].replace(".", "/") / "__main__.py").is_file()
    else:
        _compose(command)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder that holds what the README's commands name, a run among it."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("books/a.txt", "stories.txt", "notes/b.md", "prompts.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"The statement {name} is one of those.\n" * 40)
    for name, first in (("train.bin", 0), ("val.bin", 500)):
        np.arange(first, first + 500).astype(np.uint16).tofile(folder / name)
    row = {"ctx": "A man", "endings": ["sits down.", "flies."], "label": 0}
    (folder / "hellaswag_val.jsonl").write_text(json.dumps(row) + "\n")
    if STORY.is_file():
        shutil.copy(STORY, folder / "the-verdict.txt")
    with contextlib.chdir(folder):
        _type(["train.py", *SHORT, "trainer.max_steps=2", "hydra.run.dir=outputs/2026-11-22/22-44-58-983333"])
    return folder


def _type(words: list[str]) -> None:
    program, arguments = _program(["python", *words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [words[0], *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"The\n/seed 1\nThe\n")))
        code: int | str | None = 0
        try:
            program()
        except SystemExit as ended:
            code = ended.code
    assert not code, words


def _shortened(words: list[str]) -> list[str]:
    """Of a line that trains: a tiny model for a few steps, and otherwise as it stands."""
    if (
        words[0] != "train.py"
        or "plan=true" in words
        or any(word.startswith("-") and word != "-m" for word in words)
    ):
        return words
    steps = 4 if "resume=auto" in words else 12 if any(word.startswith("debug=") for word in words) else 2
    typed = {word.partition("=")[0] for word in words} - {"trainer.max_steps"}
    short = [word for word in [*SHORT, f"trainer.max_steps={steps}"] if word.partition("=")[0] not in typed]
    return [word for word in words if not word.startswith(("trainer.max_", "trainer.devices="))] + short


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        line
        for line in _commands()
        if not line.startswith(NOT_OURS) and not any(word in line for word in ELSEWHERE)
    ],
)
def test_a_command_does_what_it_is_there_for(command, reader, monkeypatch):
    if "the-verdict.txt" in command and not STORY.is_file():
        pytest.skip("the-verdict.txt is not here: set GPT_PRETRAIN_TEST_DATA to its folder")
    monkeypatch.chdir(reader)
    _type(_shortened(_words(command)[1:]))


def test_the_commands_are_found():
    """So that no other way of writing them leaves the test above empty."""
    ours = [line for line in _commands() if not line.startswith(NOT_OURS)]
    assert len(ours) > 30
    assert {name for name in PROGRAMS if not any(f"python {name}" in line for line in ours)} == set()


@pytest.mark.parametrize(
    "command",
    ["python train.py model.n_layr=2", "python generate.py decoding=topk", "python train.py -m lr=1,2"],
)
def test_a_command_that_is_wrong_is_noticed(command):
    with pytest.raises(InputError):
        _compose(command)


@pytest.mark.parametrize(("command", "message"), _refusals())
def test_a_refusal_reads_as_printed(command, message):
    with pytest.raises(InputError) as refused:
        _compose(command)
    assert str(refused.value) == message


def test_the_first_block_is_the_two_commands_that_install():
    kind, block = BLOCKS[0]
    assert kind == "bash"
    assert block.splitlines() == [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python train.py",
        "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest",
    ]


@pytest.mark.parametrize("snippet", [block for kind, block in BLOCKS if kind == "python"])
def test_a_snippet_compiles_and_imports_what_exists(snippet):
    compile(snippet, "README.md", "exec")
    imports = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(node.module)
        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_table_of_groups_is_conf():
    table = README.split("| group | options |\n|---|---|\n")[1].split("\n\n")[0]
    said = {row.split("`")[1]: set(re.findall(r"`(\w+)`", row.split("|")[2])) for row in table.splitlines()}
    folders = [folder for folder in (ROOT / "conf").iterdir() if folder.is_dir() and folder.name != "hydra"]
    assert said == {folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in folders}


def _tree() -> list[str]:
    """Paths that the tree names, folders with a slash at the end."""
    (block,) = [block for _, block in BLOCKS if "\ngpt_pretrain/\n" in block]
    paths, above = [], []
    for line in block.splitlines():
        indented, name = re.fullmatch(r"((?:  )*)(\S+)(?: {2,}\S.*)?", line).groups()
        above[len(indented) // 2 :] = [name]
        paths.append("".join(above))
    return paths


def _has_code(file: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_text()).body)


def test_the_tree_names_every_file_of_the_package_once_and_none_that_is_not_there():
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "gpt_pretrain").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        if path.name != "__init__.py" or _has_code(path)  # else the folder's line stands for it
    }
    tree = _tree()
    named = [path for path in tree if path.startswith("gpt_pretrain/") and not path.endswith("/")]
    assert sorted(named) == sorted(files)
    assert [path for path in tree if not (ROOT / path).exists()] == []


def test_the_tree_is_in_the_order_of_imports():
    rooms = [line.partition(":") for line in ORDER.replace("\n    ", " ").split("\n")[1:-1]]
    order = [[f"{room}.{file}" for file in files.split()] or [room] for room, _, files in rooms]
    named = [
        path.removeprefix("gpt_pretrain/").removesuffix(".py").replace("/", ".")
        for path in _tree()
        if path.startswith("gpt_pretrain/") and path.endswith(".py") and not path.endswith("__init__.py")
    ]
    modules = [module for module in itertools.chain(*order) if module in named]
    assert named == modules


def test_files_that_sentences_and_pictures_name_are_there():
    named = re.findall(r"`((?:gpt_pretrain|conf|tests|docs)/[\w./-]+)`", README)
    named += re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists() and not path.endswith("/mine.yaml")] == []


def test_every_cell_of_the_table_of_launchers_names_its_test_or_says_untested():
    text = (ROOT / "docs" / "launchers.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^(\d+)\. `(tests/\S+)`$", text, re.MULTILINE))
    for test in named.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), test
    _, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    for launcher, *cells in rows:
        assert len(cells) == 6, launcher
        for cell in cells:
            used = re.findall(r"\[(\d+)\]", cell)
            assert used or "untested" in cell or cell == "\u2013", (launcher, cell)
            assert set(used) <= set(named)
    assert set(re.findall(r"\[(\d+)\]", text)) == set(named)
    assert len(rows) >= 8
