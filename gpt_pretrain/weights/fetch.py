"""OpenAI's GPT-2 in the cache that all runs share, downloaded where it is not there yet."""

import sys
from pathlib import Path

from gpt_pretrain.config import ModelSettings, WeightsConfig
from gpt_pretrain.errors import ArtifactError, InfrastructureError, InputError
from gpt_pretrain.terminal.text import show
from gpt_pretrain.weights.download import Expected, download
from gpt_pretrain.weights.gpt2_sizes import SIZES, Size

# The largest file last: what is missing of the small ones shows at once.
FILES = {
    "huggingface": ("config.json", "model.safetensors"),
    "openai": ("hparams.json", "model.ckpt.index", "model.ckpt.data-00000-of-00001"),
}


def fetch_gpt2(config: WeightsConfig, model: ModelSettings, cache: Path) -> Path:
    """The folder of the weights for a model of this width and depth, downloaded if need be.

    Raises InputError for a shape that OpenAI did not train or, offline, for missing files;
    InfrastructureError where no address serves them; ArtifactError where one serves something else.
    """
    size = _size(model)
    sources = [config.source] if config.source != "auto" else list(FILES)
    folders = {source: cache / source / size.folder for source in sources}
    for source, folder in folders.items():
        # A download gets its name once it is whole, so what has it need not be read.
        if all((folder / name).is_file() for name in FILES[source]):
            return folder
    if config.offline:
        raise InputError(
            f"weights.offline=true, and {size.folder} is not in the cache:\n" + _placing(size, folders)
        )
    refusals = []
    for source, folder in folders.items():
        show(f"weights {size.folder} from {source} into {folder}", file=sys.stderr)
        try:
            for name in FILES[source]:
                download(_urls(config, source, size, name), folder / name, _expected(config, size, name))
            return folder
        except InfrastructureError as error:
            refusals.append(str(error))
    raise InfrastructureError("; ".join(refusals) + f"\n{_placing(size, folders)}")


def _size(model: ModelSettings) -> Size:
    if (size := SIZES.get((model.emb_dim or 0, model.n_layers or 0))) is None:
        options = ", ".join(f"model={size.option}" for size in SIZES.values())
        raise InputError(
            f"weights=gpt2: OpenAI trained no GPT-2 with model.emb_dim={model.emb_dim} and "
            f"model.n_layers={model.n_layers}\nchoose one of {options}"
        )
    return size


def _urls(config: WeightsConfig, source: str, size: Size, name: str) -> list[str]:
    if source == "huggingface":
        return [
            f"{base.rstrip('/')}/{size.repository}/resolve/main/{name}" for base in config.huggingface_urls
        ]
    return [f"{base.rstrip('/')}/{size.folder}/{name}" for base in config.openai_urls]


def _expected(config: WeightsConfig, size: Size, name: str) -> Expected:
    known = size.known.get(name, Expected())
    is_large = name in ("model.safetensors", "model.ckpt.data-00000-of-00001")
    if is_large and config.sha256:
        if known.sha256 and known.sha256 != config.sha256:
            raise ArtifactError(f"weights.sha256={config.sha256}: {name} of {size.folder} has {known.sha256}")
        return Expected(known.size, config.sha256)
    return known


def _placing(size: Size, folders: dict[str, Path]) -> str:
    """Which files to place where, by hand."""
    source, folder = next(iter(folders.items()))
    files = " and ".join(FILES[source])
    return f"place {files} of {size.repository} in {folder}\nor give weights.path=<their folder>"
