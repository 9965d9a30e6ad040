"""Batches: the same bit for bit whoever loads them, each window once at any number of ranks, and what is left
after a resume.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpt_pretrain.data.order import BLOCK, WindowOrder
from gpt_pretrain.data.windows import Share
from gpt_pretrain.loss import IGNORED
from gpt_pretrain.training.datamodule import GPTDataModule
from gpt_pretrain.training.plan import Budget, Plan

CONTEXT = 8


def plan_for(corpus, *, batch_size, world_size=1, steps=10, n_windows=None, stride=CONTEXT):
    n_windows = n_windows or sum((len(part.train) - 1) // CONTEXT for part in corpus.trained)
    return Plan(
        world_size=world_size,
        n_windows=n_windows,
        stride=stride,
        batch_tokens=0,
        accumulate=1,
        steps=steps,
        steps_per_epoch=1.0,
        budget=Budget("trainer.max_steps", 1),
        eval_every=1,
        sample_every=1,
        checkpoint_every=None,
    )


@pytest.fixture
def corpus(tmp_path, load):
    (tmp_path / "a.txt").write_text("".join(chr(32 + n % 90) for n in range(3000)))
    return load(tmp_path / "a.txt")


def module(corpus, *, rank=0, num_workers=0, batch_size=4, **plan):
    from gpt_pretrain.config import DataConfig

    data = GPTDataModule(
        corpus,
        DataConfig(batch_size=batch_size, num_workers=num_workers),
        plan_for(corpus, batch_size=batch_size, **plan),
        context_length=CONTEXT,
        seed=5,
        eval_batches=None,
        eval_train=True,
    )
    data.trainer = SimpleNamespace(global_rank=rank, global_step=0)
    return data


def windows_of(loaders) -> list[list[int]]:
    """All that counts of the batches of several ranks."""
    return [
        [*inputs, targets[-1]]
        for loader in loaders
        for batch in loaded(loader)
        for inputs, targets in zip(*(part.tolist() for part in batch), strict=True)
        if targets[0] != IGNORED
    ]


def loaded(loader):
    return [(batch["inputs"].clone(), batch["targets"].clone()) for batch in loader]


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("num_workers", [1, 4])
def test_worker_processes_change_no_bit(corpus, num_workers):
    alone, together = module(corpus, steps=40), module(corpus, steps=40, num_workers=num_workers)
    assert equal(loaded(alone.train_dataloader()), loaded(together.train_dataloader()))
    for one, other in zip(alone.val_dataloader(), together.val_dataloader(), strict=True):
        assert equal(loaded(one), loaded(other))


@pytest.mark.parametrize("prefetch_factor", [1, 5])
def test_prefetching_changes_no_bit(corpus, prefetch_factor):
    loader = module(corpus, steps=40).train_dataloader()
    ahead = torch.utils.data.DataLoader(
        loader.dataset, batch_size=None, num_workers=2, prefetch_factor=prefetch_factor
    )
    assert equal(loaded(loader), loaded(ahead))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_all_ranks_together_train_on_every_window_once_an_epoch(corpus, world_size):
    n_windows = sum((len(part.train) - 1) // CONTEXT for part in corpus.trained)
    n_windows -= n_windows % (world_size * 4)  # whole steps
    steps = n_windows // (world_size * 4)
    seen = []
    for rank in range(world_size):
        data = module(corpus, rank=rank, world_size=world_size, steps=steps, n_windows=n_windows)
        for inputs, targets in loaded(data.train_dataloader()):
            seen += torch.cat([inputs, targets[:, -1:]], 1).tolist()
    tokens = corpus.train[:].astype(np.int64)
    expected = [tokens[k * CONTEXT : (k + 1) * CONTEXT + 1].tolist() for k in range(n_windows)]
    assert sorted(seen) == sorted(expected)


def test_a_resumed_run_reads_exactly_the_rest(corpus):
    whole = loaded(module(corpus, steps=90).train_dataloader())
    first = module(corpus, steps=90)
    first.trainer.global_step = 37
    resumed = module(corpus, steps=90)
    resumed.load_state_dict(first.state_dict())
    assert equal(loaded(resumed.train_dataloader()), whole[37:])
    assert first.state_dict()["corpus"] == corpus.fingerprints


def test_a_batch_is_known_without_those_before_it(corpus):
    settings = {"n_windows": 300, "context_length": CONTEXT, "stride": CONTEXT}
    share = Share(rank=1, world_size=2, batch_size=4)
    one, other = (WindowOrder(corpus, share=share, seed=5, **settings) for _ in range(2))
    forwards = [one.starts(k).tolist() for k in range(3 * BLOCK)]
    assert [other.starts(k).tolist() for k in reversed(range(3 * BLOCK))] == forwards[::-1]


@pytest.mark.parametrize("few", [0, 20])
def test_a_later_epoch_cuts_the_text_elsewhere_unless_a_few_windows_are_to_be_learned_by_heart(corpus, few):
    n_windows = (len(corpus.train) - 1) // CONTEXT
    settings = {"n_windows": few or n_windows, "context_length": CONTEXT, "stride": CONTEXT}
    order = WindowOrder(corpus, share=Share(batch_size=1), seed=5, **settings)
    first, second = (
        sorted(int(order.starts(epoch * settings["n_windows"] + k)[0]) for k in range(settings["n_windows"]))
        for epoch in (0, 1)
    )
    assert first == [k * CONTEXT for k in range(settings["n_windows"])]
    assert (first == second) == bool(few)
    assert len(set(second)) == len(first)


def test_a_mixture_s_windows_lie_in_one_source_each_in_the_shares_asked_for(tmp_path, load):
    for name, letter in (("a", "a"), ("b", "b")):
        (tmp_path / f"{name}.txt").write_text(letter * 2003)
    sources = {str(tmp_path / "a.txt"): 3, str(tmp_path / "b.txt"): 1}
    corpus = load(None, source="mixture", sources=sources)
    n_windows = sum((len(part.train) - 1) // CONTEXT for part in corpus.trained)
    data = module(corpus, steps=n_windows // 4, batch_size=4)
    windows = torch.cat([inputs for inputs, _ in loaded(data.train_dataloader())])
    assert all(len(set(window.tolist())) == 1 for window in windows)
    assert (windows[:, 0] == ord("a")).float().mean().item() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("stride", [CONTEXT, 3, 11])
@pytest.mark.parametrize("n_windows", [None, 6])
@pytest.mark.parametrize("sources", [{"a": 1.0}, {"a": 1.0, "b": 3.0}], ids=len)
def test_the_training_split_is_measured_by_the_windows_of_the_first_epoch(
    tmp_path, load, stride, n_windows, sources
):
    for name in sources:
        (tmp_path / f"{name}.txt").write_text("".join(chr(ord(name) + k * k % 20) for k in range(517)))
    weights = {str(tmp_path / f"{name}.txt"): weight for name, weight in sources.items()}
    mixture = {"source": "mixture", "sources": weights} if len(sources) > 1 else {}
    corpus = load(None if mixture else next(iter(weights)), split="tokens", **mixture)
    n_windows = n_windows or sum(-(-(len(part.train) - CONTEXT) // stride) for part in corpus.trained)
    settings = {"stride": stride, "n_windows": n_windows, "batch_size": 1, "steps": n_windows}
    trained = windows_of([module(corpus, **settings).train_dataloader()])
    settings |= {"batch_size": 2, "world_size": 2}
    measured = windows_of(module(corpus, rank=rank, **settings).val_dataloader()[1] for rank in (0, 1))
    assert sorted(measured) == sorted(trained)


def test_a_text_trained_on_whole_is_measured_end_to_end(corpus):
    measured = windows_of([module(corpus).val_dataloader()[1]])
    tokens, n_windows = corpus.train[:].tolist(), (len(corpus.train) - 1) // CONTEXT
    assert measured == [tokens[k * CONTEXT : (k + 1) * CONTEXT + 1] for k in range(n_windows)]
