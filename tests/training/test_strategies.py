"""Copies (DDP) and shards (FSDP2) on two processes: the losses of one process, and the same checkpoints."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import QUICK

pytestmark = pytest.mark.slow

SETTINGS = [
    *(*QUICK, "trainer.precision=32-true", "trainer.eval_batches=3", "trainer.eval_every=10"),
    *("trainer.log_every=1", "schedule=constant"),
]
ONE = ["trainer.devices=1", "data.batch_size=4"]
TWO = ["trainer.devices=2", "data.batch_size=2"]  # the same batch, and as many validation windows


def rows(run: Path) -> dict[int, dict[str, str]]:
    with (run / "metrics.csv").open() as stream:
        return {int(row["step"]): row for row in csv.DictReader(stream)}


def assert_same(one: Path, other: Path):
    ours, theirs = rows(one), rows(other)
    assert set(ours) == set(theirs)
    for step, row in ours.items():
        for key in ("train/loss", "val/loss"):
            assert bool(row[key]) == bool(theirs[step][key])
            if row[key]:
                assert float(row[key]) == pytest.approx(float(theirs[step][key]), abs=1e-5), (step, key)


@pytest.fixture
def train(program, tmp_path):
    def run(name: str, *more: str) -> Path:
        done = program("train.py", *SETTINGS, *more, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        return tmp_path / name

    return run


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_have_the_losses_of_one_as_copies_and_as_shards(train, optimizer):
    more = [f"optimizer={optimizer}", "trainer.max_steps=50"]
    alone = train("alone", *more, *ONE)
    for strategy in ("ddp", "fsdp"):
        assert_same(alone, train(strategy, *more, *TWO, f"trainer.strategy={strategy}"))


def test_shards_have_the_norms_by_layer_of_a_whole_model(train):
    more = ["trainer.max_steps=3", "logger.layers=true", "trainer.exchange_timeout=20"]
    whole, shards = (
        rows(train(strategy, *more, *machine, f"trainer.strategy={strategy}"))
        for strategy, machine in (("ddp", ONE), ("fsdp", TWO))
    )
    layers = [key for key in whole[3] if key.startswith(("grad_norm/", "weight_norm/", "update_ratio/"))]
    assert {key.split("/")[1] for key in layers} >= {"tok_emb", "pos_emb", "block 00", "final_norm"}
    for step in (1, 2, 3):
        for key in layers:
            assert float(shards[step][key]) == pytest.approx(float(whole[step][key]), rel=1e-3), (step, key)


def test_shards_add_up_gradients_over_micro_steps_and_recompute(train):
    more = ["trainer.max_steps=6", "trainer.global_batch_tokens=1024", "trainer.eval_every=3"]
    alone = train("alone", *more, *ONE)
    recomputed = "trainer.activation_checkpointing=true"
    assert_same(alone, train("shards", *more, *TWO, "trainer.strategy=fsdp", recomputed))


def test_several_processes_roll_back_together_as_one_does(train):
    more = ["trainer.max_steps=30", "trainer.checkpoint_every=3", "trainer.on_divergence=rollback"]
    more += ["trainer.spike=1.15", "trainer.divergence_budget=20"]  # such leaps there are in any run
    alone = train("alone", *more, *ONE)
    for strategy in ("ddp", "fsdp"):
        run = train(strategy, *more, *TWO, f"trainer.strategy={strategy}")
        assert rolled_back(run) == rolled_back(alone) != []
        assert_same(alone, run)


def test_every_process_knows_the_best_and_saves_where_the_others_do(train):
    """With losses that rise and fall: who takes a worse one for the best waits for ever."""
    more = ["trainer.max_steps=12", "trainer.eval_every=1", "trainer.checkpoint_every=100"]
    more += ["optimizer=sgd", "optimizer.lr=0.3", "trainer.exchange_timeout=30"]
    run = train("copies", *more, *TWO, "trainer.strategy=ddp")
    losses = {step: float(row["val/loss"]) for step, row in rows(run).items() if step}
    in_order = list(losses.values())
    assert in_order != sorted(in_order, reverse=True)  # else nothing was shown
    best = min(losses, key=losses.__getitem__)
    assert (run / "checkpoints" / f"step-{best:08}").is_dir()


def rolled_back(run: Path) -> list[list[int]]:
    state = json.loads((run / "checkpoints" / "step-00000030" / "trainer_state.json").read_text())
    return state["divergence"]["rolled_back"]


def test_a_run_goes_from_one_process_to_copies_to_shards_and_back(train, program, tmp_path):
    alone = train("alone", *ONE, "trainer.max_steps=40")
    train("chain", *ONE, "trainer.max_steps=10")
    for steps, settings in (
        (20, [*TWO, "trainer.strategy=ddp"]),
        (25, [*TWO, "trainer.strategy=fsdp"]),
        (30, [*TWO, "trainer.strategy=ddp"]),
        (40, ONE),
    ):
        done = program("train.py", "resume=chain", *settings, f"trainer.max_steps={steps}")
        assert done.returncode == 0, done.stderr
    chain, whole = rows(tmp_path / "chain"), rows(alone)
    for step in range(1, 41):
        assert float(chain[step]["train/loss"]) == pytest.approx(
            float(whole[step]["train/loss"]), abs=1e-5
        ), step
