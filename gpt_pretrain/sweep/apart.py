"""Each trial in a folder of its own: a second one in it would go on with the model of the first."""

import os

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from gpt_pretrain.errors import InputError, UserFacingError
from gpt_pretrain.sweep.ahead import shown
from gpt_pretrain.sweep.check import Sense
from gpt_pretrain.sweep.refusals import refusing
from gpt_pretrain.sweep.space import Space, Swept
from gpt_pretrain.sweep.trial import APART


def are_by_number(master: DictConfig) -> bool:
    """Whether folders are named by their trials' numbers, as where nothing else is said."""
    sweep = OmegaConf.to_container(master.hydra.sweep, resolve=False)
    assert isinstance(sweep, dict)
    return bool(sweep["subdir"] == "${hydra.job.num}")


def check_apart(sense: Sense, space: Space) -> None:
    """Raise InputError where hydra.sweep.subdir leads out of the sweep's folder, or leaves out a setting that
    is swept: found at two points for each. What else shares a folder shows as its trial begins.
    """
    if are_by_number(sense.master):
        return
    first = {entry.key: _two(entry)[0] for entry in space.swept}
    folder = _folder(sense, space.words(first), 0)
    if folder is not None and (os.path.isabs(folder) or folder.split(os.sep)[0] == ".."):
        raise InputError(f"hydra.sweep.subdir={folder} leads out of the sweep's folder: give a name in it")
    for entry in space.swept:
        second = first | {entry.key: _two(entry)[-1]}
        if second != first and folder is not None and folder == _folder(sense, space.words(second), 1):
            raise InputError(
                f"the trials {shown(first)} and {shown(second)} would share the folder {folder}\n{APART}"
            )


def _two(entry: Swept) -> tuple[str, ...]:
    """Two of its values, or the only one."""
    return entry.values[:2] if entry.values is not None else (entry.text(entry.low), entry.text(entry.high))


def _folder(sense: Sense, words: list[str], number: int) -> str | None:
    """Where Hydra puts a trial, from the sweep's folder; None where its settings cannot be composed."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        with refusing():
            settings = sense.loader.load_sweep_config(sense.master, words)
            with open_dict(settings):
                settings.hydra.job.num, settings.hydra.job.id = number, str(number)
            hydra.set_config(settings)  # for ${hydra:job.num}
            return os.path.normpath(str(settings.hydra.sweep.subdir))
    except UserFacingError:
        return None
    finally:
        hydra.cfg = before
