"""The programs as typed: exit codes, what is said, what is left behind."""

import json
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from gpt_pretrain.cli import commands, program, refusals
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import InfrastructureError, InputError, StoppedError
from gpt_pretrain.launch.launchers import Process
from gpt_pretrain.launch.signals import Interrupted
from tests.conftest import QUICK, ROOT

pytestmark = pytest.mark.trains

SETTINGS = [*QUICK, "trainer.max_steps=2", "trainer.eval_batches=2"]


def write(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.n_layr=2"], "did you mean model.n_layers?"),
        (["model=tinny"], "did you mean tiny?"),
        (["model=tyni"], "did you mean tiny?"),
        (["model.n_layers=abc"], "could not be converted to Integer"),
        (["model.emb_dim=100", "model.n_heads=3"], "not divisible by model.n_heads=3"),
        (["model.vocab_size=100", "tokenizer=gpt2"], "cannot hold the tokenizer's 50257 ids"),
        (
            ["schedule=constant", "schedule.warmup_steps=10", "trainer.max_steps=5"],
            "does not fit into a run of 5",
        ),
        (["data=text_files", "data.path=missing.txt"], "no such file or folder"),
        (["data=text_files", "data.path=empty.txt"], "empty.txt holds no text"),
        (["data=text_files", "data.path=latin1.txt"], "is not UTF-8: byte 3 is 0xe9"),
        (
            ["data=text_files", "data.path=short.txt", "tokenizer=gpt2"],
            "has 9 training tokens of 11, too few for one window: 129",
        ),
        (["data.val_fraction=0.0001"], "validation tokens"),
        (["decoding.temperature=-0.5"], "decoding.temperature=-0.5 is out of range"),
        (["decoding.top_k=0"], "decoding.top_k=0 is out of range"),
        (["weights=checkpoint", "weights.path=nowhere"], "weights.path=nowhere: no such folder"),
        (["resume=nowhere"], "resume=nowhere is no run"),
        (["trainer=gpu"], "no GPU"),
        (["trainer=cpu", "trainer.precision=16-mixed"], "set trainer.precision=bf16-mixed or 32-true"),
        (["trainer.sample_prompt="], "trainer.sample_prompt is empty"),
        (["model tiny"], "'model tiny' cannot be read as a setting"),
        (["tokenizer.special_tokens=[<pad>]"], "quote what is special"),
        (["model=tiny", "trainer.max_steps="], ""),
        (["-m", "-c", "job", "optimizer.lr=1e-3,1e-4"], "Only one of --run, --multirun, --cfg"),
        (["--config-name", "nope"], "there is no nope.yaml among the settings"),
        (["model=tiny,mini"], "model=tiny,mini has several values: add -m for a sweep"),
        (["model={a:1}"], "model takes the name of an option: model=chapter5|"),
        (["trainer=[1,2]"], "the command line cannot be used"),
        (["model=tiny", "-m", "resume=nowhere"], "resume=nowhere is no sweep"),
        (["hydra.run.dir=empty.txt"], "empty.txt is a file"),
        (["hydra.run.dir=empty.txt/run"], "empty.txt/run is a file or lies in one"),
        (["seed=9223372036854775808"], "seed=9223372036854775808 is out of range"),
        (["trainer.max_epochs=1e300"], "trainer.max_epochs=1e+300 is more than 1e+18 tokens"),
        (["trainer.max_tokens=100"], "trainer.max_tokens=100 is less than one optimizer step"),
    ],
)
def test_bad_input_to_training_exits_2_in_three_lines_and_leaves_no_folder(typed, tmp_path, arguments, said):
    write(tmp_path / "empty.txt", b" \n")
    write(tmp_path / "latin1.txt", "caf\xe9".encode("latin1"))
    write(tmp_path / "short.txt", b"one two three four five six seven eight nine ten")
    code, error = typed("train", *arguments)
    assert (code, said in error, len(error.strip().splitlines()) <= 3) == (2, True, True), error
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["prompt="], 2, "prompt is empty"),
        (["checkpoint=nowhere", "prompt=It's here, (is it?)"], 2, "checkpoint=nowhere: no such folder"),
        ([], 2, "train first"),
        (["decoding.temperature=-1"], 2, "out of range"),
        (["decoding.top_p=1.5"], 2, "out of range"),
        (["checkpoint=broken"], 3, "broken"),
    ],
)
def test_bad_input_to_generation_is_refused(typed, tmp_path, arguments, code, said):
    (tmp_path / "broken").mkdir()
    write(tmp_path / "broken" / "config.json", b"{}")
    found, error = typed("generate", *arguments)
    assert (found, said in error, len(error.strip().splitlines()) <= 3) == (code, True, True), error
    assert not (tmp_path / "outputs").exists()


