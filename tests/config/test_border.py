"""Settings: every option composes, what does not fit is refused with the key, the value and the remedy."""

import dataclasses
import re
import shutil

import pytest

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.cli.schemas import config_dir
from gpt_pretrain.config import MEMBERS, GenerateConfig, TrainConfig, known_keys, resolve_model, sections
from gpt_pretrain.errors import InputError

OPTIONS = [
    f"{file.parent.name}={file.stem}"
    for file in sorted(config_dir().glob("*/*.yaml"))
    if file.parent.parent == config_dir()
]
PATHS = {
    "data=text_files": ["data.path=x.txt"],
    "data=gutenberg": ["data.path=x"],
    "data=hugging_face": ["data.path=x"],
    "data=token_files": ["data.path=x.bin"],
    "data=mixture": ["data.sources={x.txt:1}"],
    "tokenizer=tiktoken": ["tokenizer.path=x"],
    "tokenizer=huggingface": ["tokenizer.path=x"],
    "weights=checkpoint": ["weights.path=x"],
}
SCRIPTS_DEPEND_ON = """
    model weights weights.path data data.path data.batch_size data.stride tokenizer
    data.pattern data.text_field data.split data.val_fraction data.val_path data.sources data.cache_dir
    data.num_workers data.prepare_workers
    optimizer optimizer.lr optimizer.weight_decay schedule schedule.warmup_steps
    trainer.max_steps trainer.max_epochs trainer.max_tokens trainer.accelerator trainer.devices
    trainer.precision trainer.eval_every trainer.checkpoint_every seed resume
    checkpoint prompt num_samples decoding decoding.max_new_tokens decoding.temperature
    decoding.top_k decoding.top_p decoding.seed
"""


def groups_of(name: str) -> str:
    return (config_dir() / f"{name}.yaml").read_text()


@pytest.mark.parametrize("option", [o for o in OPTIONS if f"- {o.split('=')[0]}:" in groups_of("train")])
def test_every_option_composes_into_a_training_run(option, monkeypatch):
    monkeypatch.setattr("gpt_pretrain.config.trainer.find_spec", lambda name: name)  # extras, as if installed
    config = compose("train", TrainConfig, [option, *PATHS.get(option, [])])
    group, _, name = option.partition("=")
    section = getattr(config, group, None)
    if hasattr(section, "name"):
        assert section.name == name


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("decoding=")])
def test_every_decoding_option_composes_into_generation(option):
    compose("generate", GenerateConfig, [option])


