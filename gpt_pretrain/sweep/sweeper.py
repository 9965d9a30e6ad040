"""The sweeper that `-m` starts, as Hydra wants it."""

from typing import Any

from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from gpt_pretrain.launch.signals import hearing

NAMESPACE = "hydra_plugins.gpt_pretrain"  # Hydra takes plugins of the first of these names only


class Sweeper(HydraSweeper):
    """Every program knows it; what it does is imported when it does it."""

    __module__ = NAMESPACE

    def __init__(self, max_batch_size: int | None = None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from gpt_pretrain.sweep.course import Course

        assert self.config is not None
        assert self.hydra_context is not None
        course = Course(self.hydra_context, self.task_function, self.config, self.max_batch_size)
        with hearing():
            course.run(self.params, arguments)
