"""`~` in every setting that is a path, and names that Windows does not have."""

import dataclasses
import os
import pwd
import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from gpt_pretrain.benchmark.decoding import BenchmarkDecodingConfig
from gpt_pretrain.benchmark.training import BenchmarkConfig
from gpt_pretrain.cli.compose import compose
from gpt_pretrain.cli.refusals import PROGRAMS
from gpt_pretrain.config import MEMBERS, BenchmarkDataConfig, TrainConfig, sections
from gpt_pretrain.config.paths import (
    check_name,
    expand_paths,
    expanded,
    here,
    path_keys,
    unfit_for_windows,
)
from gpt_pretrain.config.words import value_of, with_paths_quoted
from gpt_pretrain.data.sources import cache_dir
from gpt_pretrain.errors import InputError
from gpt_pretrain.sweep.space import read_space
from tests.conftest import QUICK

ROOTS = [*PROGRAMS.values(), BenchmarkConfig, BenchmarkDataConfig, BenchmarkDecodingConfig]
# Settings of text that name no file: a new one is declared as `path_to()`, or stands here.
NO_PATHS = """
    name source pattern text_field subset section url sha256 encoding end_of_text special_tokens
    huggingface_urls openai_urls init sample_prompt prompt score
    stop logit_bias banned_words early_stopping params runs
    constraint settings time memory qos partition account array project mlflow_uri plan_device
"""


def settings_of(root):
    """Key and field of every setting that a program has, those of its sections' members too."""
    for entry in dataclasses.fields(root):
        yield entry.name, entry
    for section, base in sections(root):
        for cls in MEMBERS.get(base, {"": base}).values():
            for entry in dataclasses.fields(cls):
                yield f"{section}.{entry.name}", entry


def holds_text(entry) -> bool:
    return "one_of" not in entry.metadata and bool(re.search(r"\bstr\b|\bAny\b", str(entry.type)))


def undeclared(root) -> set[str]:
    texts = {key for key, entry in settings_of(root) if holds_text(entry) and "path" not in entry.metadata}
    return {key for key in texts if key.rpartition(".")[2] not in NO_PATHS.split()}


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.__name__)
def test_every_setting_of_text_is_a_path_or_known_to_be_none(root):
    assert undeclared(root) == set()


def test_a_path_that_was_not_declared_would_be_found():
    @dataclasses.dataclass
    class Forgotten:
        folder: str | None = None
        seed: int = 0

    assert undeclared(Forgotten) == {"folder"}


def of_defaults(root):
    """A program's settings, all of them left alone."""
    given = {
        section: next(iter(MEMBERS.get(base, {"": base}).values()))() for section, base in sections(root)
    }
    return root(**given)


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.__name__)
@pytest.mark.parametrize(
    ("given", "wanted"),
    [("~/x y", "/home/me/x y"), ("./~/x", "./~/x"), ("a~/~", "a~/~"), ("~", "/home/me"), ("", "")],
)
def test_the_home_folder_stands_in_every_path_and_in_nothing_else(monkeypatch, root, given, wanted):
    monkeypatch.setenv("HOME", "/home/me")
    config, is_path = of_defaults(root), {}
    for key, entry in settings_of(root):
        section, _, name = key.rpartition(".")
        if not hasattr(getattr(config, section) if section else config, name):
            continue  # of another member of the group
        is_path[section, name] = "path" in entry.metadata
        if holds_text(entry):
            setattr(getattr(config, section) if section else config, name, given)
    expand_paths(config)
    for (section, name), path in is_path.items():
        value = getattr(getattr(config, section) if section else config, name)
        assert value == wanted if path else value != "/home/me", (section, name)
    keys = {key for key, entry in settings_of(root) if "path" in entry.metadata}
    assert path_keys(root) == keys


TYPED = [
    ("~/x", "/home/me/x"),
    ("~/my books/*.txt", "/home/me/my books/*.txt"),
    ("café.txt", "café.txt"),
    ("it's", "it's"),
    ("日本 (1).txt", "日本 (1).txt"),
    ("a&b#1;c", "a&b#1;c"),
    ("1e5", "1e5"),
    ("007", "007"),
    ("true", "true"),
    ("[ab].txt", "[ab].txt"),
    ("[12]", "[12]"),
    ("x=1,é", "x=1,é"),
    ("'~/x'", "/home/me/x"),
    ("a\\,b", "a,b"),
    ("null", None),
    ("", ""),
    ("${seed}", "123"),
    (r"C:\books", r"C:\books"),
]


