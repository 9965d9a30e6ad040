"""Settings without a command line: for notebooks and tests."""

from typing import TypeVar

import hydra

from gpt_pretrain.cli.refusals import user_facing
from gpt_pretrain.cli.schemas import as_groups, config_dir, register_schemas
from gpt_pretrain.config import to_config
from gpt_pretrain.config.paths import path_keys
from gpt_pretrain.config.words import with_paths_quoted

C = TypeVar("C")


def compose(config_name: str, root: type[C], overrides: list[str]) -> C:
    """Settings as the program would see them on a command line of `overrides`: for notebooks and tests.

    Raises InputError where the program would refuse them.
    """
    register_schemas(config_name, root)
    with (
        user_facing(root, debug=False),
        hydra.initialize_config_dir(str(config_dir()), version_base="1.3"),
    ):
        words = with_paths_quoted(as_groups(config_name, overrides), path_keys(root))
        return to_config(hydra.compose(config_name, words), root)
