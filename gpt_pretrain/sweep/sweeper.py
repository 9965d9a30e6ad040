"""The sweeper that `-m` starts: Hydra's own, in a folder that no other sweep has."""

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from gpt_pretrain.config.words import typed
from gpt_pretrain.errors import InputError
from gpt_pretrain.runs.folders import is_run
from gpt_pretrain.runs.owner import owned

NAMESPACE = "hydra_plugins.gpt_pretrain"  # Hydra takes plugins of the first of these names only
RECORD = "multirun.yaml"  # as Hydra names it


class Sweeper(BasicSweeper):
    """Refuses a folder that holds a sweep before anything in it is changed."""

    __module__ = NAMESPACE

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        folder = Path(self.config.hydra.sweep.dir)
        if (folder / RECORD).exists() or is_run(folder):
            raise InputError(
                f"{folder} holds a sweep or a run already: give another hydra.sweep.dir, "
                f"or go on with one run, {typed('resume', str(folder / '0'))}"
            )
        with owned(folder, "hydra.sweep.dir"):
            try:
                return super().sweep(arguments)
            finally:
                if not any(is_run(trial) for trial in folder.iterdir()):  # every one was refused
                    (folder / RECORD).unlink(missing_ok=True)
