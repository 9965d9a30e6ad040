"""The LightningDataModule: hands out whole batches of a corpus by number."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gpt_pretrain.config import DataConfig
from gpt_pretrain.data.corpus import Corpus
from gpt_pretrain.data.order import WindowOrder
from gpt_pretrain.data.tokens import Tokens
from gpt_pretrain.data.windows import Share, batch_in_order, count_windows, read_windows
from gpt_pretrain.launch.signals import leave_to_parent
from gpt_pretrain.training.draws import BookDraws, shuffled
from gpt_pretrain.training.plan import Plan

Batch = dict[str, Tensor]  # inputs and targets, (B, T)


class TrainBatches(Dataset[Batch]):
    """Micro-batch `k` of this rank, for every k of the whole run."""

    def __init__(
        self, corpus: Corpus, config: DataConfig, plan: Plan, *, context_length: int, rank: int, seed: int
    ) -> None:
        self.tokens, self.plan, self.context_length = corpus.train, plan, context_length
        self.order = WindowOrder(
            corpus,
            share=Share(rank=rank, world_size=plan.world_size, batch_size=config.batch_size),
            n_windows=plan.n_windows,
            context_length=context_length,
            stride=plan.stride,
            seed=seed,
        )

    def __len__(self) -> int:
        return self.plan.steps * self.plan.accumulate

    def __getitem__(self, k: int) -> Batch:
        return _to_batch(*read_windows(self.tokens, self.order.starts(k), self.context_length))


class EvaluationBatches(Dataset[Batch]):
    """Batch `k` of this rank of the windows in order, which begin at `starts`; at most `limit` of them."""

    def __init__(
        self,
        tokens: Tokens,
        starts: Callable[[np.ndarray], np.ndarray],
        config: DataConfig,
        plan: Plan,
        *,
        n_windows: int,
        context_length: int,
        rank: int,
        limit: int | None,
    ) -> None:
        self.tokens, self.starts = tokens, starts
        self.n_windows, self.context_length = n_windows, context_length
        self.share = Share(rank=rank, world_size=plan.world_size, batch_size=config.batch_size)
        n_batches = -(-n_windows // (config.batch_size * plan.world_size))
        self.n_batches = min(n_batches, limit or n_batches)

    def __len__(self) -> int:
        return self.n_batches

    def __getitem__(self, k: int) -> Batch:
        sizes = {"n_windows": self.n_windows, "context_length": self.context_length}
        return _to_batch(*batch_in_order(self.tokens, k, self.share, self.starts, **sizes))


class BookBatches(Dataset[Batch]):
    """Batch `k` as the book's shuffling loader gives it, which drops an incomplete last one.

    `seed` tells the newest shuffle's, so a batch is read when it is due, by the process that trains.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: DataConfig,
        plan: Plan,
        *,
        context_length: int,
        seed: Callable[[], int],
        n: int,
    ) -> None:
        self.tokens, self.plan, self.context_length = corpus.train, plan, context_length
        self.batch_size, self.seed, self.n = config.batch_size, seed, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> Batch:
        first = k * self.batch_size % (self.plan.n_windows // self.batch_size * self.batch_size)
        windows = shuffled(self.plan.n_windows, self.seed())[first : first + self.batch_size]  # (B,)
        return _to_batch(*read_windows(self.tokens, windows.numpy() * self.plan.stride, self.context_length))


class From(Sampler[int]):
    """Counts from `first` to `n` - 1, but is as long as the run: Lightning counts batches from its start.

    `past`: batches that the run has left out, where it rolled back.
    """

    def __init__(self, first: int, n: int, past: int = 0) -> None:
        self.first, self.n, self.past = first, n, past

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first + self.past, self.n + self.past))


class GPTDataModule(L.LightningDataModule):
    """Batches of a run as `plan` lays it out. A resumed run goes on after the last one trained on."""

    def __init__(
        self,
        corpus: Corpus,
        config: DataConfig,
        plan: Plan,
        *,
        context_length: int,
        seed: int,
        eval_batches: int | None,
        eval_train: bool,
        book: BookDraws | None = None,  # data.order=book: whose shuffles to follow
        passed_over: Callable[[], int] = lambda: 0,  # steps whose batches the run has left out so far
    ) -> None:
        super().__init__()
        self.corpus, self.config, self.plan = corpus, config, plan
        self.context_length, self.seed, self.book = context_length, seed, book
        self.eval_batches, self.eval_train, self.passed_over = eval_batches, eval_train, passed_over
        self.first_batch = 0

    def train_dataloader(self) -> DataLoader[Batch]:
        batches: TrainBatches | BookBatches
        if self.book is None:
            batches = self._train_batches()
        else:
            batches = self._book_batches(lambda book: book.epoch_seed, self.plan.steps)
        past = self.passed_over() * self.plan.accumulate
        return self._loader(batches, From(self.first_batch, len(batches), past))

    def starts(self, step: int) -> list[int]:
        """The tokens of the training text at which this rank's windows of a step (from 1 on) begin."""
        if self.book is not None:
            return []
        order = self._train_batches().order
        first = (step - 1 + self.passed_over()) * self.plan.accumulate
        return [int(start) for k in range(first, first + self.plan.accumulate) for start in order.starts(k)]

    def _train_batches(self) -> TrainBatches:
        return TrainBatches(
            self.corpus,
            self.config,
            self.plan,
            context_length=self.context_length,
            rank=self._rank,
            seed=self.seed,
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """The validation split; with `eval_train` the windows that an epoch trains on as a second one, in
        order or, with the book's, the first batches of a new shuffle.
        """
        n_windows = count_windows(len(self.corpus.val), self.context_length, self.context_length)
        end_to_end = partial(np.multiply, self.context_length)
        splits: list[Dataset[Batch]] = [self._in_order(self.corpus.val, end_to_end, n_windows)]
        if self.eval_train and self.book is None:
            trained = self._train_batches().order.first_epoch
            splits.append(self._in_order(self.corpus.train, trained, self.plan.n_windows))
        elif self.eval_train:
            n_batches = self.plan.n_windows // self.config.batch_size
            n = min(n_batches, self.eval_batches or n_batches)
            splits.append(self._book_batches(lambda book: book.evaluation_seed, n))
        return [self._loader(split) for split in splits]

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        return {
            "first_batch": self.trainer.global_step * self.plan.accumulate,
            "corpus": self.corpus.fingerprints,  # compared when a run is resumed: see preflight
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first_batch = state_dict["first_batch"]

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def _in_order(
        self, tokens: Tokens, starts: Callable[[np.ndarray], np.ndarray], n_windows: int
    ) -> EvaluationBatches:
        return EvaluationBatches(
            tokens,
            starts,
            self.config,
            self.plan,
            n_windows=n_windows,
            context_length=self.context_length,
            rank=self._rank,
            limit=self.eval_batches,
        )

    def _book_batches(self, seed: Callable[[BookDraws], int], n: int) -> BookBatches:
        book = self.book
        assert book is not None
        return BookBatches(
            self.corpus,
            self.config,
            self.plan,
            context_length=self.context_length,
            seed=lambda: seed(book),
            n=n,
        )

    def _loader(self, batches: Dataset[Batch], sampler: Sampler[int] | None = None) -> DataLoader[Batch]:
        return DataLoader(
            batches,
            batch_size=None,  # the dataset's items are batches already
            sampler=sampler,
            num_workers=self.config.num_workers,
            persistent_workers=self.config.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_to_parent,
        )


def _to_batch(inputs: Any, targets: Any) -> Batch:
    return {"inputs": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}
