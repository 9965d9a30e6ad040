"""What samples will need, made fit for the tokenizer before the first step: no training depends on it."""

import dataclasses
import logging

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.data.tokens import Tokens
from gpt_pretrain.decoding.text import encode
from gpt_pretrain.errors import InputError
from gpt_pretrain.tokenizer import Tokenizer, decode

log = logging.getLogger(__name__)

OPENING = 8  # tokens of the validation text
SEARCHED = 256  # of its tokens, for some that can be read back


def prompt_for(tokenizer: Tokenizer, prompt: str | None, val: Tokens) -> str:
    """`prompt` where there is one that the tokenizer can read, else how the validation text begins."""
    objection = None if prompt is None else _objection(tokenizer, prompt)
    if prompt is not None and objection is None:
        return prompt
    opening = _opening(tokenizer, val[: min(SEARCHED, len(val))].tolist())
    if prompt is None:
        return opening
    log.warning(
        "trainer.sample_prompt=%r: %s; samples begin with %r, trainer.sample_prompt=<text> changes it",
        *(prompt, objection, opening),
    )
    return opening


def decoding_for(tokenizer: Tokenizer, decoding: DecodingConfig) -> DecodingConfig:
    """Without the biases on texts that the tokenizer cannot write: no sample could hold them."""
    objections = {text: _objection(tokenizer, text) for text in decoding.logit_bias}
    for text, objection in objections.items():
        if objection:
            log.warning("decoding.logit_bias of %r: %s; samples go without it", text, objection)
    kept = {text: bias for text, bias in decoding.logit_bias.items() if not objections[text]}
    return dataclasses.replace(decoding, logit_bias=kept)


def _objection(tokenizer: Tokenizer, text: str) -> str | None:
    """Why `text` cannot be read, in one line."""
    try:
        return None if encode(tokenizer, text) else f"tokenizer={tokenizer.name} finds no token in it"
    except InputError as error:
        return str(error).splitlines()[0]


def _opening(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    """Text of the first tokens that can be read back. A special one's text may be none for a tokenizer."""
    text, n = "", 0
    for id_ in token_ids:
        longer = text + decode(tokenizer, [id_])
        if n < OPENING and id_ != tokenizer.end_of_text_id and _objection(tokenizer, longer) is None:
            text, n = longer, n + 1
    return text