def test_the_names_that_scripts_depend_on_exist():
    known = known_keys(TrainConfig) + known_keys(GenerateConfig)
    assert [key for key in SCRIPTS_DEPEND_ON.split() if key not in known] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.n_layr=2", "model.n_layr: no such setting or group, did you mean model.n_layers?"),
        ("+model.n_layr=2", "model.n_layr: no such setting, did you mean model.n_layers?"),
        ("modle=tiny", "modle: no such setting or group, did you mean model?"),
        ("model=gpt2_smal", "model=gpt2_smal: no such option, did you mean gpt2_small?"),
        ("schedule.decay_share=0.5", "schedule.decay_share belongs to schedule=wsd"),
        ("optimizer.name=sgd", "optimizer.name=sgd cannot be set by itself: choose optimizer=sgd"),
        ("model.n_layers=abc", "model.n_layers: Value 'abc' of type 'str' could not be converted to Integer"),
        ("~optimizer.lr", "optimizer.lr"),
        ("~optimizer", "optimizer has no value"),
        ("~seed", "seed"),
        ("optimizer.lr=-1", "optimizer.lr=-1.0 is out of range: it must be above 0"),
        ("optimizer.lr=nan", "optimizer.lr=nan is out of range"),
        ("optimizer.lr=inf", "optimizer.lr=inf is out of range"),
        ("data.batch_size=1" + 400 * "0", "its size must be less than 2^63"),
        ("decoding.temperature=-1", "decoding.temperature=-1.0 is out of range: it must be at least 0"),
        ("decoding.top_k=0", "decoding.top_k=0 is out of range: it must be at least 1"),
        ("trainer.precision=bf16", "trainer.precision=bf16 is none of"),
        ("schedule.min_lr=1", "schedule.min_lr=1 exceeds the peak optimizer.lr=0.01"),
        ("data=text_files", "data.path is not set"),
        ("weights=checkpoint", "weights.path is not set"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(override, message):
    with pytest.raises(InputError) as refused:
        compose("train", TrainConfig, [override])
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3


def test_a_later_override_beats_an_option_and_an_experiment():
    config = compose("train", TrainConfig, ["experiment=chapter5", "optimizer.lr=1e-5", "model.n_layers=1"])
    assert (config.optimizer.lr, config.model.n_layers, config.model.emb_dim) == (1e-5, 1, 768)
    assert config.optimizer.decay == "all"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.emb_dim=100", "model.n_heads=3"], "model.emb_dim=100 is not divisible by model.n_heads=3"),
        (["model.vocab_size=256"], "model.vocab_size=256 cannot hold the tokenizer's 50257 ids"),
        (["model=from_weights"], "model.context_length is not set"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(overrides, message):
    settings = compose("train", TrainConfig, overrides).model
    with pytest.raises(InputError, match=re.escape(message)):
        resolve_model(settings, read=None, tokenizer_vocab_size=50257)


def test_no_settings_file_names_code_to_run():
    for file in config_dir().rglob("*.yaml"):
        assert "_target_" not in file.read_text(), file


def test_a_settings_class_and_a_builder_are_all_that_a_new_optimizer_takes(monkeypatch):
    """Without a file in conf/: the class is the option, its docstring the help."""
    from dataclasses import dataclass

    from torch import nn
    from torch.optim import Adagrad

    from gpt_pretrain.cli.schemas import options
    from gpt_pretrain.config import OptimizerConfig
    from gpt_pretrain.config.fields import one_of
    from gpt_pretrain.training import optim

    @dataclass(kw_only=True, slots=True)
    class AdagradConfig(OptimizerConfig):
        """A rate of its own for each weight."""

        name: str = one_of("adagrad")
        lr_decay: float = 0.0

    monkeypatch.setitem(MEMBERS[OptimizerConfig], "adagrad", AdagradConfig)
    optim._build.register(AdagradConfig, lambda config, named: Adagrad(named, lr=config.lr))
    config = compose("train", TrainConfig, ["optimizer=adagrad", "optimizer.lr_decay=0.5"])
    assert (config.optimizer.name, config.optimizer.lr_decay) == ("adagrad", 0.5)
    assert isinstance(optim.build_optimizer(nn.Linear(1, 1), config.optimizer), Adagrad)
    assert options("optimizer", TrainConfig)["adagrad"] == "A rate of its own for each weight."


@pytest.mark.parametrize("base", MEMBERS)
def test_every_member_is_a_class_as_its_module_has_it(base):
    import gpt_pretrain.config as config

    for name, cls in MEMBERS[base].items():
        assert getattr(config, cls.__name__) is cls
        assert cls().name == name


def test_a_new_size_and_a_new_corpus_are_a_file_each(tmp_path, monkeypatch):
    conf = tmp_path / "conf"
    shutil.copytree(config_dir(), conf)
    shape = (conf / "model" / "mini.yaml").read_text().replace("emb_dim: 128", "emb_dim: 32")
    (conf / "model" / "mine.yaml").write_text(shape)
    (conf / "data" / "mine.yaml").write_text("source: text_files\npath: mine.txt\n")
    monkeypatch.setattr("gpt_pretrain.cli.compose.config_dir", lambda: conf)
    config = compose("train", TrainConfig, ["model=mine", "data=mine"])
    assert (config.model.emb_dim, config.data.source, config.data.path) == (32, "text_files", "mine.txt")


def test_without_arguments_mini_learns_from_the_python_reference():
    config = compose("train", TrainConfig, [])
    mini = compose("train", TrainConfig, ["model=mini"]).model
    assert config.model == mini
    assert (config.data.source, config.tokenizer.name, config.weights.name) == (
        *("python_reference", "trained", "scratch"),
    )
    assert (config.optimizer.name, config.schedule.name) == ("muon", "cosine")


@pytest.mark.parametrize("root", [TrainConfig, GenerateConfig, *dict(sections(TrainConfig)).values()])
def test_a_settings_class_takes_names_only_and_no_other_names(root):
    assert all(field.kw_only for field in dataclasses.fields(root))
    assert "__slots__" in vars(root)
