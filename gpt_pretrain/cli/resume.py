"""Going on with a run: what it remembers of itself goes below what the user typed.

A run's memory is data: the settings that its newest sound checkpoint carries, read as plain values and typed
by the program's own classes. No word of a run's folder reaches the command line; `.hydra/` is never read.
"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from gpt_pretrain.cli.sweeps import asks_for_sweep, check_asked_for, sweep_arguments, without_resume
from gpt_pretrain.config import TrainConfig, sections, to_plain
from gpt_pretrain.config.border import as_typed
from gpt_pretrain.config.paths import expanded, here
from gpt_pretrain.config.words import value_of, word
from gpt_pretrain.errors import InputError
from gpt_pretrain.foreign import check_folder
from gpt_pretrain.launch.job import job_folder, restarted
from gpt_pretrain.launch.process import rank
from gpt_pretrain.runs.folders import find_checkpoints, find_runs, has_saved, is_run, newest_valid, restore
from gpt_pretrain.runs.owner import owned
from gpt_pretrain.runs.record import OF_THIS_MACHINE, read_record
from gpt_pretrain.sweep.record import is_sweep
from gpt_pretrain.terminal.text import show

RECORDED = "recorded"  # the option of each group that a resumed run takes where the user chooses none


def resume_arguments(arguments: list[str], conf: Path) -> list[str]:
    """Command-line arguments with `resume=` spelled out: the run's recorded settings become options of their
    groups, taken where the user has chosen none.

    `resume=auto` means the folder given as hydra.run.dir, else the newest run with a checkpoint below
    outputs/; where there is none, the run starts anew. With -m, or the folder of a sweep, it means a sweep.
    Raises InputError for a folder that is no run.
    A batch job's run has a folder of the job's own, and goes on unasked.
    """
    check_asked_for(arguments)
    wanted = value_of("resume", arguments)
    if wanted is None and not asks_for_sweep(arguments):
        arguments, wanted = _of_job(arguments)
    if not wanted:
        return arguments
    if asks_for_sweep(arguments) or (wanted != "auto" and is_sweep(Path(expanded("resume", wanted)))):
        return sweep_arguments(wanted, arguments)
    rest = without_resume(arguments)
    run = (
        _newest_run(value_of("hydra.run.dir", arguments))
        if wanted == "auto"
        else Path(expanded("resume", wanted))
    )
    if run is None:
        return rest
    checkpoint = _checkpoint_of(run)
    if checkpoint is None:
        show(
            f"{run} was ended before its first checkpoint: it begins anew, with the settings given here",
            file=sys.stderr,
        )
        return [*rest, word("hydra.run.dir", str(run))]
    record = read_record(checkpoint)
    for key in _register(record, conf):
        if value_of(key, rest) is None and not rank():
            show(f"{key} is not taken from {run}'s record: type it again to use it", file=sys.stderr)
    chosen = {argument.lstrip("+~").partition("=")[0] for argument in rest}
    options = [f"{group}={RECORDED}" for group, _ in sections(TrainConfig) if group not in chosen]
    run = checkpoint.parent.parent
    return [*options, *rest, word("resume", here(str(checkpoint))), word("hydra.run.dir", str(run))]


def _of_job(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments with the folder of this batch job, and what to resume where the job has run before."""
    named, job = value_of("hydra.run.dir", arguments), job_folder(os.environ, arguments)
    if named:
        folder = named if restarted() else None
    else:
        folder = f"outputs/{job}" if job else None
        arguments = [*arguments, word("hydra.run.dir", folder)] if folder else arguments
    return arguments, folder if folder and find_checkpoints(Path(folder)) else None


def _checkpoint_of(run: Path) -> Path | None:
    """The checkpoint to go on from; None where the run was ended before its first."""
    if rank() and run.parent.name == "checkpoints":  # as the first rank hands it on to the others
        check_folder(run)
        return run
    if "${" in str(run):
        raise InputError(
            f"resume={run}: Hydra takes ${{ in a folder's name for a variable: rename the folder"
        )
    if not is_run(run):
        raise InputError(f"resume={run} is no run: give the folder that holds checkpoints/")
    with owned(run, "resume") if not rank() else nullcontext():
        if not rank():
            restore(run)
        checkpoint, passed_over = newest_valid(run)
    for line in passed_over if not rank() else []:
        show(f"passed over: {line}", file=sys.stderr)
    return checkpoint


def _register(record: TrainConfig, conf: Path) -> list[str]:
    """Give Hydra the record as typed data: an option a group, and the root's own values. Returns the keys
    that are not taken from it.
    """
    plain, left_out = to_plain(record), []
    for section, names in OF_THIS_MACHINE.items():
        defaults = to_plain(type(getattr(record, section))())
        own = conf / section / f"{plain[section].get('source', section)}.yaml"
        ours = OmegaConf.to_container(OmegaConf.load(own)) if own.is_file() else {}
        assert isinstance(ours, dict)
        for name in names:
            here_and_now = ours.get(name, defaults[name])
            if plain[section][name] != here_and_now:
                left_out.append(f"{section}.{name}")
            plain[section][name] = here_and_now
    store = ConfigStore.instance()
    for section, _ in sections(TrainConfig):
        typed = as_typed(plain[section], type(getattr(record, section)))
        store.store(RECORDED, typed, group=section)
    # Beneath the option of a device or a logger, which names only what it changes.
    root = as_typed(
        {"seed": record.seed, "trainer": plain["trainer"], "logger": plain["logger"]}, TrainConfig
    )
    store.store("train", root, group="schema", package="_global_")
    return left_out


def _newest_run(named: str | None) -> Path | None:
    if named:
        return Path(named) if is_run(Path(named)) else None
    return next((run for run in find_runs(Path("outputs")) if has_saved(run)), None)
