"""Milliseconds of a step's parts, by a clock on which each part takes its time."""

from types import SimpleNamespace

import pytest

from gpt_pretrain.training.callbacks.parts import KEPT, Parts

SECONDS = {"data": 1.0, "forward": 2.0, "backward": 3.0, "optimizer": 500.0}  # the last once a step


@pytest.mark.parametrize("accumulate", [1, KEPT - 1, KEPT + 1, 4 * KEPT])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_part_of_a_step_is_counted_whatever_the_accumulation(monkeypatch, accumulate, steps):
    clock = [0.0]
    monkeypatch.setattr("gpt_pretrain.training.callbacks.parts.perf_counter", lambda: clock[0])
    parts = Parts(SimpleNamespace(accumulate=accumulate))
    parts.now = lambda: clock[0]
    for batch_idx in range(steps * accumulate):
        clock[0] += SECONDS["data"]
        parts.on_train_batch_start(None, None, None, batch_idx)
        clock[0] += SECONDS["forward"]
        parts.on_before_backward(None, None, None)
        clock[0] += SECONDS["backward"]
        parts.on_after_backward(None, None)
        clock[0] += SECONDS["optimizer"] * ((batch_idx + 1) % accumulate == 0)
        parts.step_ended()
        parts.on_train_batch_end(None, None, None, None, batch_idx)
    assert all(len(spans.newest) <= KEPT for spans in parts.spans.values())  # CUDA events, on a GPU
    took = {f"ms/{part}": 1000 * seconds * accumulate for part, seconds in SECONDS.items()}
    took["ms/optimizer"] = 1000 * SECONDS["optimizer"]
    if steps * accumulate == 1:
        del took["ms/data"]  # nobody saw when the first batch was asked for
    assert parts.report() == pytest.approx(took)