def test_train_then_generate_then_resume(typed, tmp_path):
    assert typed("train", *SETTINGS)[0] == 0
    (run,) = tmp_path.glob("outputs/*/*")
    assert json.loads((run / "summary.json").read_text())["steps"] == 2
    assert "validation loss" in (run / "train.log").read_text()
    assert typed("generate", "prompt=Every effort", "decoding.max_new_tokens=4")[0] == 0
    assert typed("train", "resume=auto", "trainer.max_steps=4")[0] == 0
    assert list(tmp_path.glob("outputs/*/*")) == [run]
    assert json.loads((run / "summary.json").read_text())["steps"] == 4


def test_a_run_writes_nothing_outside_its_folder(typed, tmp_path):
    assert typed("train", *SETTINGS, "logger.pictures=true")[0] == 0
    (run,) = tmp_path.glob("outputs/*/*")
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(run)}
    assert outside == {run.parent, run.parent.parent}
    # .lock keeps a second process out, .saved tells a run whose checkpoints are gone from one that had none
    promised = {".hydra", "train.log", "metrics.csv", "loss.png", "samples.txt", "checkpoints", "report.html"}
    promised |= {"val", "summary.json", "environment.json", ".lock", ".saved"}
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names == promised


def test_what_follows_from_another_setting_is_written_down_as_it_was_typed(typed, tmp_path):
    words = ["schedule.min_lr=${optimizer.lr}", "trainer.sample_prompt='\\${x}'"]
    code, said = typed("train", *QUICK, "trainer.max_steps=1", "logger=csv", *words, "hydra.run.dir=run")
    assert code == 0, said
    written = (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()
    assert yaml.safe_load(written)[-2:] == words


@pytest.mark.parametrize("speaks", [True, False])
def test_a_signal_before_the_first_step_leaves_no_folder(typed, tmp_path, monkeypatch, speaks):
    def train(*arguments, **options):
        if speaks:
            logging.getLogger("gpt_pretrain").warning("what opens the run's log")
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr("gpt_pretrain.training.train.train", train)
    code, said = typed("train", *SETTINGS, "hydra.run.dir=runs/one")
    assert (code, said.splitlines()[-1]) == (130, "error: interrupted by SIGINT")
    assert list(tmp_path.iterdir()) == []


def test_cfg_job_shows_what_a_command_line_comes_to_and_runs_nothing(typed, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "job", "model=tiny", "optimizer.lr=0.25"])
    commands.train_command()
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.optimizer.lr, shown.model.emb_dim, shown.seed) == (0.25, 64, 123)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_resume_leaves_the_run_its_settings(typed, tmp_path):
    assert typed("train", *SETTINGS, "hydra.run.dir=mine")[0] == 0
    settings = {file: file.read_bytes() for file in (tmp_path / "mine" / ".hydra").iterdir()}
    for refused in (["data.path=nowhere", "data=text_files"], ["tokenizer=gpt2"]):
        assert typed("train", "resume=mine", "trainer.max_steps=4", *refused)[0] == 2
        assert {file: file.read_bytes() for file in settings} == settings
    assert typed("train", "resume=mine", "trainer.max_steps=4")[0] == 0


def test_a_folder_that_holds_a_run_is_not_overwritten(typed, tmp_path):
    assert typed("train", *SETTINGS, "hydra.run.dir=mine")[0] == 0
    summary = (tmp_path / "mine" / "summary.json").read_bytes()
    code, error = typed("train", *SETTINGS, "hydra.run.dir=mine")
    assert (code, "holds a run already" in error) == (2, True)
    assert (tmp_path / "mine" / "summary.json").read_bytes() == summary


