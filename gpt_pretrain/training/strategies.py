"""How several processes share the work: whole copies that exchange gradients (DDP), or shards (FSDP2).

Both store and read the same checkpoints, so a run may change from one to the other.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from gpt_pretrain.training.company import Company
from gpt_pretrain.training.shards import as_shard


def build_strategy(name: str, company: Company, world_size: int) -> Any:
    """What Lightning takes as a strategy: `ddp` and `fsdp` after the processes have met, `one` for one."""
    if name == "one":
        return "auto"
    return Sharded(company, world_size) if name == "fsdp" else DDP(company)


class Starter(_SubprocessScriptLauncher):
    """Lightning's, less the thread that kills this process where a child has ended: the company names it."""

    def __init__(self, strategy: "InCompany") -> None:
        assert strategy.cluster_environment is not None
        assert isinstance(strategy, DDPStrategy | ModelParallelStrategy)
        super().__init__(strategy.cluster_environment, strategy.num_processes, strategy.num_nodes)
        self.company = strategy.company

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        if not self.company.has_met and not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            self.company.children = dict(enumerate(self.procs, start=1))
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


class InCompany(ParallelStrategy):
    """What both have in common: the processes meet before anything, and one that is lost is named."""

    company: Company

    def _configure_launcher(self) -> None:
        self._launcher = Starter(self)

    def setup_environment(self) -> None:
        self.company.join(self)
        super().setup_environment()


class DDP(InCompany, DDPStrategy):
    """Lightning's, after the processes have met."""

    def __init__(self, company: Company) -> None:
        super().__init__(gradient_as_bucket_view=True)
        self.company = company


class Sharded(InCompany, ModelParallelStrategy):
    """FSDP2: parameters, gradients and optimizer state lie in shards, one a process.

    A checkpoint is the same folder as any other run's. It is put together tensor by tensor, in the memory of
    the first process alone.
    """

    def __init__(self, company: Company, world_size: int) -> None:
        super().__init__(
            data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
        self.company = company

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """No exchange of gradients but in the last micro-step: they add up whole meanwhile."""
        model = self._sharded_model()
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return {name: self._whole(value) for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        whole = {
            number: {key: self._whole(value) for key, value in values.items()}
            for number, values in state["state"].items()
        }
        return {"state": whole, "param_groups": state["param_groups"]}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        with torch.no_grad():
            for name, value in checkpoint["state_dict"].items():
                own[name].copy_(as_shard(value, own[name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        (optimizer,) = self.optimizers
        (stored,) = checkpoint["optimizer_states"]
        places = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        shards = {
            number: {key: as_shard(value, places[number]) for key, value in values.items()}
            for number, values in stored["state"].items()
        }
        optimizer.load_state_dict({"state": shards, "param_groups": stored["param_groups"]})

    def _sharded_model(self) -> FSDPModule:
        assert self.lightning_module is not None
        model = self.lightning_module.model
        assert isinstance(model, FSDPModule)
        return model

    def _whole(self, value: Any) -> Any:
        """The whole tensor in the first process's main memory, nothing of it in the others'."""
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor()  # every process takes part
        return whole.cpu() if self.is_global_zero else torch.empty(0)
