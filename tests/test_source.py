"""What no line of the package may do, read from its source."""

import ast
import os
import subprocess
import sys

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


UNIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "crypt", "syslog"}
# Of `os` and `signal`, what Windows or macOS lacks: used only under a question whether it is there.
UNIX_NAMES = {
    *("fork", "getuid", "geteuid", "killpg", "setsid", "getpgid", "sysconf", "sched_getaffinity", "mkfifo"),
    *("statvfs", "posix_fadvise", "posix_fallocate", "register_at_fork", "uname", "chown", "O_NOFOLLOW"),
    *(
        "O_NONBLOCK",
        "O_DIRECTORY",
        "pthread_sigmask",
        "SIG_BLOCK",
        "SIG_SETMASK",
        "setitimer",
        "alarm",
        "SIGKILL",
    ),
    *("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "siginterrupt", "sigwait"),
}
ASKING = ("sys.platform", "os.name", "hasattr(", "platform.system")


def unportable(source: str) -> list[str]:
    """What Windows lacks, imported with the module; and text files of no said encoding: cp1252 there."""
    tree, found = ast.parse(source), []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name in UNIX]
    guarded = {
        inside
        for node in ast.walk(tree)
        if isinstance(node, ast.If | ast.IfExp) and any(word in ast.unparse(node.test) for word in ASKING)
        for inside in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in UNIX_NAMES and node not in guarded:
            found += [ast.unparse(node)] if ast.unparse(node.value) in ("os", "signal") else []
        if not isinstance(node, ast.Call):
            continue
        called, named = ast.unparse(node.func).split(".")[-1], {word.arg for word in node.keywords}
        given = [*node.args, *(word.value for word in node.keywords if word.arg == "mode")]
        modes = [arg.value for arg in given if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        is_binary = any("b" in mode for mode in modes) or ast.unparse(node.func) in ("os.open", "os.fdopen")
        on_file = isinstance(node.func, ast.Attribute) and called in ("read_text", "write_text")
        opens_text = on_file or (called == "open" and not is_binary)
        if opens_text and "encoding" not in named and not {"buffering", "timeout"} & named:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_needs_unix_to_be_imported_or_reads_text_in_the_machine_s_encoding(file):
    allowed = ["(self.folder / name).open('ab' if entry['n'] else 'wb')"]  # bytes either way
    if file.parent.name == "benchmark":  # which refuses to run elsewhere
        allowed += ["os.sched_getaffinity", "os.sysconf"]
    assert [line for line in unportable(file.read_text(encoding="utf-8")) if line not in allowed] == []


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "from resource import getrusage",
        "file.read_text()",
        "open(file)",
        "file.open('w')",
        "os.getuid()",
        "signal.signal(signal.SIGHUP, f)",
        "if x: os.fork()",
    ],
)
def test_a_line_that_windows_lacks_would_be_found(line):
    assert len(unportable(line)) == 1


WITHOUT_UNIX = """
import os, runpy, signal, sys
for name in {unix}:
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR2", "SIGPIPE", "SIGALRM", "pthread_sigmask", "SIG_BLOCK", "SIG_SETMASK"):
    delattr(signal, name)  # SIGUSR1 is Lightning's, but on Windows
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY"):
    delattr(os, name)
sys.argv[:] = {words}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_programs_run_without_what_unix_alone_has_in_another_encoding(tmp_path):
    """As on Windows, as far as that can be tried here: Unix's modules gone, text cp1252 unless it says."""
    (tmp_path / "text.txt").write_text("Der Käse, größer als 日本語. " * 400, encoding="utf-8")
    data = ["data=text_files", "data.path=text.txt", "tokenizer=characters"]
    quick = ["model=tiny", "trainer=cpu", "trainer.max_steps=2", "decoding.max_new_tokens=3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONIOENCODING": "cp1252"}
    for words in (
        ["train.py", *quick, *data, "data.prepare_workers=1", "hydra.run.dir=run"],
        ["train.py", "resume=run", "trainer.max_steps=3"],
        ["generate.py", "checkpoint=run", "prompt=Der", "decoding.max_new_tokens=3"],
    ):
        program = WITHOUT_UNIX.format(unix=sorted(UNIX), words=[str(ROOT / words[0]), *words[1:]])
        flags = ["-X", "utf8=0", "-X", "warn_default_encoding", "-W", "error::EncodingWarning:gpt_pretrain"]
        done = subprocess.run(
            [sys.executable, *flags, "-c", program], cwd=tmp_path, env=environment, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert (tmp_path / "run" / "checkpoints" / "step-00000003").is_dir()
