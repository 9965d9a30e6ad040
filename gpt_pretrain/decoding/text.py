"""Generation with a tokenizer: text in, text out.

model, tokenizer = load_model(Path("outputs/.../checkpoints/step-00000500"))  # gpt_pretrain.runs.pretrained
config = DecodingConfig(top_k=25, temperature=0.8)
print(generate_text(model, tokenizer, "Every effort moves you", config))
"""

import codecs
import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.continuation import Continuation, Rule, Stop
from gpt_pretrain.decoding.loop import continue_tokens, steps
from gpt_pretrain.decoding.penalties import sequence_bias
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import Tokenizer


def generate_text(model: GPTModel, tokenizer: Tokenizer, prompt: str, config: DecodingConfig) -> str:
    """The (best) continuation of `prompt`, without the prompt."""
    return written(tokenizer, generate_texts(model, tokenizer, [prompt], config)[0][0], config)


def generate_texts(
    model: GPTModel, tokenizer: Tokenizer, prompts: Sequence[str], config: DecodingConfig
) -> list[list[Continuation]]:
    """Of each prompt `num_return_sequences` continuations; `written` makes text of one."""
    return continue_tokens(
        model,
        [encode(tokenizer, prompt) for prompt in prompts],
        config,
        end_of_text_id=tokenizer.end_of_text_id,
        stop=stop_rule(tokenizer, config),
        rules=text_rules(tokenizer, config),
    )


def stream_text(model: GPTModel, tokenizer: Tokenizer, prompt: str, config: DecodingConfig) -> Iterator[str]:
    """Pieces of one continuation of `prompt` as they come, cut between characters and before a stop text.

    A beam search comes in one piece: what it will return is open until its end.
    """
    if config.num_beams > 1 or config.penalty_alpha:
        yield generate_text(model, tokenizer, prompt, config)
        return
    pieces = TextPieces(config.stop)
    for (row,) in steps(
        model,
        [encode(tokenizer, prompt)],
        config,
        end_of_text_id=tokenizer.end_of_text_id,
        stop=stop_rule(tokenizer, config),
        rules=text_rules(tokenizer, config),
    ):
        # Else the newest token is no text, or came before.
        if row.finish_reason not in ("end_of_text", "ruled_out"):
            yield from pieces.add(tokenizer.decode_bytes(row.token_ids[-1:]))
    yield from pieces.end()


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids; what a terminal gave that is no text (lone surrogates) becomes the replacement character."""
    with contextlib.suppress(UnicodeEncodeError):  # of surrogates that stand for no byte: from JSON, say
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return tokenizer.encode(text).tolist()


def written(tokenizer: Tokenizer, row: Continuation, config: DecodingConfig) -> str:
    """The new text of a continuation: without an end-of-text token, and up to a stop text."""
    token_ids = row.token_ids[:-1] if row.finish_reason == "end_of_text" else row.token_ids
    text = tokenizer.decode_bytes(token_ids)
    cuts = [at for stop in config.stop if (at := text.find(stop.encode())) >= 0]
    return text[: min(cuts, default=len(text))].decode("utf-8", "replace")


class TextPieces:
    """Bytes in, text out: whole characters only, and nothing that a stop text may begin with."""

    def __init__(self, stop: list[str]) -> None:
        self.stop, self.held = [text.encode() for text in stop], b""  # no stop is left once one has come
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, new: bytes) -> Iterator[str]:
        """Text that is certain once these bytes have come."""
        self.held += new
        cuts = [at for stop in self.stop if (at := self.held.find(stop)) >= 0]
        if cuts:
            self.held, self.stop = self.held[: min(cuts)], []
        yield from self._release(self._may_begin_a_stop())

    def end(self) -> Iterator[str]:
        """What was held back; half a character becomes the replacement character."""
        yield from self._release(0, final=True)

    def _release(self, n_kept: int, *, final: bool = False) -> Iterator[str]:
        cut = len(self.held) - n_kept
        # The decoder keeps the bytes of a character whose end is still to come.
        piece, self.held = self.decoder.decode(self.held[:cut], final), self.held[cut:]
        if piece:
            yield piece

    def _may_begin_a_stop(self) -> int:
        """How many bytes at the end of what is held are the beginning of a stop text."""
        longest = max(map(len, self.stop), default=1) - 1  # a whole one has been found already
        sizes = range(min(longest, len(self.held)), 0, -1)
        ends = (size for size in sizes if any(s.startswith(self.held[-size:]) for s in self.stop))
        return next(ends, 0)


def stop_rule(tokenizer: Tokenizer, config: DecodingConfig) -> Stop | None:
    """Whether a stop text has come up in the new tokens. As bytes: a token may end inside a character."""
    if not config.stop:
        return None
    stops = [stop.encode() for stop in config.stop]
    # Tokens: none is empty, so no stop text spans more of them than it has bytes.
    reach = max(map(len, stops))

    def stop(new: list[int]) -> bool:
        text = tokenizer.decode_bytes(new[-reach:])
        return any(stop in text for stop in stops)

    return stop


def text_rules(tokenizer: Tokenizer, config: DecodingConfig) -> list[Rule]:
    """Rules for `logit_bias` and `banned_words`, which are given as text, and against ids that write none."""
    rules: list[Rule] = [lambda logits, history, n_prompt: _known(logits, tokenizer.vocab_size)]
    if config.logit_bias:
        biases = {tuple(encode(tokenizer, text)): bias for text, bias in config.logit_bias.items()}
        rules.append(lambda logits, history, n_prompt: sequence_bias(logits, history, biases))
    if config.banned_words:
        rules.append(BannedTexts(tokenizer, config.banned_words))
    return rules


def _known(logits: Tensor, n: int) -> Tensor:
    """A padded model's ids from `n` on write nothing; one amid a stop or banned text would hide it."""
    if logits.shape[-1] <= n:
        return logits
    return F.pad(logits[:, :n], (0, logits.shape[-1] - n), value=-torch.inf)


