"""What a run remembers of itself: the settings that its checkpoints carry, read as plain data."""

from pathlib import Path
from typing import Any

from gpt_pretrain.config import TrainConfig, to_config, to_plain
from gpt_pretrain.config.words import typed
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.foreign import read_yaml

SETTINGS = "settings.yaml"

# Where this machine writes and what it fetches is said here and now, never by what may come from elsewhere.
OF_THIS_MACHINE = {"data": ("cache_dir", "url", "sha256"), "logger": ("mlflow_uri",)}


def read_record(checkpoint: Path) -> TrainConfig:
    """The settings that a checkpoint was trained with. Raises ArtifactError.

    Settings that are newer than the checkpoint have their defaults.
    """
    file = checkpoint / SETTINGS
    try:
        return to_config(read_yaml(file), TrainConfig)
    except InputError as error:
        raise ArtifactError(
            f"{file} does not hold the settings of a run: {error}\nbegin a new one from its weights: "
            f"weights=checkpoint {typed('weights.path', str(checkpoint))}"
        ) from error


def differences(now: TrainConfig, then: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that a run goes on with other values of: key to (now, then)."""
    flat, before = flatten(to_plain(now)), flatten(to_plain(then))
    leave_out = {f"{section}.{name}" for section, names in OF_THIS_MACHINE.items() for name in names}
    leave_out |= {"resume", "debug"}
    keys = [key for key in [*flat, *(key for key in before if key not in flat)] if key not in leave_out]
    keys = [key for key in keys if not key.startswith("sweep.")]  # of which a run takes nothing
    return {key: (flat.get(key), before.get(key)) for key in keys if flat.get(key) != before.get(key)}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        # These two are one setting each, whose keys are the user's.
        nested = isinstance(value, dict) and f"{prefix}{key}" not in ("data.sources", "decoding.logit_bias")
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat
