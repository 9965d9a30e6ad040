"""Sense before start: what each point comes to, and which ones cannot work, found before anything runs."""

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from gpt_pretrain.config import ModelConfig, TrainConfig, resolve_model, to_config
from gpt_pretrain.config.border import check_config, to_typed
from gpt_pretrain.data.corpus import Corpus, check_windows, epoch_windows, load_corpus
from gpt_pretrain.data.learned import tokenizer_for
from gpt_pretrain.errors import UserFacingError
from gpt_pretrain.sweep.refusals import refusing
from gpt_pretrain.sweep.space import Point, Space
from gpt_pretrain.tokenizer import Tokenizer
from gpt_pretrain.training.plan import Plan, make_plan

if TYPE_CHECKING:
    from gpt_pretrain.weights.read import Weights


@dataclass(kw_only=True, slots=True, frozen=True)
class Outlook:
    """What a point comes to."""

    steps: int
    tokens: int
    flops: float  # of the whole trial, evaluations left out


class Sense:
    """Looks at points as a run's start would, each text, tokenizer and shape once. Builds the token cache."""

    def __init__(self, loader: ConfigLoader, master: DictConfig, here: bool) -> None:
        self.loader, self.master = loader, master
        self.here = here  # whether trials run on this machine, whose devices they then use
        self._known: dict[tuple[str, str], Any] = {}

    def compose(self, words: Iterable[str]) -> DictConfig:
        """The settings of a command line. Raises UserFacingError."""
        with refusing():
            settings = self.loader.load_sweep_config(self.master, list(words))
        with open_dict(settings):
            del settings["hydra"]
        return settings

    def look(self, words: Iterable[str]) -> Outlook:
        """Raises UserFacingError where the settings cannot work."""
        with refusing():
            return self.outlook(to_config(self.compose(words), TrainConfig))

    def outlook(self, config: TrainConfig) -> Outlook:
        """What checked settings come to. Raises UserFacingError."""
        weights = self._weights(config)
        read = None if weights is None else weights.config
        corpus, tokenizer = self._corpus(config, weights)
        model = resolve_model(config.model, read=read, tokenizer_vocab_size=tokenizer.vocab_size)
        data = dataclasses.replace(config.data, batch_size=1)
        n_windows = self._once(
            "windows", (data, model.context_length), lambda: _windows(corpus, config, model.context_length)
        )
        plan = make_plan(config, model, n_windows=n_windows, world_size=self._world_size(config))
        return Outlook(steps=plan.steps, tokens=plan.steps * plan.tokens_per_step, flops=_flops(model, plan))

    def _corpus(self, config: TrainConfig, weights: "Weights | None") -> tuple[Corpus, Tokenizer]:
        def load() -> tuple[Corpus, Tokenizer]:
            if weights is None:
                tokenizer = tokenizer_for(config.data, config.tokenizer)
            else:
                from gpt_pretrain.runs.pretrained import tokenizer_of

                tokenizer = tokenizer_of(weights, config.weights, config.tokenizer, config.data)
            return load_corpus(config.data, tokenizer), tokenizer

        data = dataclasses.replace(config.data, batch_size=1, stride=None, order="seed", num_workers=0)
        return self._once("corpus", (data, config.tokenizer, config.weights), load)

    def _weights(self, config: TrainConfig) -> "Weights | None":
        def read() -> "Weights | None":
            if config.weights.name == "scratch":
                return None
            from gpt_pretrain.runs.pretrained import open_pretrained

            return open_pretrained(config.weights, config.model)

        return self._once("weights", (config.weights, config.model.n_heads), read)

    def _world_size(self, config: TrainConfig) -> int:
        if not self.here:
            return (config.trainer.devices or 1) * (config.trainer.num_nodes or 1)
        from gpt_pretrain.training.machine import find_machine

        trainer = config.trainer
        machine = (trainer.accelerator, trainer.devices, trainer.num_nodes, trainer.precision)
        return int(self._once("machine", machine, lambda: find_machine(trainer).world_size))

    def _once(self, kind: str, key: Any, find: Callable[[], Any]) -> Any:
        """What was found, or refused, for the same settings before."""
        place = kind, repr(key)
        if place not in self._known:
            try:
                with refusing():
                    self._known[place] = find()
            except UserFacingError as error:
                self._known[place] = error
        if isinstance(self._known[place], UserFacingError):
            raise self._known[place]
        return self._known[place]


def _windows(corpus: Corpus, config: TrainConfig, context_length: int) -> int:
    check_windows(corpus, config.data, context_length)
    return epoch_windows(corpus, config.data, context_length)


def _flops(model: ModelConfig, plan: Plan) -> float:
    """Of training: six a parameter in a matrix product and token, and the attention's own."""
    block = 12 * model.emb_dim**2
    head = model.vocab_size * model.emb_dim
    attention = 12 * model.n_layers * model.emb_dim * model.context_length
    return (6.0 * (model.n_layers * block + head) + attention) * plan.steps * plan.tokens_per_step


def look_at_all(sense: Sense, space: Space) -> Iterator[Outlook | UserFacingError]:
    """Each point of a finite space, in the grid's order."""
    assert space.n_points is not None
    points: Iterable[Callable[[], TrainConfig]] | None = _by_value(sense, space)
    if points is None:
        points = (_composed(sense, space, space.point(index)) for index in range(space.n_points))
    for configure in points:
        try:
            with refusing():
                yield sense.outlook(configure())
        except UserFacingError as error:
            yield error


def _composed(sense: Sense, space: Space, point: Point) -> Callable[[], TrainConfig]:
    return lambda: to_config(sense.compose(space.words(point)), TrainConfig)


def _by_value(sense: Sense, space: Space) -> Iterator[Callable[[], TrainConfig]] | None:
    """The same without composing each point, which takes a tenth of a second and more: options of groups are
    composed, and each value of a plain setting is typed once and put in its place.

    None where that gains nothing, or where a setting may follow from another by an interpolation.
    """
    groups = [entry for entry in space.swept if sense.loader.get_group_options(entry.key)]
    plain = [entry.key for entry in space.swept if entry not in groups]
    n_choices = math.prod(len(entry.values or ()) for entry in groups)
    if n_choices == space.n_points or not all(map(_PLAIN_KEY.fullmatch, plain)):
        return None
    try:
        first = sense.compose(space.words(space.point(0)))
    except UserFacingError:  # of this point, others may be sound
        return None
    if "${" in OmegaConf.to_yaml(first, resolve=False):
        return None
    return _points_by_value(sense, space, [entry.key for entry in groups])


_PLAIN_KEY = re.compile(r"(\+\+)?\w+(\.\w+)?")


def _points_by_value(sense: Sense, space: Space, groups: list[str]) -> Iterator[Callable[[], TrainConfig]]:
    first = space.point(0)
    parser = OverridesParser.create()

    @cache
    def composed(options: tuple[str, ...]) -> DictConfig:
        """The first point's settings with other options."""
        return sense.compose(space.words({**first, **dict(zip(groups, options, strict=True))}))

    @cache
    def typed(options: tuple[str, ...], key: str | None, text: str) -> TrainConfig | UserFacingError:
        """The same with another value."""
        try:
            with refusing():
                settings = composed(options)
                if key is not None:
                    settings = copy.deepcopy(settings)
                    OmegaConf.update(
                        settings, key.lstrip("+"), parser.parse_override(f"{key}={text}").value()
                    )
                return to_typed(settings, TrainConfig)
        except UserFacingError as error:
            return error

    def configure(point: Point) -> TrainConfig:
        options = tuple(point[group] for group in groups)
        whole = typed(options, None, "")
        parts = {key: typed(options, key, text) for key, text in point.items() if key not in groups}
        if any(isinstance(part, UserFacingError) for part in (whole, *parts.values())):
            return _composed(sense, space, point)()  # says it in the words of a run of its own
        assert isinstance(whole, TrainConfig)
        config = _copy(whole)
        for key, part in parts.items():
            section, _, name = key.lstrip("+").rpartition(".")
            owner = getattr(config, section) if section else config
            setattr(owner, name, getattr(getattr(part, section) if section else part, name))
        check_config(config)
        return config

    for index in range(space.n_points or 0):
        yield partial(configure, space.point(index))


def _copy(config: TrainConfig) -> TrainConfig:
    """With sections of its own; what is in them is shared."""
    sections = {entry.name: getattr(config, entry.name) for entry in dataclasses.fields(config)}
    return dataclasses.replace(config, **{name: copy.copy(value) for name, value in sections.items()})
