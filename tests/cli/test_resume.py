"""Going on with a run: its record is data below what the user typed, and nothing of it is obeyed."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpt_pretrain.cli.resume import resume_arguments
from gpt_pretrain.cli.schemas import config_dir
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.runs.folders import fingerprint
from gpt_pretrain.runs.record import read_record
from tests.conftest import ROOT

QUICK = [
    *("model=tiny", "tokenizer=bytes", "trainer=cpu", "trainer.max_steps=2", "decoding.max_new_tokens=3"),
    *("trainer.eval_batches=2", "optimizer=sgd", "optimizer.momentum=0.5", "trainer.precision=32-true"),
]
LAST = "checkpoints/step-00000002"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps as a program left it, to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    words = [sys.executable, str(ROOT / "train.py"), *QUICK, "hydra.run.dir=run"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def record(run: Path) -> dict:
    return yaml.safe_load((run / LAST / "settings.yaml").read_text())


def rewrite(run: Path, text: str) -> None:
    """Other settings in the checkpoint, which its manifest vouches for."""
    folder = run / LAST
    (folder / "settings.yaml").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings.yaml"] = fingerprint(folder / "settings.yaml")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_run_goes_on_with_its_recorded_settings_below_the_typed_ones(typed, run):
    assert typed("train", "resume=run", "trainer.max_steps=3", "optimizer.lr=0.02")[0] == 0
    config = read_record(run / "checkpoints" / "step-00000003")
    assert (config.optimizer.name, config.optimizer.momentum, config.optimizer.lr) == ("sgd", 0.5, 0.02)
    assert (config.model.emb_dim, config.tokenizer.name, config.trainer.max_steps) == (64, "bytes", 3)
    log = (run / "train.log").read_text()
    assert "changed: optimizer.lr was 0.1, is 0.02" in log
    assert "changed: trainer.max_steps was 2, is 3" in log


def test_a_setting_typed_with_its_default_value_goes_before_the_record(typed, run):
    assert typed("train", "resume=run", "trainer.max_steps=3", "optimizer.momentum=0.9")[0] == 0
    assert read_record(run / "checkpoints" / "step-00000003").optimizer.momentum == 0.9


def test_a_device_chosen_anew_keeps_the_recorded_budget_and_rhythm(run, monkeypatch):
    from gpt_pretrain.cli.compose import compose
    from gpt_pretrain.cli.schemas import register_schemas

    monkeypatch.chdir(run.parent)
    register_schemas("train", TrainConfig)
    words = resume_arguments(["resume=run", "trainer=auto", "schedule=linear"], config_dir())
    monkeypatch.setattr("gpt_pretrain.cli.compose.register_schemas", lambda *_: None)  # would undo the record
    config = compose("train", TrainConfig, words[:-1])
    assert (config.trainer.accelerator, config.trainer.max_steps, config.trainer.eval_batches) == (
        "auto",
        2,
        2,
    )
    assert (config.schedule.name, config.optimizer.name) == ("linear", "sgd")


@pytest.mark.parametrize(
    ("changed", "both"),
    [
        ("seed=7", "seed is 7, but it was 123"),
        ("data.val_fraction=0.5", "data.val_fraction is 0.5, but it was 0.1"),
        ("data.split=tokens", "data.split is tokens, but it was documents"),
        ("data.special_tokens=true", "data.special_tokens is true, but it was false"),
        ("tokenizer.pattern='.'", "tokenizer.pattern is ., but it was null"),
        ("tokenizer.encoding=o200k_base", "tokenizer.encoding is o200k_base, but it was gpt2"),
        ("data.stride=32", "data.stride is 32, but it was 64"),
        ("data.max_windows=5", "data.max_windows (windows an epoch) is 5, but it was"),
        ("optimizer=adam", "optimizer is adam, but it was sgd"),
    ],
)
def test_what_decides_the_batches_already_due_is_refused_with_both_values(typed, run, changed, both):
    before = contents(run)
    code, error = typed("train", "resume=run", "trainer.max_steps=4", changed)
    assert (code, both in error, len(error.strip().splitlines())) == (2, True, 2), error
    assert contents(run) == before


@pytest.mark.parametrize("unchanged", ["data.stride=64", "data.max_windows=1000000", "seed=123"])
def test_another_spelling_of_the_same_batches_is_no_change(typed, run, unchanged):
    assert typed("train", "resume=run", "trainer.max_steps=3", unchanged)[0] == 0


def test_a_run_killed_before_its_first_checkpoint_begins_anew_and_says_so(typed, run):
    shutil.rmtree(run / "checkpoints")
    for name in (".saved", "summary.json"):  # which tell that there were some
        (run / name).unlink()
    code, said = typed("train", "resume=run", *QUICK)
    assert (code, "it begins anew" in said) == (0, True)
    assert (run / LAST / "manifest.json").is_file()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "val"))  # nothing of the first try is left
    events.Reload()
    steps = [event.step for event in events.Scalars("1 loss/over steps")]
    assert steps == sorted(set(steps))
    assert [row["step"] for row in csv.DictReader((run / "metrics.csv").open())] == ["0", "1", "2"]
    assert (run / "samples.txt").read_text().count("--- step 2") == 1


def test_resume_auto_goes_on_with_the_newest_run_and_else_begins_one(typed, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resume_arguments(["resume=auto", "seed=1"], config_dir()) == ["seed=1"]
    shutil.copytree(trained, tmp_path / "outputs" / "day" / "time")
    checkpoint = f"outputs/day/time/{LAST}"
    for wanted in (
        "resume=auto",
        "resume=outputs/day/time",
        "+resume=outputs/day/time",
        "resume='outputs/day/time'",
    ):
        words = resume_arguments([wanted, "seed=1", "model=tiny"], config_dir())
        assert words[-4:] == [
            "seed=1",
            "model=tiny",
            f"resume='{checkpoint}'",
            "hydra.run.dir='outputs/day/time'",
        ]
        assert set(words[:-4]) == {
            f"{group}=recorded"
            for group in (
                "weights",
                "data",
                "tokenizer",
                "optimizer",
                "schedule",
                "decoding",
                "trainer",
                "logger",
                "sweep",
            )
        }


@pytest.mark.parametrize("name", ["it's", "a b", "x=1,{2}", "$HOME {x}", "pré'\"\\", "null"])
def test_a_run_of_any_name_is_resumed_as_the_program_says(typed, trained, tmp_path, name):
    import shlex

    from gpt_pretrain.config.words import typed as as_typed

    shutil.copytree(trained, tmp_path / name)
    (word,) = shlex.split(as_typed("resume", name))
    assert typed("train", word, "trainer.max_steps=3", "trainer.sample_every=9")[0] == 0
    assert (tmp_path / name / "checkpoints" / "step-00000003").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_name_that_hydra_cannot_write_to_is_refused_by_name(typed, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "a${x}")
    code, said = typed("train", "resume='a\\${x}'", "trainer.max_steps=3")
    assert (code, "rename the folder" in said) == (2, True), said


def test_a_checkpoint_without_the_newest_settings_gets_their_defaults(typed, run):
    """As one of an earlier version is."""
    settings = record(run)
    del settings["trainer"]["keep_best"], settings["data"]["stride"], settings["logger"]
    rewrite(run, yaml.safe_dump(settings))
    assert typed("train", "resume=run", "trainer.max_steps=3")[0] == 0


def test_a_resume_does_not_write_where_only_the_record_says(typed, run, tmp_path):
    settings = record(run)
    settings["data"] |= {"cache_dir": str(tmp_path / "elsewhere"), "url": "file:///etc/passwd"}
    settings["logger"] |= {"mlflow_uri": f"file://{tmp_path}/mlflow"}
    rewrite(run, yaml.safe_dump(settings))
    code, said = typed("train", "resume=run", "trainer.max_steps=3")
    for key in ("data.cache_dir", "data.url", "logger.mlflow_uri"):
        assert (code, f"{key} is not taken from" in said) == (0, True)
    assert not (tmp_path / "elsewhere").exists()
    went_on = read_record(run / "checkpoints" / "step-00000003")
    assert (went_on.data.url, went_on.logger.mlflow_uri) == (None, None)


# What a downloaded run may try. Each trick writes into `tmp_path`; "canary" there must not change, and
# "s3cret", which stands in an environment variable, must not be seen anywhere.

TOUCH = {"_target_": "shutil.copyfile", "src": "run/train.log", "dst": "canary"}


def overrides(*words):
    return lambda run: (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(words)))


def settings(**changes):
    def trick(run):
        changed = record(run)
        for key, value in changes.items():
            section, _, name = key.partition("__")
            (changed[section] if name else changed)[name or section] = value
        rewrite(run, yaml.safe_dump(changed))

    return trick


def text(content):
    return lambda run: rewrite(run, content)


def link(name, to="canary"):
    def trick(run):
        path = run / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(run.parent / to)

    return trick


def pipe(name):
    def trick(run):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return trick


OBEYED = {  # refused nowhere: nothing of it is looked at, or it is taken as the text that it is
    "rerun": overrides("--experimental-rerun=run/x.pickle"),
    "callback": overrides("+hydra.callbacks.x=" + json.dumps(TOUCH).replace('"', "")),
    "log file": overrides("hydra.job_logging.handlers.file.filename=canary"),
    "hydra.run.dir": overrides("hydra.run.dir=canary"),
    "broken overrides": lambda run: (run / ".hydra" / "overrides.yaml").write_text("[: {"),
    "variable in overrides": overrides("trainer.sample_prompt=${oc.env:SECRET}"),
    "variable": settings(trainer__sample_prompt="${oc.env:SECRET}"),
    "escaped variable": settings(trainer__sample_prompt="\\${oc.env:SECRET}"),
    "variable in a list": settings(tokenizer__special_tokens=[], decoding__stop=["${oc.env:SECRET}"]),
}
REFUSED = {
    "target": settings(data___target_="pathlib.Path.touch"),
    "hydra section": settings(hydra={"callbacks": {"x": TOUCH}}),
    "sources of code": settings(data__source="mixture", data__sources={"a": TOUCH}),
    "number from a variable": settings(optimizer__lr="${oc.env:SECRET}"),
    "python tag": text("!!python/object/apply:os.system ['touch canary2']"),
    "anchors": text("a: &a [1, 1]\n" + "".join(f"b{n}: [*a, *a]\n" for n in range(9))),
    "deep": text("[" * 10_000),
    "large": text("a: " + "x" * (5 << 20)),
    "a list": text("- seed=1"),
    "no text": text("\udcff".encode("utf-8", "surrogateescape").decode("latin1") + "\0"),
    "section of the wrong kind": settings(optimizer="adamw"),
    "name of the wrong kind": settings(optimizer__name=["adamw"]),
}
LINKS = {
    "metrics.csv": link("metrics.csv"),
    "samples.txt": link("samples.txt"),
    "summary.json": link("summary.json"),
    "train.log": link("train.log"),
    "val": link("val", "."),
    "checkpoints": link("checkpoints", "."),
    "settings.yaml": link(f"{LAST}/settings.yaml"),
    "model.safetensors": link(f"{LAST}/model.safetensors"),
    ".hydra": link(".hydra", "."),
    ".lock": link(".lock"),
    ".owner.json": link(".owner.json"),
    "partial": link("checkpoints/.step-00000003.1.partial"),
    "pipe": pipe("metrics.csv"),
    "pipe in a checkpoint": pipe(f"{LAST}/model.safetensors"),
}


@pytest.fixture
def downloaded(run, tmp_path, monkeypatch):
    """A run from elsewhere beside a canary and a secret; checks afterwards that neither was touched."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (os.system, ("echo touched > canary",))

    (run / "x.pickle").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "canary").write_text("untouched")
    monkeypatch.setenv("SECRET", "s3cret")
    yield run
    assert (tmp_path / "canary").read_text() == "untouched"
    assert not (tmp_path / "canary2").exists()
    assert not any(b"s3cret" in content for content in contents(tmp_path).values())


