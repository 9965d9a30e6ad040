"""How long opening a model takes and what memory it needs, beside reading its file once.

    python tests/weights/measure_loading.py <folder> [small|medium|large|xl]

writes a model of random weights into the folder if it does not exist (XL: 6.2 GB; delete it), then measures
in fresh processes, with the file out of the page cache and with it in: reading the file once; opening it for
generation, where parameters are views of the file, and touching every byte of them; opening it for training,
where every parameter is a tensor of its own.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from gpt_pretrain.weights.gpt2_sizes import SIZES

SHAPES = {
    size.option.removeprefix("gpt2_"): (width, size.n_heads, depth) for (width, depth), size in SIZES.items()
}


def main(folder: Path, size: str = "xl") -> None:
    if not folder.is_dir():
        write(folder, size)
    file = folder / "model.safetensors"
    n_bytes = file.stat().st_size
    print(f"{file}: {n_bytes / 1e9:.2f} GB")
    for cached in (False, True):
        for what in ("read", "view", "own"):
            drop_from_cache(file) if not cached else file_into_cache(file)
            answer = subprocess.run(
                [sys.executable, __file__, "--measure", what, str(folder)],
                capture_output=True,
                text=True,
                check=True,
            )
            result = json.loads(answer.stdout)
            print(
                f"{'cached' if cached else 'cold':7}{what:6}{result['seconds']:8.2f} s"
                f"   peak {result['peak'] / n_bytes:5.3f} of the file   {result['note']}"
            )


def write(folder: Path, size: str) -> None:
    import torch

    from gpt_pretrain.config import ModelConfig
    from gpt_pretrain.tokenizer import build_tokenizer
    from gpt_pretrain.weights.shape import parameter_shapes
    from gpt_pretrain.weights.write import write_weights

    width, heads, layers = SHAPES[size]
    config = ModelConfig(vocab_size=50257, context_length=1024, emb_dim=width, n_heads=heads, n_layers=layers)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in parameter_shapes(config).items():
        state[name] = torch.randn(shape, generator=generator)
    write_weights(folder, "huggingface", state, config, build_tokenizer("gpt2"))


def measure(what: str, folder: Path) -> None:
    """Print seconds and the growth of the process's peak memory over what importing took."""
    import torch

    from gpt_pretrain.weights.read import build_model, open_weights

    torch.zeros(1).add(1)
    before, began, note = peak_memory(), time.perf_counter(), ""
    if what == "read":
        buffer = bytearray(16 << 20)
        with (folder / "model.safetensors").open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    else:
        weights = open_weights(folder)
        model = build_model(weights, weights.config, own=what == "own")
        note = f"model there after {time.perf_counter() - began:.2f} s"
        if what == "view":
            for parameter in model.parameters():
                parameter.sum()
    print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak_memory() - before, "note": note}))


def peak_memory() -> int:
    """Bytes, file pages that are mapped included."""
    (line,) = (
        text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


def drop_from_cache(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def file_into_cache(file: Path) -> None:
    with file.open("rb") as stream:
        while stream.read(16 << 20):
            pass


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), *sys.argv[2:])
