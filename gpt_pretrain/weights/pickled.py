"""A `.pth` or `.pt` file: torch's zip of a pickle and raw tensors.

The pickle is listed before it is run, and whatever it asks for besides plain containers and tensors is
refused by name; only then does `torch.load(weights_only=True)` see it. Tensors are mapped, not read, so an
optimizer's state that lies in the same file costs nothing.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt_pretrain.errors import ArtifactError
from gpt_pretrain.weights.stored import Stored

MAX_PICKLE = 64 << 20  # bytes: the pickle holds names and shapes; GPT-2 XL with its optimizer needs a million

_KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
STORAGES = {f"{kind}Storage" for kind in _KINDS}
ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {storage}" for storage in STORAGES),
}


def read_pickle(file: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    """The model's tensors, and what nanoGPT says of its shape (`model_args`), if anything.

    Raises ArtifactError for a pickle that asks for anything but tensors and plain values.
    """
    try:
        _check_archive(file)
        if file.suffix == ".safetensors":  # torch would go by the name; an open file has none
            with file.open("rb") as stream:
                content = torch.load(stream, map_location="cpu", weights_only=True)
        else:
            content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except ArtifactError:
        raise
    except Exception as error:  # torch raises whatever its parser meets first
        raise ArtifactError(
            f"{file} is no file of tensors that torch can load safely: {_first_line(error)}"
        ) from error
    state, model_args = _unwrap(file, content)
    tensors = {name: _stored(file, name, tensor) for name, tensor in state.items()}
    return tensors, model_args


def _check_archive(file: Path) -> None:
    """No compressed or overlapping records, and no name in the pickle beyond `ALLOWED`."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        if len(set(names)) != len(names):
            raise ArtifactError(f"{file} is damaged: a record comes twice")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ArtifactError(f"{file} is not as torch writes it: its records are compressed")
        # Stored as they are, records that do not overlap fit into the file.
        if sum(record.file_size for record in records) > file.stat().st_size:
            raise ArtifactError(f"{file} is damaged: its records overlap")
        if (damaged := archive.testzip()) is not None:  # one pass over the file: torch compares no checksum
            raise ArtifactError(f"{file} is damaged: {damaged} is not what its checksum says")
        pickles = [record for record in records if record.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE:
            raise ArtifactError(f"{file} is not as torch writes it: no data.pkl, or one too large")
        for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
            # GLOBAL, which torch writes, has its name beside it. The others take theirs from elsewhere,
            # where a list does not show it.
            if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4") or (
                opcode.name == "GLOBAL" and argument not in ALLOWED
            ):
                wanted = f"asks for {argument}" if argument else f"uses {opcode.name}"
                raise ArtifactError(f"{file} is refused: its pickle {wanted}, which tensors do not need")


def _unwrap(file: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parameters: all of the file (the book), or beside an optimizer (the book, nanoGPT)."""
    if not isinstance(content, dict):
        raise ArtifactError(f"{file} holds a {type(content).__name__}, not a model's parameters by name")
    model_args = content.get("model_args", {})
    for key in ("model", "model_state_dict", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    if not content or not all(
        isinstance(k, str) and isinstance(value, Tensor) for k, value in content.items()
    ):
        raise ArtifactError(f"{file} holds no model's parameters by name")
    # What torch.compile puts before the names, and nanoGPT saves.
    state = {name.removeprefix("_orig_mod."): value for name, value in content.items()}
    if len(state) != len(content):
        raise ArtifactError(f"{file} has a parameter both with and without the prefix _orig_mod.")
    return state, model_args if isinstance(model_args, dict) else {}


def _stored(file: Path, name: str, tensor: Tensor) -> Stored:
    # A stride of 0 would make terabytes of a few bytes.
    n_bytes = tensor.numel() * tensor.itemsize
    if tensor.layout != torch.strided or n_bytes > tensor.untyped_storage().nbytes():
        raise ArtifactError(f"{file} is damaged: {name} is larger than the bytes it has")
    return Stored(tensor.dtype, tuple(tensor.shape), lambda: tensor.detach())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
