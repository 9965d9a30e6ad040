"""What no line of the package may do, read from its source."""

import ast

import pytest

from tests.conftest import ROOT

SOURCES = sorted((ROOT / "gpt_pretrain").rglob("*.py"))
UNPICKLING = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
NAMING_CODE = {"instantiate", "register_new_resolver", "register_resolver", "get_class", "get_method"}
SAYING_NOTHING = {"utils", "util", "common", "helpers", "base", "manager", "factory"}


def findings(source: str) -> list[str]:
    """What unpickles, or lets settings name code, in a module's text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in UNPICKLING or name in NAMING_CODE]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("eval", "exec") or called.split(".")[-1] in NAMING_CODE:
            found.append(called)
        if called in ("torch.load", "np.load", "numpy.load"):
            kept = {word.arg: ast.unparse(word.value) for word in node.keywords}
            safe = kept.get("weights_only") == "True" or (
                called != "torch.load" and "allow_pickle" not in kept
            )
            found += [] if safe else [called]
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_unpickled_and_no_setting_names_code(file):
    assert findings(file.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(file)",
        "torch.load(file, weights_only=safe)",
        "np.load(file, allow_pickle=True)",
        "from hydra.utils import instantiate",
        "hydra.utils.instantiate(config)",
        "OmegaConf.register_new_resolver('eval', eval)",
        "eval(text)",
    ],
)
def test_a_line_that_did_would_be_found(line):
    assert len(findings(line)) == 1


def test_files_are_named_for_what_they_hold():
    assert {
        part for file in SOURCES for part in file.relative_to(ROOT).with_suffix("").parts
    } & SAYING_NOTHING == set()


@pytest.mark.parametrize(("script", "lines"), [("train.py", 40), ("generate.py", 60)])
def test_the_scripts_hold_nothing_but_their_program(script, lines):
    assert len((ROOT / script).read_text().splitlines()) < lines
