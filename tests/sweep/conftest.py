"""What tests of sweeps share: sense without a command line."""

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from gpt_pretrain.cli.refusals import user_facing
from gpt_pretrain.cli.schemas import config_dir, register_schemas
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.sweep.check import Sense
from gpt_pretrain.sweep.refusals import refuse_with


@pytest.fixture
def sense():
    register_schemas("train", TrainConfig)
    refuse_with(lambda: user_facing(TrainConfig, debug=False))
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield Sense(loader, loader.load_configuration("train", [], RunMode.MULTIRUN), here=True)
