"""Where a training step's draws come from: dropout, and with the book's also the order of the windows."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor

from gpt_pretrain.errors import ArtifactError

EVALUATED_EVERY = 5  # steps, from the first one on: chapter 5's eval_freq


class StepDraws:
    """Dropout from a seed of its own for each (seed, micro-step, rank), whatever ran before."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @contextmanager
    def forward(self, micro_step: int, rank: int) -> Iterator[None]:
        """Around the forward pass of a micro-step of training."""
        torch.manual_seed(_draw_seed(self.seed, micro_step, rank))
        yield

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is kept: every seed is computed."""


class BookDraws:
    """The draws of the book's training loop, all from one generator: chapter 5, section 5.2.

    It goes on from `state`, where the initial weights have left it. An epoch's shuffle draws from it, then
    each forward pass its dropout, and after steps 0, 5, 10, ... an evaluation the seeds of its two loaders.
    The generator is kept apart and put in place for a forward pass only, and the evaluation's seeds are drawn
    at the book's steps whenever this run evaluates: nothing around it changes a digit. The state is stored.
    """

    def __init__(self, state: Tensor, *, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.evaluation_seed = _shuffling_loader(_generator(state))
        generator = _generator(state)
        self.epoch_seed = _shuffling_loader(generator)
        self.state = generator.get_state()

    @contextmanager
    def forward(self, micro_step: int, rank: int) -> Iterator[None]:
        """Around the forward pass of a step of training; there is one micro-step a step, and one rank."""
        torch.set_rng_state(self.state)
        yield
        state = torch.get_rng_state()
        generator = _generator(state)
        self.evaluation_seed = _shuffling_loader(generator)
        _loader(generator)  # of the validation split
        if micro_step % EVALUATED_EVERY:
            generator.set_state(state)
        if (micro_step + 1) % self.steps_per_epoch == 0:
            self.epoch_seed = _shuffling_loader(generator)
        self.state = generator.get_state()

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": bytes(self.state.tolist()).hex(),
            "epoch_seed": self.epoch_seed,
            "evaluation_seed": self.evaluation_seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ArtifactError for what is no state of a generator."""
        try:
            data = bytearray.fromhex(state_dict["generator"])
            self.state = _generator(torch.frombuffer(data, dtype=torch.uint8)).get_state()
            self.epoch_seed, self.evaluation_seed = (
                int(state_dict[key]) for key in ("epoch_seed", "evaluation_seed")
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"the checkpoint lacks the state of trainer.draws=book: {error}") from error


Draws = StepDraws | BookDraws


def shuffled(n: int, seed: int) -> Tensor:
    """The order (n,) in which torch's shuffling sampler goes through `n` samples."""
    return torch.randperm(n, generator=Generator().manual_seed(seed))


def _shuffling_loader(generator: Generator) -> int:
    """What a shuffling DataLoader draws when it is iterated; returns its sampler's seed."""
    _loader(generator)
    return _seed(generator)


def _loader(generator: Generator) -> None:
    """What every DataLoader draws when it is iterated: a seed for worker processes, without any too."""
    _seed(generator)


def _seed(generator: Generator) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


def _generator(state: Tensor) -> Generator:
    generator = Generator()
    generator.set_state(state)
    return generator


def _draw_seed(seed: int, micro_step: int, rank: int) -> int:
    """One seed of 63 bits for each (seed, micro-step, rank)."""
    digest = hashlib.blake2b(f"draws/{seed}/{micro_step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