def test_runs_that_a_script_starts_in_the_same_second_do_not_share_a_folder(tmp_path):
    starts = "from gpt_pretrain.cli.commands import train_command; train_command()"
    program = f"import sys; sys.argv[1:] = {SETTINGS}; {starts}"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    words, environment = [sys.executable, "-c", program], {**os.environ, "PYTHONPATH": paths}
    runs = [subprocess.Popen(words, cwd=tmp_path, env=environment) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(list((tmp_path / "outputs").glob("*/*"))) == 2


def test_a_sweep_gives_every_trial_its_folder_and_the_result_of_a_run_alone(typed, tmp_path):
    assert typed("train", "-m", *SETTINGS, "optimizer.lr=1e-4,1e-3", "hydra.sweep.dir=sweep")[0] == 0
    assert typed("train", *SETTINGS, "optimizer.lr=1e-3", "hydra.run.dir=alone")[0] == 0
    first, second, alone = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("sweep/0", "sweep/1", "alone")
    )
    assert second["val_loss"] == alone["val_loss"] != first["val_loss"]


def test_a_signal_ends_the_whole_sweep(typed, tmp_path, monkeypatch):
    def stopped(*_):
        raise StoppedError(15, "stopped by signal 15")

    monkeypatch.setattr("gpt_pretrain.training.train.train", stopped)
    code, said = typed("train", "-m", *SETTINGS, "seed=1,2", "hydra.sweep.dir=sweep")
    assert (code, said) == (143, "error: stopped by signal 15\n")


def test_a_sweep_may_be_asked_for_between_the_settings(typed, tmp_path):
    code, error = typed("train", *SETTINGS, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert code == 0, error
    assert (tmp_path / "sweep" / "1" / "summary.json").is_file()


def test_the_commands_to_run_next_name_the_run_and_what_to_change(typed, tmp_path):
    assert typed("train", *SETTINGS, "hydra.run.dir='my run'")[0] == 0
    log = (tmp_path / "my run" / "train.log").read_text()
    *commands_, watch = log.splitlines()[-3:]
    generate_, resume = (shlex.split(line.partition(" python ")[2]) for line in commands_)
    assert watch.endswith("watch   tensorboard --logdir .")
    assert generate_ == ["generate.py", "checkpoint='my run'"]
    assert resume == ["train.py", "resume='my run'", "trainer.max_steps=4"]
    assert typed("generate", *generate_[1:], "decoding.max_new_tokens=2")[0] == 0
    assert typed("train", *resume[1:])[0] == 0
    assert json.loads((tmp_path / "my run" / "summary.json").read_text())["steps"] == 4


def test_a_run_that_saved_nothing_is_not_offered_to_go_on_with(typed, tmp_path):
    diverging = ["optimizer.lr=1e308", "trainer.grad_clip=null", "trainer.max_steps=20", "hydra.run.dir=run"]
    assert typed("train", *SETTINGS, *diverging)[0] == 4
    assert "resume=" not in (tmp_path / "run" / "train.log").read_text()


def test_only_the_first_rank_says_that_a_signal_stopped_the_run(monkeypatch, capsys):
    second = Process(rank=1, world_size=2)
    monkeypatch.setattr(program, "rank", lambda: second.rank)
    monkeypatch.setattr(program, "process", lambda: second)
    monkeypatch.setattr(program, "is_launched", lambda: True)
    program._report(StoppedError(15, "go on with resume=."))
    program._report(InputError("what every rank has found"), told=True)
    assert capsys.readouterr().err == ""
    program._report(InputError("this one"))
    assert capsys.readouterr().err == f"rank 1 of 2 on {socket.gethostname()}: error: this one\n"


def test_a_lost_rank_is_an_error_of_the_machine():
    said = "[/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:18820: Connection reset by peer"
    with (
        pytest.raises(InfrastructureError, match="another process of this run was lost"),
        refusals.user_facing(TrainConfig, debug=False),
    ):
        raise RuntimeError(said)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("NCCL error in: NCCLUtils.hpp, unhandled cuda error: Cuda failure 2 'out of memory'"),
    ],
)
def test_want_of_memory_is_answered_with_what_to_make_smaller(error):
    with (
        pytest.raises(InfrastructureError, match=r"data\.batch_size"),
        refusals.user_facing(TrainConfig, debug=False),
    ):
        raise error