@pytest.mark.parametrize(("given", "wanted"), TYPED)
def test_a_path_is_read_as_it_is_typed_though_hydra_s_grammar_refuses_it(monkeypatch, given, wanted):
    monkeypatch.setenv("HOME", "/home/me")
    config = compose(
        "train", TrainConfig, [f"data.val_path={given}", f"+resume={given}", "weights.path=null"]
    )
    assert (config.data.val_path, config.resume) == (wanted, wanted)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("{~/a.txt:1,d/:2.5}", {"/home/me/a.txt": 1, "d/": 2.5}),
        ("{café.txt:3, it's here:1}", {"café.txt": 3, "it's here": 1}),
        ("{a.txt:1,b:2}", {"a.txt": 1, "b": 2}),
        ("['~/b c:2','C:\\x:1']", {"/home/me/b c": 2, r"C:\x": 1}),
    ],
)
def test_a_mixture_s_paths_too(monkeypatch, given, wanted):
    monkeypatch.setenv("HOME", "/home/me")
    assert compose("train", TrainConfig, ["data=mixture", f"data.sources={given}"]).data.sources == wanted


@pytest.mark.parametrize("given", ["[a.txt]", "{é.txt}", "[é:x]", "{é:0}"])
def test_a_mixture_without_a_weight_is_refused(given):
    with pytest.raises(InputError, match=r"data\.sources: the weight of"):
        compose("train", TrainConfig, ["data=mixture", f"data.sources={given}"])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("{[ab].txt:1,c.txt:2}", {"[ab].txt": 1.0, "c.txt": 2.0}),
        ("[[ab].txt:1,c.txt:2]", {"[ab].txt": 1.0, "c.txt": 2.0}),
        ('{"a b.txt":1,c.txt:2}', {"a b.txt": 1.0, "c.txt": 2.0}),
        ("['a b.txt':1,\"c d\":2]", {"a b.txt": 1.0, "c d": 2.0}),
        ("{it's.txt:1,c.txt:2}", {"it's.txt": 1.0, "c.txt": 2.0}),
    ],
)
def test_the_sources_of_a_mixture_may_be_globs_and_quoted(given, wanted):
    words = with_paths_quoted(["data=mixture", f"data.sources={given}"], {"data.sources"})
    assert compose("train", TrainConfig, words).data.sources == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("[x/a~b.txt:1],[x/c.txt:1]", [{"x/a~b.txt": 1.0}, {"x/c.txt": 1.0}]),
        ("{a~.txt:1,c:2}, [[ab]~.txt:3]", [{"a~.txt": 1.0, "c": 2.0}, {"[ab]~.txt": 3.0}]),
        ("[[ab]~.txt:1,c.txt:2]", [{"[ab]~.txt": 1.0, "c.txt": 2.0}]),
    ],
)
def test_a_sweep_s_mixtures_are_as_many_as_are_typed(given, wanted):
    (_, word) = with_paths_quoted(["-m", f"data.sources={given}"], {"data.sources"})
    space = read_space([word, "seed=1,2"], None, 0)
    words = {tuple(space.words(space.point(index))[:-1]) for index in range(2 * len(wanted))}
    mixtures = [compose("train", TrainConfig, ["data=mixture", *chosen]).data.sources for chosen in words]
    assert sorted(map(str, mixtures)) == sorted(map(str, wanted))


def test_a_source_that_is_named_twice_is_refused():
    with pytest.raises(InputError, match=r"data\.sources names a.txt twice"):
        compose("train", TrainConfig, ["data=mixture", "data.sources=[a.txt:1,a.txt:2]"])


def test_a_sweep_over_paths_stays_one_and_a_comma_in_a_name_is_no_sweep(tmp_path, monkeypatch):
    given = with_paths_quoted(["-m", "data.path=~/a,café,b", "seed=1,2"], {"data.path"})
    assert given == ["-m", "data.path='~/a','café',b", "seed=1,2"]
    assert with_paths_quoted(["hydra.run.dir=~/x"], {"hydra.run.dir"}) == ["hydra.run.dir=~/x"]
    (tmp_path / "a,b").touch()
    monkeypatch.chdir(tmp_path)
    assert with_paths_quoted(["data.path=a,b"], {"data.path"}) == ["data.path='a,b'"]
    assert with_paths_quoted(["-m", "data.path=a,b"], {"data.path"}) == ["-m", "data.path=a,b"]
    (tmp_path / "a,b").unlink()
    assert with_paths_quoted(["data.path=a,b", "x=~"], {"data.path"}) == ["data.path=a,b", "x=~"]


def test_another_user_s_home_folder_is_found_and_a_stranger_s_is_refused():
    me = pwd.getpwuid(os.getuid())
    assert expanded("resume", f"~{me.pw_name}/run") == f"{me.pw_dir.rstrip('/')}/run"
    with pytest.raises(InputError, match=r"data\.path=~nosuch/x: .* no user nosuch: .*\./~nosuch/x for"):
        compose("train", TrainConfig, ["data=text_files", "data.path=~nosuch/x"])


@pytest.mark.parametrize("path", ["~", "~/x", "~/a/b"])
def test_a_user_without_a_home_folder_is_told_so_in_one_line(monkeypatch, path):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    with pytest.raises(InputError, match=r"^data\.path=~.*: this user has no home folder: .*path$"):
        expanded("data.path", path)


