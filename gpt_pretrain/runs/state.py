"""What trainer_state.json may hold: values of the kinds that a run writes, so that nobody who reads one need
ask again. What is not there is for its reader to miss; what callbacks of the user's keep is theirs.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.foreign import is_count, is_number

LARGEST_LOSS = 3.5e38  # as float32 has it
LATEST = 2**31  # steps, of what a roll-back passed over: their windows are counted in 64 bits


def check_state(state: Mapping[str, Any], file: Path) -> None:
    """Raise ArtifactError that names the first value of `file` that no run has written."""
    wrong = next(_wrong(state, _HOLDS, ()), None)
    if wrong is not None:
        path, value = wrong
        shown = f"a {type(value).__name__}" if isinstance(value, dict | list) else f"{value!r:.40}"
        raise ArtifactError(
            f"{file} is no state of a run: {'.'.join(path)} is {shown}; go on from an earlier checkpoint, "
            "or begin a new run from its weights"
        )


def _wrong(value: Any, holds: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if callable(holds):
        if not holds(value):
            yield path, value
    elif not isinstance(value, dict):
        yield path, value
    else:
        for key in holds.keys() & value.keys():
            yield from _wrong(value[key], holds[key], (*path, key))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(of, value))


def _is_mapping(value: Any, to: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(to, value.values()))


def _is_loss(value: Any) -> bool:
    return is_number(value) and abs(value) < LARGEST_LOSS


def _is_time(value: Any) -> bool:
    return _is_loss(value) and value >= 0


def _is_yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _is_figure(value: Any) -> bool:
    """What was measured: also what is beyond all numbers, as it is written, or was by an earlier version."""
    return (
        is_number(value) or isinstance(value, float) or (isinstance(value, dict) and set(value) == {"number"})
    )


def _is_evaluated(value: Any) -> bool:
    return isinstance(value, dict) and is_count(value.get("step")) and _is_loss(value.get("val_loss"))


def _is_span(value: Any) -> bool:
    return _is_list(value, is_count) and len(value) == 2 and value[0] <= value[1] < LATEST


def _is_group(value: Any) -> bool:
    """Of an optimizer's parameters: their numbers and names."""
    numbers, names = (value.get("params"), value.get("param_names")) if isinstance(value, dict) else (0, 0)
    sound = _is_list(numbers, is_count) and _is_list(names, _is_text)
    return sound and len(numbers) == len(names)  # type: ignore[arg-type]


def _are_loops(value: Any) -> bool:
    """Lightning's: their counts are some, and whatever else we know is a mapping, or says yes or no."""
    waiting = [value]
    while waiting:
        loop = waiting.pop()
        if not isinstance(loop, dict):
            return False
        for key, inner in loop.items():
            if isinstance(inner, dict) and key not in _COUNTED:
                waiting.append(inner)
            elif not is_count(inner) and not (isinstance(inner, bool) and key not in _COUNTED):
                return False
    return True


_COUNTED = {"ready", "started", "processed", "completed", "_batches_that_stepped"}


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _or_nothing(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: not value or holds(value)


_HOLDS: dict[str, Any] = {
    "epoch": is_count,
    "global_step": is_count,
    "pytorch-lightning_version": lambda value: _is_text(value) and bool(re.match(r"\d+\.\d", value)),
    "loops": _are_loops,
    "lr_schedulers": lambda value: value == [],
    "GPTDataModule": {"first_batch": is_count, "corpus": lambda value: _is_mapping(value, _is_text)},
    "plan": dict.fromkeys(("batch_tokens", "accumulate", "stride", "n_windows", "steps"), is_count),
    "draws": {"generator": _is_text, "epoch_seed": is_count, "evaluation_seed": is_count},
    "divergence": {
        "norms": lambda value: _is_list(value, _is_loss),
        "skipped": lambda value: _is_list(value, is_count),
        "rolled_back": lambda value: _is_list(value, _is_span),
    },
    "train_losses": lambda value: _is_list(value, lambda losses: _is_list(losses, _is_loss)),
    "param_groups": lambda value: _is_list(value, _is_group),
    "without_state": lambda value: _is_list(value, _is_text),
    "callbacks": {
        "Stop": {
            "unfinished": _or_nothing(
                lambda value: _is_mapping(value, _is_yes_or_no) and value.keys() == {"evaluation", "sample"}
            ),
        },
        "Metrics": {
            **dict.fromkeys(("best_val_loss", "first_val_loss"), _or_none(_is_loss)),
            **dict.fromkeys(("newest", "pending"), lambda value: _is_mapping(value, _is_figure)),
            "eval_batches": _or_none(is_count),
            "spent": {"seconds": _is_time, "training_seconds": _is_time, "tokens": is_count},
        },
        "Samples": {"first": _is_text},
        "Checkpoints": {
            "best": _or_nothing(_is_evaluated),
            "next_best": lambda value: _is_list(value, _is_evaluated),
            "eval_batches": _or_none(is_count),
        },
    },
}
