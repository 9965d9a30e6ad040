"""Where a sweep goes: the folder that was named, else the same search's unfinished one, else a new one."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gpt_pretrain.config.words import typed, words_of
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import check_folder
from gpt_pretrain.runs.folders import is_run
from gpt_pretrain.sweep.record import SWEEPS, TRIALS, SweepRecord, newest_sweeps
from gpt_pretrain.sweep.search import Search, check_same, differences
from gpt_pretrain.sweep.strategies import n_trials
from gpt_pretrain.terminal.text import show


def find_folder(config: DictConfig, search: Search) -> SweepRecord:
    """The record of the sweep that is begun or gone on with, its trials read; nothing is written.

    Raises InputError for a folder that holds another search, or none of ours.
    """
    folder = Path(config.hydra.sweep.dir)
    if not _is_named(config) and (found := _unfinished(search)) is not None:
        folder = found
        show(
            f"sweep   goes on with {folder}, which has not ended; for a new one give another hydra.sweep.dir"
        )
    record = SweepRecord(folder)
    if record.exists() or (record.folder / TRIALS).exists():
        check_folder(record.folder)
    if record.exists():
        check_same(record, search.described, folder)
        record.refresh()
    elif is_run(folder) or (folder / "multirun.yaml").exists():
        what = "a run" if is_run(folder) else "a sweep without a record"
        raise InputError(
            f"{folder} holds {what} already: give another hydra.sweep.dir"
            + (f", or go on with the run, {typed('resume', str(folder))}" if is_run(folder) else "")
        )
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(folder)
    return record


def _is_named(config: DictConfig) -> bool:
    """Whether somebody chose the folder: on the command line, or in settings of their own."""
    sweep: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    is_typed = any(
        word.lstrip("+").startswith("hydra.sweep.dir=") for word in words_of(config.hydra, "hydra")
    )
    return is_typed or not sweep["dir"].startswith(f"{SWEEPS}/${{now:")


def _unfinished(search: Search) -> Path | None:
    for folder in newest_sweeps():
        record = SweepRecord(folder)
        try:
            if differences(search.described, record.search()):
                continue
            check_folder(folder)
            record.refresh()
            if record.has_ended(n_trials(search.space, search.config)):
                continue
        except ArtifactError:  # it is named where it is asked for
            continue
        return folder
    return None
