"""What is said to who types another program's words, or what this program does not take."""

import logging
import os
import pkgutil
import pwd
import signal
import sys

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from gpt_pretrain.cli import commands
from gpt_pretrain.cli.compose import compose
from gpt_pretrain.cli.flags import check_dashes, flags_first
from gpt_pretrain.cli.refusals import user_facing
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.habits import HABITS
from gpt_pretrain.data import sources
from gpt_pretrain.errors import InfrastructureError, InputError, UserFacingError
from gpt_pretrain.launch.signals import Interrupted
from tests.conftest import QUICK


@pytest.mark.parametrize("name", HABITS)
def test_a_name_typed_out_of_habit_gets_the_setting_that_does_it_here(name):
    for prefix in ("", "trainer.", "+", "+trainer."):
        if f"{prefix.lstrip('+')}{name}" in ("trainer.compile", "trainer.strategy"):
            continue  # ours too
        with pytest.raises(InputError) as refusal:
            compose("train", TrainConfig, [f"{prefix}{name}=1"])
        assert f"{HABITS[name]} does it here" in str(refusal.value)


@pytest.mark.parametrize("setting", dict.fromkeys(HABITS.values()))
def test_what_is_named_instead_is_a_setting(setting):
    compose("train", TrainConfig, setting.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--batch_size=8"],
            "--batch_size=8: a setting is typed as key=value, without dashes: data.batch_size=8",
        ),
        (["--learning-rate", "1e-3"], "without dashes: optimizer.lr=3e-4 does it here"),
        (["--seed=3"], "without dashes: seed=3"),
        (["--resume"], "without dashes: resume=..."),
        (
            ["model=tiny", "--data", "books"],
            "--data: a setting is typed as key=value, without dashes: data=...",
        ),
        (["--trainer.max_stpes=3"], "without dashes, did you mean trainer.max_steps?"),
        (["-lr", "1"], "without dashes: optimizer.lr=3e-4 does it here"),
        (["--cuda"], "--cuda: a setting is typed as key=value, without dashes"),
        (["data=TextFiles"], "did you mean text_files?"),
        (["model=GPT2-Small"], "did you mean gpt2_small?"),
        (["debug=profle"], "debug=profle: no such option, did you mean profile?"),
    ],
)
def test_dashes_and_other_letters_are_answered_with_how_it_is_typed_here(typed, tmp_path, arguments, said):
    code, error = typed("train", *arguments)
    assert (code, said in error, len(error.splitlines())) == (2, True, 1), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--cfg", "job"], ["-c", "job"], ["--version"], ["--multirun", "--cfg", "job"], ["--info", "all"]],
)
def test_hydra_s_own_flags_are_left_to_it(arguments):
    check_dashes(arguments, TrainConfig)


@pytest.mark.parametrize(
    ("arguments", "sorted_"),
    [
        (["a=1", "-m", "b=2", "--multirun"], ["-m", "a=1", "b=2"]),
        (["a=1", "--cfg", "job", "b=2"], ["--cfg", "job", "a=1", "b=2"]),
        (["a=1", "--cfg=job", "b=2"], ["--cfg=job", "a=1", "b=2"]),
        (["a=1", "--config-dir", "my", "b=2"], ["--config-dir", "my", "a=1", "b=2"]),
        (["a=1", "-cd", "my", "b=2", "--config-n", "x"], ["-cd", "my", "--config-n", "x", "a=1", "b=2"]),
        (["a=1", "--info", "b=2"], ["--info", "a=1", "b=2"]),
        (["a=1", "--info", "defaults", "b=2"], ["--info", "defaults", "a=1", "b=2"]),
        (["a=1", "--resolve", "b=2", "-c", "job"], ["--resolve", "-c", "job", "a=1", "b=2"]),
        (["a=1", "--", "-m", "b=2"], ["a=1", "--", "-m", "b=2"]),
        (["a=-1", "--cfg"], ["--cfg", "a=-1"]),
    ],
)
def test_flags_come_before_the_settings_each_with_its_value(arguments, sorted_):
    assert flags_first(arguments) == sorted_


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("generate", "schedule=linear", "this program has no such setting or group: it is one of train.py"),
        ("generate", "optimizer=adamw", "it is one of train.py"),
        ("generate", "trainer.devices=2", "it is one of train.py"),
        ("evaluate", "optimizer=sgd", "it is one of train.py"),
        ("train", "prompt=Every", "it is one of generate.py"),
        ("train", "split=val", "it is one of gpt_pretrain.evaluate"),
        ("generate", "learning_rate=1", "no such setting or group"),
        ("generate", "num_samples=null", "num_samples=null has no meaning: give it a value"),
        ("generate", "num_samples=null", "num_samples=null has no meaning"),
        ("train", "seed=null", "seed=null has no meaning"),
        ("train", "trainer.log_every=null", "trainer.log_every=null has no meaning"),
        ("train", "trainer.devices=auto", "trainer.devices=null means every GPU, or one CPU process"),
        ("train", "trainer.devices=-1", "trainer.devices=null means every GPU, or one CPU process"),
        ("train", "trainer.devices=[0,1]", "trainer.devices=null means every GPU, or one CPU process"),
        ("train", "trainer.max_steps=-1", "trainer.max_steps=null means no such limit"),
        ("train", "hydra.run.dir=~/x", "Hydra makes a folder named ~ of it: give the whole path"),
        ("train", "trainer.precision=16", "16-mixed, did you mean 16-mixed?"),
        ("train", "trainer.precision=bf16", "did you mean bf16-mixed?"),
        ("train", "trainer.precision=32", "did you mean 32-true?"),
        ("train", "trainer.grad_clip=0", "trainer.grad_clip=null means no clipping"),
        ("train", "trainer.eval_every=never", "trainer.eval_every=null means ten times a run"),
        ("train", "trainer.checkpoint_every=0", "means only the best and the last"),
    ],
)
def test_a_refusal_speaks_of_this_program(typed, tmp_path, name, argument, said):
    code, error = typed(name, argument)
    assert (code, said in error, len(error.strip().splitlines()) <= 3) == (2, True, True), error
    assert "Optional" not in error
    assert "did you mean tokenizer" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sweep", ["-m", "--multirun"])
@pytest.mark.parametrize("shown", [("--cfg", "job"), ("-c", "all"), ("--info", "all")])
def test_a_sweep_that_is_to_show_its_settings_is_refused_in_a_line(typed, tmp_path, sweep, shown):
    for arguments in ([sweep, *shown], [*shown, sweep]):
        code, error = typed("train", *arguments)
        assert (code, len(error.strip().splitlines())) == (2, 1), error
        assert not list(tmp_path.iterdir())


@pytest.fixture
def homeless(monkeypatch):
    def nobody(*_):
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "GPT_PRETRAIN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_a_user_without_a_home_is_asked_for_a_folder(typed, tmp_path, homeless):
    code, error = typed("train", *QUICK)
    assert (code, "set data.cache_dir=<folder>" in error) == (2, True), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["GPT_PRETRAIN_CACHE", "XDG_CACHE_HOME"])
def test_a_user_without_a_home_who_names_the_cache_needs_none(tmp_path, monkeypatch, homeless, name):
    monkeypatch.setenv(name, str(tmp_path))
    assert sources.cache_dir().is_relative_to(tmp_path)


@pytest.mark.parametrize("arguments", [["seed=-1"], ["nosuch=1"], ["-m", "seed=-1,-2"]])
def test_a_program_gives_back_the_logging_that_stood_before(typed, monkeypatch, capsys, arguments):
    root = logging.getLogger()
    mine = logging.StreamHandler(open(os.devnull, "w"))  # noqa: SIM115 - closed below
    monkeypatch.setattr(root, "handlers", [mine])
    monkeypatch.setattr(root, "level", logging.ERROR)  # given back too: later tests read warnings
    monkeypatch.setattr(sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115 - closed below
    monkeypatch.setattr(sys, "argv", ["train.py", *QUICK, *arguments])
    with pytest.raises(SystemExit):
        commands.train_command()
    sys.stderr.close()
    monkeypatch.undo()
    logging.getLogger("other").error("after the run")
    assert "closed file" not in capsys.readouterr().err
    assert mine.stream.closed is False
    mine.stream.close()


@pytest.mark.trains
def test_what_is_logged_after_a_run_does_not_reach_its_log(typed, tmp_path):
    before = list(logging.getLogger().handlers)
    code, error = typed("train", *QUICK, "trainer.max_steps=1", "hydra.run.dir=run")
    assert code == 0, error
    assert logging.getLogger().handlers == before
    logging.getLogger("another").error("of another program")
    assert "of another program" not in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_library_raises_over_an_interruption_is_the_interruption(wrapped):
    """OmegaConf's own clean-up fails on a tree that a signal left half built."""

    def interrupted():
        try:
            raise Interrupted(signal.SIGTERM)
        finally:
            raise AttributeError("'NoneType' object has no attribute '_invalidate_flags_cache'")

    def hydra():
        try:
            interrupted()
        except AttributeError as error:
            failure = HydraException("defaults: cannot be read")
            failure.__cause__ = None
            raise failure.with_traceback(error.__traceback__)  # noqa: B904 - as OmegaConf does

    said = "^interrupted by SIGTERM$"
    with pytest.raises(UserFacingError, match=said) as ended, user_facing(TrainConfig, debug=False):
        hydra() if wrapped else interrupted()
    assert ended.value.exit_code == 128 + signal.SIGTERM
    with pytest.raises(AttributeError), user_facing(TrainConfig, debug=False):
        raise AttributeError("an error of its own")


@pytest.mark.parametrize("mode", ["run", "sweep"])
@pytest.mark.parametrize("named", [[], ["hydra.run.dir=a/b", "hydra.sweep.dir=a/b"]])
@pytest.mark.parametrize(
    "at",
    [
        "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_configuration",
        "hydra.core.hydra_config.HydraConfig.set_config",
        "hydra.core.utils.configure_log",
        "hydra.core.utils._flush_loggers",
    ],
)
def test_a_signal_amid_hydra_s_work_ends_the_program_and_leaves_no_folder(
    typed, tmp_path, monkeypatch, at, named, mode
):
    owner, name = at.rsplit(".", 1)
    place = pkgutil.resolve_name(owner)
    work = getattr(place, name)

    def interrupted(*args, **kwargs):
        monkeypatch.setattr(place, name, work)  # once
        done = work(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGHUP)
        return done

    monkeypatch.setattr(place, name, interrupted)
    words = ["-m", "seed=1,2"] if mode == "sweep" else ["plan=true"]
    code, error = typed("train", *QUICK, "trainer.max_steps=1", *named, *words)
    is_over = mode == "run" and at.endswith("_flush_loggers")  # the program has done its work
    assert code == (0 if is_over else 128 + signal.SIGHUP)
    assert ("error: interrupted by SIGHUP" in error) != is_over
    if mode == "run":
        assert not list(tmp_path.iterdir())


def test_a_signal_that_a_library_fails_over_while_a_run_begins_leaves_no_folder(typed, tmp_path, monkeypatch):
    def to_yaml(config):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):  # Python answers between two of its instructions
                pass
        finally:
            raise AttributeError("'NoneType' object has no attribute '_get_full_key'")

    monkeypatch.setattr(OmegaConf, "to_yaml", to_yaml)
    code, error = typed("train", *QUICK, "trainer.max_steps=1")
    assert (code, error.strip()) == (128 + signal.SIGTERM, "error: interrupted by SIGTERM")
    assert not list(tmp_path.iterdir())


class Loaded(Dataset):
    """Raises what the main process does when the other end of its pipe is gone."""

    def __init__(self, error):
        self.error = error

    def __getitem__(self, index):
        raise self.error

    def __len__(self):
        return 1


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError()])
def test_a_loader_that_dies_amid_a_batch_is_told_from_other_losses(error):
    said = "a process that loads data died"
    with pytest.raises(InfrastructureError, match=said), user_facing(TrainConfig, debug=False):
        next(iter(DataLoader(Loaded(error))))
    with pytest.raises((UserFacingError, EOFError)) as other, user_facing(TrainConfig, debug=False):
        raise error.with_traceback(None)
    assert said not in str(other.value)
