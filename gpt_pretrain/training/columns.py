"""The settings that tell runs apart in a table: swept and typed ones first, then what is not as always."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpt_pretrain.config import TrainConfig, sections, to_plain

# Python and TensorBoard sort these before every setting.
SWEPT, TYPED = "(swept)", "(typed)"
# What every run shows, so that a table of several has no gaps where people look first.
ALWAYS = (
    *("model.n_layers", "model.emb_dim", "model.context_length", "data.source", "data.batch_size"),
    *("tokenizer.name", "optimizer.name", "optimizer.lr", "schedule.name", "seed"),
)


@dataclass(frozen=True, slots=True)
class Words:
    """A command line's words: first those that differ from trial to trial of a sweep."""

    swept: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.swept + self.others)


NO_WORDS = Words()  # of a run that no command line began


def columns(config: TrainConfig, words: Words) -> dict[str, Any]:
    """Settings by dotted key, as plain values without None. `words` are those of the command line.

    A group's option (`model=tiny`) shows what in its section differs from the class's defaults, an experiment
    and a resumed run so in every section.
    """
    keys = {word.lstrip("+~").partition("=")[0].partition("@")[0] for word in words}
    wide = config.resume is not None or bool({"experiment", "debugging"} & keys)
    shown = set(ALWAYS) | keys
    for section, _ in sections(TrainConfig):
        if wide or section in keys:
            own = getattr(config, section)
            usual = to_plain(type(own)())
            shown |= {
                f"{section}.{key}" for key, value in to_plain(own).items() if value != usual.get(key, value)
            }
    settings = flat(to_plain(config))
    values = {TYPED: " ".join(words), **settings}
    for key, _, text in (word.partition("=") for word in words.swept):
        values[f"{SWEPT} {key}"] = settings.get(key, text)
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in values.items()
        if value is not None and (key.startswith((SWEPT, TYPED)) or key in shown)
    }


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
