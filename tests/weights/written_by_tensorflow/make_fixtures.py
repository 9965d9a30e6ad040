"""Writes the checkpoints beside this file with TensorFlow itself; needs tensorflow-cpu, run once:

python tests/weights/written_by_tensorflow/make_fixtures.py

gpt2/   a GPT-2 of two layers under OpenAI's names, as OpenAI stores it, with its hparams.json
blocks/ every type, odd shapes, and enough long names that the index takes two blocks of TensorFlow's 256 KiB
shards/ two data files under one index
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
HPARAMS = {"n_vocab": 61, "n_ctx": 16, "n_embd": 32, "n_head": 2, "n_layer": 2}
TYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8"]
TYPES += ["uint8", "uint16", "uint32", "uint64", "bool"]


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that follow from a tensor's name and place, exact in every type."""
    start = sum(name.encode())
    return ((np.arange(int(np.prod(shape))) * 37 + start) % 101 - 50).reshape(shape) / 64


def gpt2_shapes() -> dict[str, tuple[int, ...]]:
    vocabulary, context, width, _, n_layers = HPARAMS.values()
    shapes = {"model/wte": (vocabulary, width), "model/wpe": (context, width)}
    for norm in ["ln_f", *(f"h{i}/ln_{k}" for i in range(n_layers) for k in (1, 2))]:
        shapes |= {f"model/{norm}/g": (width,), f"model/{norm}/b": (width,)}
    for i in range(n_layers):
        for name, n_in, n_out in (
            ("attn/c_attn", 1, 3),
            ("attn/c_proj", 1, 1),
            ("mlp/c_fc", 1, 4),
            ("mlp/c_proj", 4, 1),
        ):
            shapes[f"model/h{i}/{name}/w"] = (1, n_in * width, n_out * width)
            shapes[f"model/h{i}/{name}/b"] = (n_out * width,)
    return shapes


def typed(name: str, kind: str) -> np.ndarray:
    values = numbers(name, (3, 5))
    return values if kind.startswith(("float", "bfloat")) else np.abs(values * 64)


def blocks() -> dict[str, tuple[str, np.ndarray]]:
    """Name to type and numbers."""
    result = {f"typed/{kind}": (kind, typed(f"typed/{kind}", kind)) for kind in TYPES}
    result["empty"] = ("float32", np.zeros((0, 7)))
    result["scalar"] = ("float32", np.float64(0.25))
    for i in range(320):
        name = f"{i:03d}/" + "long" * 220
        result[name] = ("float32", numbers(name, (2,)))
    return result


def main() -> None:
    import tensorflow as tf

    def save(prefix: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
        prefix.parent.mkdir(exist_ok=True)
        values = [tf.cast(tf.constant(array), kind) for kind, array in tensors.values()]
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=values,
        )

    save(
        HERE / "gpt2" / "model.ckpt",
        {name: ("float32", numbers(name, shape)) for name, shape in gpt2_shapes().items()},
    )
    (HERE / "gpt2" / "hparams.json").write_text(json.dumps(HPARAMS) + "\n")
    save(HERE / "blocks" / "every", blocks())
    parts = []
    for i in range(2):
        name = f"part{i}"
        parts.append(HERE / "shards" / name)
        save(parts[-1], {name: ("float32", numbers(name, (4, 3)))})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(part) for part in parts],
        destination_prefix=str(HERE / "shards" / "merged"),
        delete_old_dirs=False,
    )


if __name__ == "__main__":
    main()
