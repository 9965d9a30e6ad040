"""What is recorded of a run before its first step."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from lightning.pytorch.loggers import Logger

from gpt_pretrain.config import TrainConfig, to_plain
from gpt_pretrain.foreign import json_text
from gpt_pretrain.terminal.watching import watching
from gpt_pretrain.training.columns import Words, columns, flat
from gpt_pretrain.training.loggers import CSV, TensorBoard
from gpt_pretrain.training.machine import Machine
from gpt_pretrain.training.provenance import ENVIRONMENT, provenance


def open_records(
    config: TrainConfig, machine: Machine, run: Path, words: Words, loggers: Iterable[Logger]
) -> None:
    """Write environment.json, and settings and environment to each logger. `words` are the command line's."""
    here: dict[str, object] = {}
    with watching(ENVIRONMENT):
        here = provenance(config, machine, words)
        (run / ENVIRONMENT).write_text(json_text(here, indent=2) + "\n", encoding="utf-8")
    texts = {
        "2 settings": _shown(to_plain(config)),
        "3 environment": _shown(here),
    }
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.begin(columns(config, words), texts)
        elif not isinstance(logger, CSV):
            logger.log_hyperparams({**flat(to_plain(config)), **{f"env/{key}": here[key] for key in here}})


def _shown(values: Mapping[str, object]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
