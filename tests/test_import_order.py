"""The package is a strict order: a module imports only modules that stand before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gpt_pretrain"
ORDER = [
    "errors",
    "config",
    "help",
    "watching",
    "terminal",
    "launch",
    "runs.foreign",
    "runs.folders",
    "runs.owner",
    "runs.record",
    "cli.resume",
    "sweep.plugin",
    "sweep.sweeper",
    "sweep.hydra_plugins",
    "entry",
    "tokenizer",
    "loss",
    "model",
    "schedule",
    "plan",
    "optim",
    "decoding",
    "weights",
    "data.notes",
    "data.fingerprints",
    "data.files",
    "data.gutenberg",
    "data.sources",
    "data.progress",
    "data.tokens",
    "data.shards",
    "data.workers",
    "data.splits",
    "data.cache",
    "data.token_files",
    "data.windows",
    "data.corpus",
    "data.order",
    "data.datamodule",
    "checkpoint",
    "pretrained",
    "first_sample",
    "preparation",
    "module",
    "metrics_csv",
    "loggers",
    "callbacks",
    "report",
    "training",
    "prompts",
    "interactive",
    "inspection",
    "generation",
    "evaluation",
    "trial",
    "benchmark",
    "benchmark_decoding",
    "commands",
    "evaluate",
    "export",
    "prepare",
    "inspect_data",
    "benchmark_data",
]


def _place(module: str) -> int:
    """Where in ORDER a module stands: by its own name, else by its package's."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in ORDER:
            return ORDER.index(".".join(parts[:length]))
    pytest.fail(f"{module} has no place in ORDER")


def _modules() -> dict[str, Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    names = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in files}
    return {name: file for name, file in names.items() if not name.endswith("__init__")}


def _imported(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt_pretrain."):
            names.append(node.module.removeprefix("gpt_pretrain."))
    return names


@pytest.mark.parametrize("name", _modules())
def test_a_module_imports_only_what_stands_before_it(name):
    for imported in _imported(ast.parse(_modules()[name].read_text())):
        same_package = imported.split(".")[0] == name.split(".")[0]
        assert _place(imported) < _place(name) or same_package, f"{name} imports {imported}"


@pytest.mark.parametrize("light", ["config", "entry", "commands", "runs", "tokenizer"])
def test_light_modules_import_neither_torch_nor_lightning(light):
    import subprocess
    import sys

    code = f"import sys, gpt_pretrain.{light}; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
