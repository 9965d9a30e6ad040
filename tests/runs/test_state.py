"""A state that no run has written is refused in a line, wherever it is wrong; any other goes on."""

import copy
import functools
import json
import math
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.runs.folders import find_checkpoint, fingerprint, read_state
from gpt_pretrain.runs.state import check_state
from tests.training.test_train import run, run_to

pytestmark = pytest.mark.trains
WRONG = [math.inf, 10**400, "", [], {"a": 1}, None, -1, [[1]], 1e300]
AGAIN = ["trainer.max_steps=3", "trainer.eval_every=2", "logger=csv"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(folder, "trainer.max_steps=2", "trainer.eval_every=1", "logger=csv", "trainer.log_every=3")
    return folder


def renew(folder, change, name="trainer_state.json"):
    """A run's newest checkpoint with other content in a file, and a manifest that fits."""
    checkpoint = folder / "checkpoints" / "step-00000002"
    change(checkpoint / name)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest[name] = fingerprint(checkpoint / name)
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    return checkpoint


def places(value, path=()):
    """Of everything in a state, but the state itself."""
    yield from [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def put(state, path, value):
    *way, last = path
    for key in way:
        state = state[key]
    state[last] = value


def accepted(state, value, folder):
    """The places of a state that may have this value, each outside the others."""
    found = []
    for path in places(state):
        if not any(path[: len(outer)] == outer for outer in found):
            other = copy.deepcopy(state)
            put(other, path, value)
            with suppress(ArtifactError):
                check_state(other, folder)
                found.append(path)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("value", WRONG, ids=lambda value: f"{value!r:.10}")
def test_a_value_that_is_none_is_refused_or_does_no_harm(trained, tmp_path, value):
    state = read_state(trained / "checkpoints" / "step-00000002")
    harmless = accepted(state, value, tmp_path)
    assert len(harmless) < len(list(places(state))) / 3
    for part in {path[0] for path in harmless}:
        folder, other = run_to(2, trained, tmp_path / str(part)), copy.deepcopy(state)
        for path in harmless:
            if path[0] == part:
                put(other, path, value)
        renew(folder, lambda file, other=other: file.write_text(json.dumps(other)))
        find_checkpoint(folder)
        with suppress(ArtifactError, InputError):
            run(folder, *AGAIN, f"resume='{folder}'")


BATCHES = ("loops", "fit_loop", "epoch_loop.batch_progress")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("callbacks", "Checkpoints", "best", "step"), math.inf),
        (("callbacks", "Checkpoints", "best", "step"), 10**400),
        (("callbacks", "Checkpoints", "next_best"), [[1]]),
        (("callbacks", "Metrics", "spent", "training_seconds"), ""),
        (("callbacks", "Metrics", "newest"), 1e300),
        (("callbacks", "Metrics", "best_val_loss"), math.nan),
        (("callbacks", "Stop", "unfinished"), {"sample": True}),
        (("global_step",), math.inf),
        (("global_step",), True),
        (("GPTDataModule", "corpus"), 0),
        (("GPTDataModule", "first_batch"), {"a": 1}),
        (("GPTDataModule", "first_batch"), 1),
        (("divergence", "rolled_back"), [[0, 2**62]]),
        (("train_losses",), [[10**30]]),
        ((*BATCHES, "current", "ready"), {"a": 1}),
        ((*BATCHES, "total", "ready"), []),
        (("loops", "fit_loop", "epoch_progress", "total", "processed"), "x"),
        (("callbacks", "Own"), {"tensor": [1], "dtype": "quint8"}),
        (("callbacks", "Own"), {"tensor": [1], "dtype": "float32", "shape": [2]}),
        (("callbacks", "Own"), {"as pairs": [[[], 1]]}),
        (("callbacks", "Own"), functools.reduce(lambda inner, _: [inner], range(900), [])),
    ],
    ids=lambda value: f"{value!r:.30}" if not isinstance(value, tuple) else value[-1],
)
def test_a_state_that_no_run_has_written_is_refused_and_nothing_else_is_touched(
    trained, tmp_path, path, value
):
    folder = run_to(2, trained, tmp_path / "run")

    def change(file):
        state = json.loads(file.read_text())
        put(state, path, value)
        file.write_text(json.dumps(state))

    checkpoint = renew(folder, change)
    summary = (folder / "summary.json").read_bytes()
    with pytest.raises(ArtifactError) as refused:
        run(folder, *AGAIN, f"resume='{folder}'")
    assert "\n" not in str(refused.value)
    assert (folder / "summary.json").read_bytes() == summary
    assert find_checkpoint(folder) == checkpoint


QKV = "blocks.0.att.qkv.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{QKV}:exp_avg": torch.ones(3)}, "has the shape"),
        ({f"{QKV}:step": torch.ones(5)}, "has the shape"),
        ({f"{QKV}:exp_avg": torch.ones(192, 64, dtype=torch.int64)}, "is torch.int64"),
        ({f"{QKV}:exp_avg": None}, "it has exp_avg_sq, step"),
        (dict.fromkeys(f"{QKV}:{key}" for key in ("exp_avg", "exp_avg_sq", "step")), "it has nothing"),
        ({f"{QKV}:other": torch.ones(192, 64)}, "it has exp_avg, exp_avg_sq, other, step"),
        ({"nobody:step": torch.tensor(1.0)}, "other parameters"),
        ({"nobody": torch.tensor(1.0)}, "has the shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_optimizer_kept_fits_each_parameter_or_is_refused(trained, tmp_path, changes, message):
    folder = run_to(2, trained, tmp_path / "run")

    def change(file):
        tensors = {**load_file(file), **changes}
        save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)

    renew(folder, change, "optimizer.safetensors")
    with pytest.raises(ArtifactError, match=message):
        run(folder, *AGAIN, f"resume='{folder}'")


def test_a_state_of_an_earlier_version_that_says_less_is_gone_on_from(trained, tmp_path):
    folder = run_to(2, trained, tmp_path / "run")

    def change(file):
        state = json.loads(file.read_text())
        for path in (["draws"], ["train_losses"], ["without_state"], ["callbacks", "Stop"]):
            del (state if len(path) == 1 else state[path[0]])[path[-1]]
        del state["callbacks"]["Metrics"]["spent"], state["callbacks"]["Checkpoints"]["next_best"]
        file.write_text(json.dumps(state, indent=2))

    renew(folder, change)
    assert run(folder, *AGAIN, f"resume='{folder}'")["steps"] == 3