@pytest.mark.parametrize(
    "words",
    [
        ["gpt_pretrain.inspect_data", "data.cache_dir=."],
        ["gpt_pretrain.export", "--help"],
        ["gpt_pretrain.evaluate", "--version"],
    ],
)
def test_a_reader_that_leaves_as_head_does_is_no_error(tmp_path, words):
    words = [sys.executable, "-m", *words]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        words, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_failing_trial_does_not_take_the_others_with_it(typed, tmp_path):
    code, error = typed("train", "-m", *SETTINGS, "model.n_heads=3,2", "hydra.sweep.dir=sweep")
    assert (code, "model.n_heads=3" in error) == (2, True)
    assert not (tmp_path / "sweep" / "0").exists()
    assert (tmp_path / "sweep" / "1" / "summary.json").is_file()


def test_damage_to_every_checkpoint_of_a_run_is_an_error_and_no_new_start(typed, tmp_path):
    assert typed("train", *SETTINGS, "hydra.run.dir=mine")[0] == 0
    for file in (tmp_path / "mine" / "checkpoints").glob("*/model.safetensors"):
        file.write_bytes(b"")
    code, error = typed("train", "resume=mine", "trainer.max_steps=4")
    assert (code, "no checkpoint that can be used" in error) == (3, True)


def test_a_damaged_later_checkpoint_does_not_cost_a_resumed_run_those_it_saves(typed, tmp_path):
    rhythm = ["trainer.checkpoint_every=1", "trainer.keep_best=false", "hydra.run.dir=run"]
    assert typed("train", *SETTINGS, *rhythm)[0] == 0
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "step-00000002", checkpoints / "step-00000009")
    write(checkpoints / "step-00000009" / "model.safetensors", b"damaged")
    assert typed("train", "resume=run", "trainer.max_steps=4", "trainer.keep_last=2")[0] == 0
    assert {folder.name[-1] for folder in checkpoints.iterdir()} == {"3", "4", "9"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A folder that holds a sweep of two trials: to be copied."""
    folder = tmp_path_factory.mktemp("swept")
    words = [str(ROOT / "train.py"), "-m", *SETTINGS, "optimizer.lr=1e-3,1e-2", "hydra.sweep.dir=sweep"]
    subprocess.run([sys.executable, *words], cwd=folder, check=True, capture_output=True)
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    "second",
    [
        ["-m", "optimizer.lr=1e-1", "hydra.sweep.dir=sweep"],
        ["-m", "optimizer.lr=1e-1,1e-2", "hydra.sweep.dir=sweep"],
        ["-m", "model.n_heads=7", "hydra.sweep.dir=sweep"],
        ["-m", "optimizer.lr=0", "hydra.sweep.dir=sweep/0"],
        ["optimizer.lr=1e-1", "hydra.run.dir=sweep/0"],
        ["optimizer.lr=abc", "hydra.run.dir=sweep/0"],
        ["resume=sweep/0", "trainer.max_steps=4", "seed=7"],
        ["resume=sweep/0", "trainer.max_steps=4", "data=text_files", "data.path=nowhere"],
        ["resume=sweep", "trainer.max_steps=4"],
    ],
)
def test_a_refusal_changes_nothing_on_disk(typed, tmp_path, swept, second):
    shutil.copytree(swept, tmp_path, dirs_exist_ok=True)
    before, folders = contents(tmp_path), sorted(tmp_path.rglob("*"))
    code, error = typed("train", *SETTINGS, *second)
    assert (code, error.startswith("error: "), len(error.strip().splitlines()) <= 3) == (2, True, True), error
    assert contents(tmp_path) == before
    assert sorted(tmp_path.rglob("*")) == folders


@pytest.mark.parametrize(
    "folder", ["hydra.run.dir=made/here", "hydra.run.dir=empty/here", "hydra.run.dir=empty"]
)
def test_a_refused_run_leaves_the_folders_that_stood_and_no_others(typed, tmp_path, folder):
    (tmp_path / "empty").mkdir()
    assert typed("train", *SETTINGS, "model.n_heads=7", folder)[0] == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_a_refused_sweep_leaves_no_folder(typed, tmp_path):
    assert typed("train", "-m", *SETTINGS, "model.n_heads=7,9", "hydra.sweep.dir=a/sweep")[0] == 2
    assert list(tmp_path.iterdir()) == []