@pytest.mark.parametrize(
    ("variable", "folder"),
    [("GPT_PRETRAIN_CACHE", "/home/me/c"), ("XDG_CACHE_HOME", "/home/me/c/gpt_pretrain")],
)
def test_the_cache_s_variables_may_begin_with_the_home_folder(monkeypatch, variable, folder):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("GPT_PRETRAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "~/c")
    assert cache_dir() == Path(folder)
    monkeypatch.setenv(variable, "~nosuch/c")
    with pytest.raises(InputError, match=rf"{variable}=~nosuch/c: this machine knows no user"):
        cache_dir()


@pytest.mark.trains
def test_a_run_in_the_home_folder_is_resumed_and_one_in_a_folder_of_that_name_by_its_hint(
    typed, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    quick = [*QUICK, "trainer.max_steps=1", "trainer.eval_batches=1"]
    assert typed("train", *quick, f"hydra.run.dir={tmp_path / 'home' / 'run'}")[0] == 0
    assert typed("train", "resume=~/run", "trainer.max_steps=2")[0] == 0
    assert (tmp_path / "home" / "run" / "checkpoints" / "step-00000002").is_dir()
    assert typed("train", *quick, "hydra.run.dir='~/run'")[0] == 0  # Hydra's own setting: a folder named ~
    log = (tmp_path / "~" / "run" / "train.log").read_text()
    (line,) = [line for line in log.splitlines() if "resume=" in line]
    (hint,) = [word for word in shlex.split(line) if word.startswith("resume=")]
    assert value_of("resume", [hint]) == "./~/run"
    assert typed("train", hint, "trainer.max_steps=3")[0] == 0
    assert (tmp_path / "~" / "run" / "checkpoints" / "step-00000003").is_dir()
    code, error = typed("train", "resume=~nosuch/run")
    assert (code, "no user nosuch" in error, len(error.splitlines())) == (2, True, 1)


# --- Windows -----------------


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("con", "device"),
        (r"runs\NUL", "device"),
        ("runs/aux.txt/run", "device"),
        (r"C:\runs\com1.old", "device"),
        ("LPT¹", "device"),
        ("prn .txt", "device"),
        ("runs/12:30", "':'"),
        ("lr=1e-3|b", "'|'"),
        ("what?", "'?'"),
        ("tab\there", "holds"),
        ("run.", "a dot"),
        ("run ", "a space"),
        (r"C:\a.\b", "a dot"),
    ],
)
def test_a_name_that_windows_does_not_have_is_found(path, problem):
    assert problem in next(unfit_for_windows(path))
    with pytest.raises(InputError, match="as Windows allows in no name") as refused:
        check_name("hydra.run.dir", path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "path",
    [
        *("runs/console", "null", "com10", "lpt", "a.b", ".hidden", "..", r"..\x", "lr=1e-3,b=2", "café"),
        *(r"C:\Users\me\run", "C:run", r"\\server\share\run", r"\\?\C:\long\run", "a/b\\c", ""),
    ],
)
def test_every_other_name_is_left_alone(path):
    assert list(unfit_for_windows(path)) == []


@pytest.mark.parametrize(
    "setting",
    ["hydra.run.dir=runs/nul", "hydra.run.dir='runs/12:30'", "hydra.sweep.dir=con", "data.cache_dir=aux/x"],
)
def test_windows_is_asked_before_anything_is_made(typed, tmp_path, monkeypatch, setting):
    import gpt_pretrain.cli.program
    import gpt_pretrain.config.paths

    class Windows:  # what the two modules ask of `os`
        name = "nt"
        path, environ, devnull = os.path, os.environ, os.devnull

    monkeypatch.setattr(gpt_pretrain.cli.program, "os", Windows)
    monkeypatch.setattr(gpt_pretrain.config.paths, "os", Windows)
    code, error = typed("train", *QUICK, setting)
    assert (code, "Windows" in error, len(error.splitlines())) == (2, True, 1), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.trains
def test_all_that_a_run_makes_has_a_name_on_windows_and_leaves_room_to_260_characters(
    typed, tmp_path, monkeypatch
):
    monkeypatch.setenv("GPT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("some text " * 300)
    data = ["data=text_files", "data.path=a.txt", "trainer.checkpoint_every=1", "trainer.max_steps=2"]
    assert typed("train", *QUICK, *data)[0] == 0
    assert typed("train", "-m", *QUICK, *data, "optimizer.lr=1e-3,1e-4")[0] == 0
    made = [PurePosixPath(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")]
    assert len(made) > 60
    assert [
        (path, list(unfit_for_windows(str(path)))) for path in made if list(unfit_for_windows(str(path)))
    ] == []
    # committed by way of ".<name>.partial"; C:\Users\<20 characters>\<60 characters> is 90
    longest = max(len(str(PureWindowsPath(path))) for path in made) + len(".partial") + 1
    assert longest < 260 - 90


def test_here_changes_nothing_else():
    assert [here(path) for path in ("~", "~a/b", "a~", "/~", "")] == ["./~", "./~a/b", "a~", "/~", ""]
