"""The same random model in every format, written by its own program or by hand, never by our writer."""

import functools
import json

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt_pretrain.runs.checkpoint import TrainingState, write_checkpoint
from gpt_pretrain.tokenizer import build_tokenizer
from gpt_pretrain.weights.bundle import write_bundle
from gpt_pretrain.weights.huggingface import from_huggingface_config
from tests.weights.book_model import BookModel

# Every size's depth and heads; two numbers a head are enough to tell heads apart. (width, heads, layers)
SIZES = {"small": (24, 12, 12), "medium": (32, 16, 24), "large": (40, 20, 36), "xl": (50, 25, 48)}
VOCABULARY, CONTEXT = 257, 16


@functools.cache
def reference(size="small", tied=True, vocabulary=VOCABULARY, context=CONTEXT):
    """transformers' model with every parameter random, in evaluation mode."""
    width, heads, layers = SIZES[size] if isinstance(size, str) else size
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_head=heads,
        n_layer=layers,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def logits(model, vocabulary=VOCABULARY, context=CONTEXT):
    ids = torch.randint(0, vocabulary, (2, context), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result = model(ids)
    return getattr(result, "logits", result)


def huggingface(model, folder):
    model.save_pretrained(folder)


def huggingface_sharded(model, folder):
    model.save_pretrained(folder, max_shard_size="20KB")


def huggingface_without_prefix(model, folder):
    """As on the hub: GPT2Model's names and the stored masks."""
    model.config.save_pretrained(folder)
    state = dict(model.transformer.state_dict())
    for i in range(model.config.n_layer):
        state[f"h.{i}.attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT).tril()
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def huggingface_explicit_head(model, folder):
    model.config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def huggingface_bin(model, folder):
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def openai(model, folder):
    tensors = {}
    for name, tensor in model.transformer.state_dict().items():
        stem, kind = name.rsplit(".", 1)
        stem = "model/" + stem.replace("h.", "h", 1).replace(".", "/")
        if stem.endswith(("wte", "wpe")):
            tensors[stem] = tensor
        elif "ln_" in stem:
            tensors[f"{stem}/{'g' if kind == 'weight' else 'b'}"] = tensor
        else:
            tensors[f"{stem}/{'w' if kind == 'weight' else 'b'}"] = (
                tensor[None] if kind == "weight" else tensor
            )
    write_bundle(folder / "model.ckpt", tensors)
    c = model.config
    shape = {"n_vocab": c.vocab_size, "n_ctx": c.n_positions, "n_embd": c.n_embd, "n_head": c.n_head}
    (folder / "hparams.json").write_text(json.dumps(shape | {"n_layer": c.n_layer}))


def book_model(model, fused=False, qkv_bias=True):
    """The book's own model with these weights, assigned as its chapter 5 does."""
    c = model.config
    book = BookModel(c.vocab_size, c.n_positions, c.n_embd, c.n_head, c.n_layer, qkv_bias, fused).eval()
    theirs = model.transformer

    def assign(ours, tensor):
        assert ours.shape == tensor.shape
        ours.data.copy_(tensor.detach())

    assign(book.tok_emb.weight, theirs.wte.weight)
    assign(book.pos_emb.weight, theirs.wpe.weight)
    assign(book.out_head.weight, model.lm_head.weight)
    assign(book.final_norm.scale, theirs.ln_f.weight)
    assign(book.final_norm.shift, theirs.ln_f.bias)
    for ours, block in zip(book.trf_blocks, theirs.h, strict=True):
        weights, biases = block.attn.c_attn.weight.split(c.n_embd, 1), block.attn.c_attn.bias.split(c.n_embd)
        if fused:
            assign(ours.att.qkv.weight, block.attn.c_attn.weight.T)
            assign(ours.att.qkv.bias, block.attn.c_attn.bias)
        else:
            for layer, weight, bias in zip(
                (ours.att.W_query, ours.att.W_key, ours.att.W_value), weights, biases, strict=True
            ):
                assign(layer.weight, weight.T)
                if qkv_bias:
                    assign(layer.bias, bias)
        for layer, other in (
            (ours.att.proj if fused else ours.att.out_proj, block.attn.c_proj),
            (ours.ff.layers[0], block.mlp.c_fc),
            (ours.ff.layers[2], block.mlp.c_proj),
        ):
            assign(layer.weight, other.weight.T)
            assign(layer.bias, other.bias)
        for norm, other in ((ours.norm1, block.ln_1), (ours.norm2, block.ln_2)):
            assign(norm.scale, other.weight)
            assign(norm.shift, other.bias)
    return book


def book(model, folder):
    torch.save(book_model(model).state_dict(), folder / "gpt2.pth")


def book_with_optimizer(model, folder):
    book = book_model(model)
    optimizer = torch.optim.AdamW(book.parameters())
    state = {"model_state_dict": book.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(state, folder / "model_and_optimizer.pth")


def book_fused(model, folder):
    torch.save(book_model(model, fused=True).state_dict(), folder / "gpt2.pth")


def book_safetensors(model, folder):
    save_file(book_model(model).state_dict(), folder / "gpt2-small-124M.safetensors")


def nanogpt(model, folder, prefix=""):
    """`model`, `model_args` and the rest of a ckpt.pt; matrices are nn.Linear's."""
    c = model.config
    state = {}
    for name, tensor in model.state_dict().items():
        is_matrix = name.endswith(".weight") and ".h." in name and "ln_" not in name
        state[prefix + name] = tensor.T.contiguous() if is_matrix else tensor
    model_args = {
        "n_layer": c.n_layer,
        "n_head": c.n_head,
        "n_embd": c.n_embd,
        "block_size": c.n_positions,
        "bias": True,
        "vocab_size": c.vocab_size,
        "dropout": 0.0,
    }
    checkpoint = {
        "model": state,
        "optimizer": {
            "state": {0: {"step": torch.tensor(1.0)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}],
        },
        "model_args": model_args,
        "iter_num": 5,
        "best_val_loss": torch.tensor(3.0),
        "config": {"dataset": "shakespeare", "compile": True},
    }
    torch.save(checkpoint, folder / "ckpt.pt")


def nanogpt_compiled(model, folder):
    nanogpt(model, folder, prefix="_orig_mod.")


def ours(model, folder):
    """A checkpoint of our own training."""
    from gpt_pretrain.weights.read import open_weights

    huggingface(model, folder / "theirs")
    config = from_huggingface_config((folder / "theirs" / "config.json").read_bytes())
    write_checkpoint(
        folder / "step-00000001",
        parameters=open_weights(folder / "theirs").parameters(),
        model_config=config,
        tokenizer=build_tokenizer("bytes"),
        settings={"tokenizer": {"name": "bytes"}},
        training=TrainingState(optimizer_tensors={"x:step": torch.zeros(1)}, progress={}),
    )
    for file in (folder / "step-00000001").iterdir():
        file.rename(folder / file.name)


FORMATS = [
    huggingface,
    huggingface_sharded,
    huggingface_without_prefix,
    huggingface_explicit_head,
    huggingface_bin,
    openai,
    book,
    book_with_optimizer,
    book_fused,
    book_safetensors,
    nanogpt,
    nanogpt_compiled,
    ours,
]