class BannedTexts:
    """Rules out each token that would complete a banned text, however the tokens cut it."""

    def __init__(self, tokenizer: Tokenizer, banned: list[str]) -> None:
        self.tokenizer = tokenizer
        vocabulary = [tokenizer.decode_bytes([id_]) for id_ in range(tokenizer.vocab_size)]
        vocabulary[tokenizer.end_of_text_id] = b""  # it ends the text, and is none
        # What the new text ends with: the tokens that complete a banned text then. Nothing: they hold one.
        self.completing: dict[bytes, np.ndarray] = {}
        for word in {text.encode() for text in banned}:
            holding = [id_ for id_, token in enumerate(vocabulary) if word in token]
            self._rule_out(b"", holding)
            # A token may go on behind the word: it need only begin with the rest of it.
            for cut in range(1, len(word)):
                rest = word[cut:]
                self._rule_out(
                    word[:cut], [id_ for id_, token in enumerate(vocabulary) if token.startswith(rest)]
                )

    def _rule_out(self, beginning: bytes, ids: list[int]) -> None:
        known = self.completing.get(beginning, np.empty(0, np.int64))
        self.completing[beginning] = np.union1d(known, np.array(ids, np.int64))

    def __call__(self, logits: Tensor, history: list[list[int]], n_prompt: list[int]) -> Tensor:
        logits = logits.clone()
        reach = max(map(len, self.completing))  # bytes, and so tokens at most
        for row, tokens, start in zip(logits, history, n_prompt, strict=True):
            # Words of one byte have no beginning: a reach of 0, and [-0:] would be everything.
            end = self.tokenizer.decode_bytes(tokens[start:][-reach:] if reach else [])
            for beginning, ids in self.completing.items():
                if end.endswith(beginning):
                    row[torch.from_numpy(ids).to(logits.device)] = -torch.inf
        return logits
