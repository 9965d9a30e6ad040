"""Trial 7: losses that are no numbers, and gradients that leap."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from gpt_pretrain.runs.folders import find_checkpoints
from tests.scoreboard.server import SETTINGS, fresh, go_on
from tests.scoreboard.table import Case, Profile
from tests.scoreboard.traces import traces

LONG = [*SETTINGS, "trainer.max_steps=40", "trainer.spike=20", "trainer.global_batch_tokens=null"]


def faults(profile: Profile) -> Iterator[Case]:
    chance = profile.random("numbers")
    for number in range(profile.of(6, 50)):
        policy = ("stop", "skip", "rollback")[number % 3]
        kind = "nan" if number % 2 else "leap"
        step = chance.randrange(25 if kind == "leap" else 2, 40)
        folder = fresh(profile.folder / "numbers")
        settings = [*LONG, f"trainer.on_divergence={policy}"]
        ended = go_on(folder, *settings, change=partial(_inject, step, kind)).wait()
        name = f"{kind} at step {step}, {policy}"
        yield Case(
            name, ended.is_clean and _as_due(folder, ended.code, ended.said, policy, step), ended.said[-500:]
        )
    for seed in range(profile.of(2, 20)):
        folder = fresh(profile.folder / "numbers")
        ended = go_on(folder, *LONG, f"seed={seed}").wait()
        yield Case(f"seed {seed} without a fault", ended.code == 0, f"a false alarm: {ended.said[-300:]}")


def _as_due(folder: Any, code: int, said: str, policy: str, step: int) -> bool:
    if policy == "stop":
        newest = find_checkpoints(folder / "run")
        sound = not newest or int(newest[0].name.removeprefix("step-")) < step
        return code == 4 and f"at step {step} (the batch at token" in said and sound
    log = (folder / "run" / "train.log").read_text()
    left = traces(folder / "run")
    finite = all(bool(tensor.isfinite().all()) for tensor in left["weights"].values())
    return code == 0 and finite and left["step"] == "step-00000040" and f"step {step}: the" in log


def _inject(step: int, kind: str) -> None:
    """Once, as the batch of that step is trained on: whoever passes it over does not meet it again."""
    from gpt_pretrain.training.module import GPTModule

    inner = GPTModule.training_step
    poisoned: list[torch.Tensor] = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = inner(self, batch, batch_idx)
        if batch_idx == step - 1 and (not poisoned or torch.equal(poisoned[0], batch["inputs"])):
            poisoned.append(batch["inputs"].clone())
            loss = loss * (float("nan") if kind == "nan" else 1e4)
            self.train_losses[-1] = self.step_losses[-1] = loss.detach()
        return loss

    GPTModule.training_step = training_step  # type: ignore[method-assign]


def unchecked(profile: Profile) -> Iterator[Case]:
    """Nobody looks at the numbers before the optimizer moves."""
    folder = fresh(profile.folder / "numbers")
    ended = go_on(folder, *LONG, change=_look_away).wait()
    yield Case("nobody looks", _as_due(folder, ended.code, ended.said, "stop", 9), "not stopped at its step")


def _look_away() -> None:
    from gpt_pretrain.training.divergence import Divergence

    Divergence.finding = lambda self, loss_is_finite, norm: None  # type: ignore[method-assign]
    _inject(9, "nan")
