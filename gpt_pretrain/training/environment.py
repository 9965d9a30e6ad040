"""What Lightning is told of this run's processes: what launch/ found out, and nothing of its own guesses."""

from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment

from gpt_pretrain.launch.launchers import Process
from gpt_pretrain.launch.process import is_launched, process


def build_environment() -> ClusterEnvironment:
    """Said outright: left to itself, Lightning takes the shell of a SLURM allocation for a task of srun."""
    return Launched(process()) if is_launched() else LightningEnvironment()


class Launched(ClusterEnvironment):
    """Processes that another program started. Lightning's own class for SLURM requeues untold."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.process.address

    @property
    def main_port(self) -> int:
        return self.process.port

    @staticmethod
    def detect() -> bool:
        return False  # never guessed

    def world_size(self) -> int:
        return self.process.world_size

    def set_world_size(self, size: int) -> None:
        assert size == self.process.world_size

    def global_rank(self) -> int:
        return self.process.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.process.rank

    def local_rank(self) -> int:
        return self.process.local_rank

    def node_rank(self) -> int:
        return self.process.rank // self.process.local_world_size
