"""Tokenizers that are made from the text itself: an alphabet of characters, or byte pairs merged."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterator

from gpt_pretrain.config import DataConfig, TokenizerConfig
from gpt_pretrain.config.data import FROM_WEIGHTS
from gpt_pretrain.data.listing import find_files
from gpt_pretrain.data.marks import cut_at
from gpt_pretrain.data.notes import combined, keep_note, read_note
from gpt_pretrain.data.reading_bar import ReadingBar
from gpt_pretrain.data.sources import Source, TextFiles, alphabet_of, build_source, cache_dir
from gpt_pretrain.data.splits import TRAIN
from gpt_pretrain.data.token_cache import side_of
from gpt_pretrain.errors import ArtifactError, InputError
from gpt_pretrain.tokenizer import END_OF_TEXT, Tokenizer, build_tokenizer, ranks_file, read_ranks
from gpt_pretrain.tokenizer.learn import DISTINCT, count_pieces, learn_ranks

log = logging.getLogger(__name__)

NOTED_SECONDS = 3.0  # of training a tokenizer, which is said where one had to wait for it


def tokenizer_for(config: DataConfig, settings: TokenizerConfig) -> Tokenizer:
    """The configured tokenizer. Raises InputError where no text is there that it could be made from.

    `characters` and `trained` are made from tokenizer.path, else from the data.
    """
    if settings.name not in ("characters", *FROM_WEIGHTS):
        return build_tokenizer(settings)
    if settings.name == "from_weights":
        raise InputError(
            "tokenizer=from_weights is the one beside the weights, and weights=scratch has none: "
            "choose another, as in tokenizer=trained"
        )
    if settings.name == "trained":
        return build_tokenizer(settings, _ranks(config, settings))
    sources = [source for source, _ in _sources(config, settings, with_val=True)]
    alphabet = "".join(alphabet_of(source, cache_dir(config)) for source in sources)
    if not alphabet:
        raise InputError(f"tokenizer=characters: {sources[0].name} holds no text to take an alphabet from")
    return build_tokenizer(settings, alphabet)


def _sources(config: DataConfig, settings: TokenizerConfig, *, with_val: bool) -> list[tuple[Source, float]]:
    """The text that a tokenizer is made from, each source with its weight."""
    cache = cache_dir(config)
    if settings.path:
        listing = find_files(settings.path, None, key="tokenizer.path")
        return [(TextFiles(settings.path, listing, config, cache), 1.0)]
    paths = config.weights()
    if with_val and config.val_path:
        paths |= {config.val_path: 0.0}
    for path in paths:
        if config.holds_tokens(path):
            raise InputError(
                f"tokenizer={settings.name} is made from text, {path} holds tokens\n"
                "name the tokenizer that made them, as in tokenizer=gpt2, or give the text "
                "that they were made of: tokenizer.path=<text>"
            )
    return [(build_source(config, path, cache), weight) for path, weight in paths.items()]


def _ranks(config: DataConfig, settings: TokenizerConfig) -> dict[bytes, int]:
    """Merges learned from the training text; kept in the cache, where the same text has the same ones."""
    sources = _sources(config, settings, with_val=False)
    split = None if settings.path else [config.val_path is None, config.split, config.val_fraction]
    n_ranks = settings.vocab_size - 1 - len(settings.special_tokens)  # one is the end of a text
    content = [[source.fingerprint(), weight] for source, weight in sources]
    # What becomes one id in the data is no text to learn from.
    marks = [END_OF_TEXT, *settings.special_tokens] if config.special_tokens else []
    key = combined("trained", content, split, n_ranks, settings.train_mb, *marks)
    note = cache_dir(config) / "tokenizers" / f"{key}.json"
    if (known := read_note(note)) is not None:
        try:
            return read_ranks(known.encode(), str(note))
        except (ArtifactError, AttributeError):
            log.warning("%s is damaged: the tokenizer is trained again", note)
    started = time.monotonic()
    budget, total = settings.train_mb * 10**6, sum(weight for _, weight in sources)
    counts: Counter[bytes] = Counter()
    for source, weight in sources:
        text = _training_text(source, config, settings, int(budget * weight / total), marks)
        counts += count_pieces(text, DISTINCT // len(sources))
    ranks = learn_ranks(counts, n_ranks)
    seconds = time.monotonic() - started
    if seconds > NOTED_SECONDS:
        log.info("data    a tokenizer of %s ids, trained in %.0f s", f"{len(ranks) + 1:,}", seconds)
    keep_note(note, ranks_file(ranks).decode())
    return ranks


def _training_text(
    source: Source, config: DataConfig, settings: TokenizerConfig, n_characters: int, marks: list[str]
) -> Iterator[str]:
    """The first `n_characters` of what will be trained on, without the marks: a tokenizer fitted to the
    validation text too would make it look better learned than it is.
    """
    whole = settings.path or config.val_path
    # Where the tokens are cut there are none yet: the same share of the characters.
    split = "none" if whole else "characters" if config.split == "tokens" else config.split
    ends = marks[:1]
    side = side_of(source, config, split, ends)
    with ReadingBar("training the tokenizer", source) as bar:
        for document in cut_at(ends, source.documents(bar.advance)):
            for stream, _, pieces in side(document):
                for piece in itertools.chain.from_iterable(cut_at(marks, [pieces])):
                    if stream == TRAIN:
                        yield piece[:n_characters]
                        n_characters -= min(n_characters, len(piece))
            if n_characters == 0:
                return
