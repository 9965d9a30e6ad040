"""Generation with a tokenizer: text in, text out.

model, tokenizer = load_model(Path("outputs/.../checkpoints/step-00000500"))  # gpt_pretrain.runs.pretrained
config = DecodingConfig(top_k=25, temperature=0.8)
print(generate_text(model, tokenizer, "Every effort moves you", config))
"""

import codecs
import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_pretrain.config import DecodingConfig
from gpt_pretrain.decoding.continuation import Continuation, Rule, Stop
from gpt_pretrain.decoding.loop import continue_tokens, steps
from gpt_pretrain.decoding.penalties import sequence_bias
from gpt_pretrain.errors import InputError
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


def some_tokens(tokenizer: Tokenizer, text: str, setting: str) -> list[int]:
    """Token ids of a text that `setting` holds. Raises InputError, which names it, where there are none."""
    try:
        token_ids = encode(tokenizer, text)
    except InputError as error:  # a character that the tokenizer lacks
        raise InputError(f"{setting}: {error}") from error
    if not token_ids:
        raise InputError(f"{setting}: tokenizer={tokenizer.name} makes no token of {text!r}: give other text")
    return token_ids


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
    """Rules for `logit_bias` and `banned_words`, which are given as text, and against ids that write none.

    Raises InputError for a bias on a text of which the tokenizer makes no token.
    """
    rules: list[Rule] = [lambda logits, history, n_prompt: _known(logits, tokenizer.vocab_size)]
    if config.logit_bias:
        biases = {
            tuple(some_tokens(tokenizer, text, "decoding.logit_bias")): bias
            for text, bias in config.logit_bias.items()
        }
        rules.append(lambda logits, history, n_prompt: sequence_bias(logits, history, biases))
    if config.banned_words:
        rules.append(_banned_texts(tokenizer, tuple(config.banned_words)))  # type: ignore[arg-type]
    return rules


# Once a program, not once a batch, a sample and an answer. mypy takes no protocol for hashable.
@lru_cache(maxsize=8)
def _banned_texts(tokenizer: Tokenizer, banned: tuple[str, ...]) -> "BannedTexts":
    return BannedTexts(tokenizer, banned)


def _known(logits: Tensor, n: int) -> Tensor:
    """A padded model's ids from `n` on write nothing; one amid a stop or banned text would hide it."""
    if logits.shape[-1] <= n:
        return logits
    return F.pad(logits[:, :n], (0, logits.shape[-1] - n), value=-torch.inf)


class BannedTexts:
    """Rules out each token that would complete a banned text, however the tokens cut it."""

    def __init__(self, tokenizer: Tokenizer, banned: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        vocabulary = _vocabulary(tokenizer)  # type: ignore[arg-type]
        # What the new text ends with: the tokens that complete a banned text then. Nothing: they hold one.
        self.completing: dict[bytes, np.ndarray] = {}
        for word in {text.encode() for text in banned}:
            self._rule_out(b"", vocabulary.holding(word))
            # A token may go on behind the word: it need only begin with the rest of it.
            for cut in range(1, len(word)):
                self._rule_out(word[:cut], vocabulary.beginning_with(word[cut:]))

    def _rule_out(self, beginning: bytes, ids: list[int]) -> None:
        known = self.completing.get(beginning, np.empty(0, np.int64))
        self.completing[beginning] = np.union1d(known, np.array(ids, np.int64))

    def __call__(self, logits: Tensor, history: list[list[int]], n_prompt: list[int]) -> Tensor:
        logits = logits.clone()
        reach = max(map(len, self.completing))  # bytes, and so tokens at most
        for row, tokens, start in zip(logits, history, n_prompt, strict=True):
            # Words of one byte have no beginning: a reach of 0, and [-0:] would be everything.
            end = self.tokenizer.decode_bytes(tokens[start:][-reach:] if reach else [])
            for size in range(min(reach, len(end)) + 1):
                ids = self.completing.get(end[len(end) - size :])
                if ids is not None:
                    row[torch.from_numpy(ids).to(logits.device)] = -torch.inf
        return logits


class _Vocabulary:
    """The bytes of each token but the end of text, which is none, in their order: to look texts up in."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = (id_ for id_ in range(tokenizer.vocab_size) if id_ != tokenizer.end_of_text_id)
        ordered = sorted((tokenizer.decode_bytes([id_]), id_) for id_ in ids)
        self.tokens, self.ids = [token for token, _ in ordered], [id_ for _, id_ in ordered]
        self.joined = b"".join(self.tokens)
        self.starts = [0, *accumulate(map(len, self.tokens))]  # of each token in `joined`, and the end

    def beginning_with(self, start: bytes) -> list[int]:
        """Ids of the tokens that begin with `start`: they stand side by side."""
        first = last = bisect_left(self.tokens, start)
        while last < len(self.tokens) and self.tokens[last].startswith(start):
            last += 1
        return self.ids[first:last]

    def holding(self, text: bytes) -> list[int]:
        """Ids of the tokens that `text` is part of."""
        ids, at = [], self.joined.find(text)
        while at >= 0:
            place = bisect_right(self.starts, at) - 1  # of tokens without a byte the one behind them
            end = self.starts[place + 1]
            inside = at + len(text) <= end  # and not across a border
            if inside:
                ids.append(self.ids[place])
            at = self.joined.find(text, end if inside else at + 1)
        return ids


_vocabulary = lru_cache(maxsize=2)(_Vocabulary)
