"""The generation loop. It knows token ids only; `generate_text` at the end is its use with a tokenizer."""

import codecs
from collections.abc import Iterator

import torch
from torch import Tensor

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.cache import KVCache
from gpt_pretrain.decoding.filters import choose
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import Tokenizer


@torch.inference_mode()
def generate(
    model: GPTModel, token_ids: Tensor, config: DecodingConfig, *, end_of_text_id: int | None = None
) -> Iterator[Tensor]:
    """Yield the next token (B,) of every row, at most `max_new_tokens` times, until all rows have ended.

    A row that has ended repeats `end_of_text_id`. Row i draws with seed `config.seed` + i, so its tokens do
    not depend on its neighbours. The model sees the last `context_length` tokens, as in the book.
    """
    batch_size, context_length = token_ids.shape[0], model.config.context_length
    generators = [torch.Generator().manual_seed(config.seed + row) for row in range(batch_size)]
    ended = torch.zeros(batch_size, dtype=torch.bool, device=token_ids.device)
    cache = KVCache(model, batch_size)
    window = token_ids[:, -context_length:]
    unseen = window
    for _ in range(config.max_new_tokens):
        if cache.length + unseen.shape[1] > context_length:  # every position moves: encode the window anew
            cache.length, unseen = 0, window
        features = model.features(unseen, cache)
        cache.advance(unseen.shape[1])
        chosen = choose(model.out_head(features[:, -1]), config, generators)
        if end_of_text_id is not None:
            chosen = torch.where(ended, end_of_text_id, chosen)
            ended |= chosen == end_of_text_id
        yield chosen
        if end_of_text_id is not None and bool(ended.all()):
            return
        unseen = chosen[:, None]
        window = torch.cat([window, unseen], dim=1)[:, -context_length:]


def stream_text(model: GPTModel, tokenizer: Tokenizer, prompt: str, config: DecodingConfig) -> Iterator[str]:
    """Pieces of one continuation of `prompt` as they come, cut between characters."""
    token_ids = torch.from_numpy(tokenizer.encode(prompt).astype("int64"))[None].to(
        model.tok_emb.weight.device
    )
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chosen in generate(model, token_ids, config, end_of_text_id=tokenizer.end_of_text_id):
        if int(chosen) != tokenizer.end_of_text_id and (
            piece := decoder.decode(tokenizer.decode_bytes(chosen.tolist()))
        ):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest


def generate_text(model: GPTModel, tokenizer: Tokenizer, prompt: str, config: DecodingConfig) -> str:
    """One continuation of `prompt`, without the prompt."""
    return "".join(stream_text(model, tokenizer, prompt, config))
