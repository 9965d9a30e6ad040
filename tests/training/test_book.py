"""data.order=book and trainer.draws=book beside the book's loop, written here in plain PyTorch."""

import csv
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import TrainConfig
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.loss import next_token_loss
from gpt_pretrain.model import GPTModel
from gpt_pretrain.training.draws import BookDraws
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import train
from tests.conftest import QUICK

CONTEXT, STEPS = 16, 12  # 13 windows are 6 batches of two, and one that is dropped: two epochs
BOOK = [
    *(*QUICK, "trainer.precision=32-true", "logger=csv", "data=text_files", "tokenizer=bytes"),
    *("data.order=book", "trainer.draws=book", "data.batch_size=2", "model.drop_rate=0.2"),
    *(f"model.context_length={CONTEXT}", "model.emb_dim=16", "model.n_layers=2", "model.n_heads=2"),
    *("optimizer=adamw", "schedule=constant", "optimizer.lr=1e-2", "optimizer.decay=all"),
    "optimizer.beta2=0.999",
    *("trainer.grad_clip=null", "trainer.log_every=1", "trainer.max_epochs=2", "trainer.keep_last=99"),
    *("trainer.eval_every=5", "trainer.eval_first=1", "trainer.eval_train=true", "trainer.eval_batches=5"),
]


@pytest.fixture
def settings(tmp_path):
    text = "".join(chr(97 + (7 * n + n * n // 5) % 26) for n in range(240))  # 216 and 24 tokens
    (tmp_path / "text.txt").write_text(text)
    return [*BOOK, f"data.path={tmp_path / 'text.txt'}"]


def prepared(folder, settings):
    config = compose("train", TrainConfig, settings)
    folder.mkdir(exist_ok=True)
    return config, preflight(config, folder)


def run(folder, settings):
    config, ready = prepared(folder, settings)
    return train(config, ready, folder)


def column(folder, name):
    with (folder / "metrics.csv").open() as stream:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(stream) if row[name]}


def same_state(one, other):
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def books_loop(config, ready):
    """Chapter 5's `train_model_simple`: losses of the steps, and of both splits after steps 0, 5, 10, ..."""

    def windows(tokens):
        ids = torch.from_numpy(tokens[:].astype(np.int64))
        starts = range(0, len(ids) - CONTEXT, CONTEXT)
        return [(ids[n : n + CONTEXT], ids[n + 1 : n + CONTEXT + 1]) for n in starts]

    def mean_loss(loader):
        n_batches, total = min(5, len(loader)), 0.0
        for number, (inputs, targets) in enumerate(loader):
            if number == n_batches:
                break
            total += next_token_loss(model(inputs), targets).item()
        return total / n_batches

    torch.manual_seed(config.seed)
    model = GPTModel(ready.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optimizer.lr, weight_decay=0.1)
    train_loader = DataLoader(windows(ready.corpus.train), batch_size=2, shuffle=True, drop_last=True)
    val_loader = DataLoader(windows(ready.corpus.val), batch_size=2, shuffle=False)
    losses, evaluations = [], []
    for _ in range(2):
        model.train()
        for inputs, targets in train_loader:
            optimizer.zero_grad()
            loss = next_token_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            if len(losses) % 5 == 0:
                model.eval()
                with torch.no_grad():
                    evaluations.append((mean_loss(train_loader), mean_loss(val_loader)))
                model.train()
            losses.append(loss.item())
    return losses, evaluations


@pytest.mark.parametrize("sample_every", [1, 99])
def test_the_program_gives_the_numbers_of_the_books_loop(tmp_path, settings, sample_every):
    folder = tmp_path / "run"
    run(folder, [*settings, f"trainer.sample_every={sample_every}"])
    losses, evaluations = books_loop(*prepared(tmp_path / "other", settings))
    assert len(losses) == STEPS
    assert list(column(folder, "train/loss").values()) == pytest.approx(losses, abs=1e-6)
    for place, name in enumerate(("train/eval_loss", "val/loss")):
        measured = column(folder, name)
        assert list(measured) == [0, 1, 6, 11, 12]  # before the first step and after the last one, too
        expected = [evaluation[place] for evaluation in evaluations]
        assert [measured[step] for step in (1, 6, 11)] == pytest.approx(expected, abs=1e-6)


def test_evaluating_sampling_and_saving_at_other_times_changes_no_digit(tmp_path, settings):
    run(tmp_path / "book", settings)
    other = ["trainer.eval_every=2", "trainer.eval_first=null", "trainer.eval_train=false"]
    other += ["trainer.sample_every=1", "trainer.checkpoint_every=1"]
    run(tmp_path / "other", [*settings, *other])
    assert column(tmp_path / "book", "train/loss") == column(tmp_path / "other", "train/loss")
    same_state(*(tmp_path / name / "checkpoints" / f"step-{STEPS:08d}" for name in ("book", "other")))


@pytest.mark.parametrize("killed_after", [1, 4, 6, 9])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, settings, killed_after):
    settings = [*settings, "trainer.checkpoint_every=1"]
    run(tmp_path / "whole", settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "first")
    for step in range(killed_after + 1, STEPS + 1):
        shutil.rmtree(tmp_path / "first" / "checkpoints" / f"step-{step:08d}")
    (tmp_path / "first" / "summary.json").unlink()
    run(tmp_path / "first", [*settings, f"resume='{tmp_path / 'first'}'"])
    for name in ("train/loss", "train/eval_loss", "val/loss"):
        assert column(tmp_path / "whole", name) == column(tmp_path / "first", name)
    same_state(*(tmp_path / name / "checkpoints" / f"step-{STEPS:08d}" for name in ("whole", "first")))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("trainer.draws=step", "trainer.draws=book"),
        ("data.num_workers=1", "data.num_workers=0"),
        ("trainer.devices=2", "2 cpu processes"),
        (f"trainer.global_batch_tokens={4 * CONTEXT}", "a step for each batch"),
        ("data.batch_size=14", "data.batch_size=13 or less"),
    ],
)
def test_what_cannot_go_with_the_books_order_is_refused(tmp_path, settings, change, named):
    with pytest.raises(InputError, match=named):
        prepared(tmp_path / "run", [*settings, change])


@pytest.mark.parametrize(
    ("began", "goes_on", "key"),
    [
        ([], ["data.order=seed"], r"data\.order is seed"),
        (["data.order=seed"], ["trainer.draws=step"], r"trainer\.draws is step"),
    ],
)
def test_a_run_does_not_go_on_with_another_order_or_other_draws(tmp_path, settings, began, goes_on, key):
    run(tmp_path / "run", [*settings, *began, "trainer.max_steps=1"])
    with pytest.raises(InputError, match=key):
        prepared(tmp_path / "run", [*settings, *began, *goes_on, f"resume='{tmp_path / 'run'}'"])


@pytest.mark.parametrize("damage", [{"generator": "00ff"}, {"generator": 3}, {"epoch_seed": None}])
def test_a_state_that_is_none_is_refused(damage):
    draws = BookDraws(torch.Generator().manual_seed(1).get_state(), steps_per_epoch=3)
    with pytest.raises(ArtifactError, match=r"trainer\.draws=book"):
        draws.load_state_dict(draws.state_dict() | damage)
