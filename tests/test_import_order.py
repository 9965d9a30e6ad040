"""The package is a strict order: a room imports only rooms above it, a file in a room only files above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gpt_pretrain"

# Room by room, from what everybody may know to what nobody does; in a room its files in their own order.
ORDER = """
errors
foreign
terminal: text silence curve watching streams logs
launch: launchers process job last_word watch meeting signals
config: fields comments habits paths words model weights data decoding optimizer schedule sweep trainer
    batch programs border
loss
model
tokenizer: vocab segmentation patterns protocol bpe small tokenizer_json learn build
    folder
weights: download protobuf crc32c stored table fit gpt2_sizes dialects pickled safetensors_file huggingface
    shape bundle read write fetch
decoding: filters penalties key_values products compiled layout scoring picture choose continuation sequences
    beam contrastive loop text
data: notes fingerprints kinds listing files gutenberg python_reference sources reading_bar tokens
    shards workers splits marks token_cache learned token_files windows copies corpus order
runs: state folders owner record model_card checkpoint pretrained
training: schedule shards muon optim plan metrics_csv plots page tensorboard loggers first_sample estimate
    machine float8 ways memory columns provenance preflight opening layers draws datamodule divergence module
    forecast checkpoint_io
    callbacks callbacks.rhythm callbacks.stop callbacks.parts callbacks.metrics callbacks.samples
    callbacks.progress_bar callbacks.verdict callbacks.checkpoints callbacks.profile callbacks.unfinished
    report company strategies ending environment train
generation: prompts next_tokens questions prompt_loop typing run
sweep: refusals space record strategies trial version check search place ahead apart leaderboard probes queue
    pictures findings board workers course sweeper hydra_plugins.gpt_pretrain plugin
cli: schemas completion help sweeps resume flags refusals compose program commands
evaluate
export
playground
prepare
inspect_data
plot
slurm
benchmark: decoding engines ladder training data sweeping ranks shards __main__
__main__
"""


def _order() -> list[str]:
    """Every module, a room's own name (its __init__) after its files."""
    modules: list[str] = []
    for line in ORDER.replace("\n    ", " ").split("\n")[1:-1]:
        room, _, files = line.partition(":")
        modules += [*(f"{room}.{file}" for file in files.split()), room]
    return modules


def _modules() -> dict[str, Path]:
    names = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = file
    del names["__init__"]
    return names


def _imported(tree: ast.Module, modules: set[str]) -> set[str]:
    """Modules that are imported anywhere in it, for types and inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt_pretrain"):
            base = node.module.removeprefix("gpt_pretrain").lstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".lstrip(".")
                names.add(whole if whole in modules else base)
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("gpt_pretrain.") for alias in node.names} & modules
    return names


def misplaced(name: str, source: str, order: list[str]) -> set[str]:
    """What `source`, as the module `name`, imports although it does not stand before it."""
    return {
        imported
        for imported in _imported(ast.parse(source), set(order))
        if order.index(imported) >= order.index(name)
    }


def test_every_module_has_its_place():
    assert sorted(_modules()) == sorted(set(_order()))


@pytest.mark.parametrize("name", _modules())
def test_a_module_imports_only_what_stands_before_it(name):
    assert misplaced(name, _modules()[name].read_text(), _order()) == set()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("data.sources", "from gpt_pretrain.data.corpus import Corpus"),  # in one room
        ("model", "from gpt_pretrain.training.module import GPTModule"),
        ("runs.folders", "def f():\n    from gpt_pretrain.runs import record"),
        ("config.fields", "import gpt_pretrain.config.model"),
    ],
)
def test_an_import_upwards_is_noticed(name, line):
    assert len(misplaced(name, line, _order())) == 1


def test_the_hall_is_not_crowded():
    entries = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert len(entries) <= 24


@pytest.mark.parametrize(
    ("light", "unwanted"),
    [
        ("config", "torch lightning numpy"),
        ("cli.commands", "torch lightning numpy tiktoken matplotlib rich"),
        ("runs.record", "torch lightning numpy"),
        ("tokenizer", "torch lightning"),
        ("data.corpus", "torch lightning"),
        ("data.order", "torch lightning"),
        ("generation.run", "lightning"),
        ("runs.pretrained", "lightning"),
        ("decoding.text", "lightning"),
    ],
)
def test_light_modules_import_nothing_heavy(light, unwanted):
    code = f"import sys, gpt_pretrain.{light}; print(*(m for m in '{unwanted}'.split() if m in sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""
