"""Byte-pair encoding learned from a text (Sennrich et al. 2016), with bytes as its alphabet (GPT-2)."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice, pairwise

import regex  # tiktoken brings it: re knows no \\p{L}

from gpt_pretrain.tokenizer import patterns
from gpt_pretrain.tokenizer.protocol import printable_bytes, without_surrogates

LONGEST_PIECE = 256  # bytes: a longer one, of a table's rules or a blob, counts as several
LEAST = 2  # times that a pair must occur to become a token
DISTINCT = 1 << 21  # bytes of pieces that differ: merging takes some ten seconds a megabyte of them

Pair = tuple[int, int]


def learn_ranks(counts: Mapping[bytes, int], n_ranks: int) -> dict[bytes, int]:
    """At most `n_ranks` tokens of bytes, each with its rank: all single bytes, then merged pairs of `counts`.

    The commonest pair is merged next; of equally common ones that of the lowest ranks, as the tokenizers
    library does it. Fewer come out where no pair occurs twice any more.
    """
    # In GPT-2's order, which is the order of their stand-ins.
    tokens = sorted((stand_in, bytes([byte])) for byte, stand_in in enumerate(printable_bytes()))
    ranks = {token: rank for rank, (_, token) in enumerate(tokens)}
    pieces = _Pieces(counts, ranks)
    spelled = list(ranks)
    while len(ranks) < n_ranks and (pair := pieces.commonest()) is not None:
        token = spelled[pair[0]] + spelled[pair[1]]
        if token not in ranks:  # two pairs may spell one token
            ranks[token] = len(ranks)
            spelled.append(token)
        pieces.merge(pair, ranks[token])
    return ranks


def count_pieces(texts: Iterable[str], distinct: int = DISTINCT) -> Counter[bytes]:
    """How often each piece occurs, as GPT-2's pattern cuts them, until they are some `distinct` bytes.

    Thus of a text without spaces, whose pieces hardly ever come again, its beginning must do.
    """
    pattern = regex.compile(patterns.GPT2)
    words: Counter[str] = Counter()
    n_bytes = 0
    for text in texts:
        known = len(words)
        words.update(pattern.findall(without_surrogates(text)))
        n_bytes += sum(len(word.encode()) for word in islice(words, known, None))
        if n_bytes > distinct:
            break
    counts: Counter[bytes] = Counter()
    for word, count in words.items():
        piece = word.encode()
        for start in range(0, len(piece), LONGEST_PIECE):
            counts[piece[start : start + LONGEST_PIECE]] += count
    return counts


class _Pieces:
    """The pieces as ranks, and where each pair of neighbours occurs: a merge touches only what holds it."""

    def __init__(self, counts: Mapping[bytes, int], ranks: dict[bytes, int]) -> None:
        of_byte = [ranks[bytes([byte])] for byte in range(256)]
        self.pieces = [[of_byte[byte] for byte in piece] for piece in counts]
        self.counts = list(counts.values())
        self.pairs: dict[Pair, int] = defaultdict(int)  # how often each occurs
        self.places: dict[Pair, set[int]] = defaultdict(set)  # numbers of pieces that may hold it
        for number, piece in enumerate(self.pieces):
            for pair in pairwise(piece):
                self.pairs[pair] += self.counts[number]
                self.places[pair].add(number)
        self.queue = [(-count, pair) for pair, count in self.pairs.items()]
        heapq.heapify(self.queue)

    def commonest(self) -> Pair | None:
        """The pair to merge next; None where none occurs `LEAST` times."""
        while self.queue:
            count, pair = heapq.heappop(self.queue)
            now = self.pairs.get(pair, 0)
            if now == -count and now >= LEAST:
                return pair
            # It has become rarer since it was queued: it waits again, by its new count.
            if LEAST <= now < -count:
                heapq.heappush(self.queue, (-now, pair))
        return None

    def merge(self, pair: Pair, rank: int) -> None:
        """Make `pair` one token wherever it stands, from left to right."""
        grown: set[Pair] = set()
        for number in self.places.pop(pair):
            piece, count = self.pieces[number], self.counts[number]
            merged = _merged(piece, pair, rank)
            if len(merged) == len(piece):
                continue
            for old in pairwise(piece):
                self.pairs[old] -= count
            for new in pairwise(merged):
                self.pairs[new] += count
                if rank in new:
                    self.places[new].add(number)
                    grown.add(new)
            self.pieces[number] = merged
        del self.pairs[pair]
        for new in grown:
            heapq.heappush(self.queue, (-self.pairs[new], new))


def _merged(piece: list[int], pair: Pair, rank: int) -> list[int]:
    merged: list[int] = []
    place, end = 0, len(piece)
    while place < end:
        if place + 1 < end and piece[place] == pair[0] and piece[place + 1] == pair[1]:
            merged.append(rank)
            place += 2
        else:
            merged.append(piece[place])
            place += 1
    return merged