@pytest.mark.parametrize("trick", OBEYED)
def test_a_run_from_elsewhere_is_never_obeyed(typed, downloaded, trick):
    OBEYED[trick](downloaded)
    code, said = typed("train", "resume=run", "trainer.max_steps=3")
    assert (code, "s3cret" in said) == (0, False), said


@pytest.mark.parametrize("trick", REFUSED)
def test_settings_that_no_run_has_are_refused_in_three_lines(typed, downloaded, trick):
    REFUSED[trick](downloaded)
    before = contents(downloaded)
    code, said = typed("train", "resume=run", "trainer.max_steps=3")
    assert (code, len(said.strip().splitlines()) <= 3, "s3cret" in said) == (3, True, False), said
    assert contents(downloaded) == before


COMMANDS = {
    "resume": ["train", "resume=run", "trainer.max_steps=3"],
    "hydra.run.dir": ["train", *QUICK, "hydra.run.dir=run"],
    "weights.path": ["train", *QUICK, "weights=checkpoint", "weights.path=run", "hydra.run.dir=new"],
    "generate": ["generate", "checkpoint=run", "prompt=a"],
    "evaluate": ["evaluate", "checkpoint=run"],
    "export": ["export", "checkpoint=run", "out=exported"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("trick", LINKS)
def test_no_link_and_no_pipe_in_a_run_is_followed(typed, downloaded, trick, command):
    LINKS[trick](downloaded)
    code, said = typed(*COMMANDS[command])
    assert (code, "is not followed" in said, len(said.strip().splitlines()) <= 3) == (3, True, True), said
    assert not (downloaded.parent / "exported").exists()


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("resume", "hydra.run.dir")])
@pytest.mark.parametrize("trick", ["rerun", "callback", "variable"])
def test_other_programs_do_not_obey_it_either(typed, downloaded, trick, command):
    OBEYED[trick](downloaded)
    code, said = typed(*COMMANDS[command])
    assert (code, "s3cret" in said) == (0, False), said


def test_the_tricks_work_where_nothing_stands_in_their_way(run, tmp_path, monkeypatch):
    """The control: Hydra obeys such words, OmegaConf resolves such text, and a link is written through."""
    from omegaconf import OmegaConf

    monkeypatch.setenv("SECRET", "s3cret")
    assert OmegaConf.create({"prompt": "${oc.env:SECRET}"}).prompt == "s3cret"
    (tmp_path / "canary").write_text("untouched")
    link("metrics.csv")(run)
    (run / "metrics.csv").write_text("touched")
    assert (tmp_path / "canary").read_text() == "touched"
    OBEYED["callback"](run)
    words = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())
    command = [sys.executable, str(ROOT / "train.py"), *QUICK, *words, "model.n_heads=7"]
    subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert "touched" not in (tmp_path / "canary").read_text()  # train.log stands there now
