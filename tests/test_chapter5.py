"""The exact numbers of chapter 5 and appendix D: any CPU must give them. Source: the book."""

import csv
from pathlib import Path

import pytest
import torch

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.config import DataConfig, DecodingConfig, TrainConfig, resolve_model
from gpt_pretrain.data.corpus import load_corpus
from gpt_pretrain.data.windows import Share, count_windows, evaluation_batch
from gpt_pretrain.decoding.loop import continue_tokens
from gpt_pretrain.loss import next_token_loss, perplexity, summed_token_loss
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import build_tokenizer, decode
from gpt_pretrain.training.preflight import preflight
from gpt_pretrain.training.train import train

INPUTS = torch.tensor([[16833, 3626, 6100], [40, 1107, 588]])  # "every effort moves", "I really like"
TARGETS = torch.tensor([[3626, 6100, 345], [1107, 588, 11311]])
# What the book prints while it trains: step, counted from 0, and the losses of both splits without dropout.
TABLE = """
 0 9.781 9.933    5 8.111 8.339   10 6.661 7.048   15 5.961 6.616   20 5.726 6.600   25 5.201 6.348
30 4.417 6.278   35 4.069 6.226   40 3.732 6.160   45 2.850 6.179   50 2.427 6.141   55 2.104 6.134
60 1.882 6.233   65 1.320 6.238   70 0.985 6.242   75 0.717 6.293   80 0.541 6.393   85 0.391 6.452
"""
SPIKE = (22, "16.268")  # step, counted from 0, and its training loss
# The same of appendix D, as the book's repository has it.
APPENDIX_D = """
  0 10.934 10.939    5 9.151 9.461   10 7.949 8.184   15 6.362 6.876   20 5.851 6.607   25 5.750 6.634
 30  5.225  6.944   35 4.304 6.512   40 3.736 6.383   45 2.395 6.244   50 2.948 6.279   55 2.316 6.169
 60  1.003  6.343   65 0.860 6.348   70 1.117 6.375   75 0.367 6.498   80 0.289 6.612   85 0.263 6.700
 90  0.151  6.788   95 0.097 6.805  100 0.081 6.832  105 0.089 6.900  110 0.045 6.911  115 0.047 6.903
120  0.038  6.907  125 0.040 6.912  130 0.041 6.915
"""


@pytest.fixture(scope="module")
def untrained() -> GPTModel:
    settings = compose("train", TrainConfig, ["experiment=chapter5"]).model
    torch.manual_seed(123)
    return GPTModel(resolve_model(settings, read=None, tokenizer_vocab_size=50257)).eval()


@pytest.fixture(scope="module")
def corpus(story):
    return load_corpus(DataConfig(source="the_verdict", path=str(story)), build_tokenizer("gpt2"))


def split_loss(model: GPTModel, tokens) -> float:
    n_windows = count_windows(len(tokens), 256, 256)
    total = count = 0.0
    with torch.inference_mode():
        for batch in range(-(-n_windows // 2)):
            arrays = evaluation_batch(tokens, batch, Share(batch_size=2), context_length=256)
            inputs, targets = (torch.from_numpy(array) for array in arrays)
            summed, counted = summed_token_loss(model(inputs), targets)
            total, count = total + float(summed), count + int(counted)
    return total / count


def test_the_untrained_model_continues_with_the_books_gibberish(untrained):
    tokenizer = build_tokenizer("gpt2")
    prompt = tokenizer.encode("Every effort moves you").tolist()
    greedy = DecodingConfig(temperature=0.0, max_new_tokens=10)
    chosen = continue_tokens(untrained, [prompt], greedy)[0][0].token_ids
    text = "Every effort moves you rentingetic wasnم refres RexMeCHicular stren"
    assert decode(tokenizer, prompt + chosen) == text


@torch.inference_mode()
def test_the_untrained_models_most_likely_tokens_are_the_books(untrained):
    assert untrained(INPUTS).argmax(-1).tolist() == [[16657, 339, 42826], [49906, 29669, 41751]]


@torch.inference_mode()
def test_the_untrained_loss_and_perplexity_are_the_books(untrained):
    loss = next_token_loss(untrained(INPUTS), TARGETS).item()
    assert loss == pytest.approx(10.7940, rel=1e-5)
    assert perplexity(loss) == pytest.approx(48725.82, rel=1e-4)


@pytest.mark.slow
def test_the_untrained_losses_of_both_splits_are_the_books(untrained, corpus):
    assert split_loss(untrained, corpus.train) == pytest.approx(10.98758, rel=1e-5)
    assert split_loss(untrained, corpus.val) == pytest.approx(10.98110580, rel=1e-5)


def test_the_story_has_the_books_numbers_of_characters_tokens_and_windows(story, corpus):
    assert len(story.read_text()) == corpus.n_characters == 20_479
    assert len(build_tokenizer("gpt2").encode(story.read_text())) == 5_145
    assert (len(corpus.train), len(corpus.val)) == (4_612, 534)
    assert [count_windows(n, 256, 256) for n in (4_612, 534)] == [18, 2]


def test_the_books_sentences_have_the_books_ids():
    tokenizer = build_tokenizer("gpt2")
    assert tokenizer.encode("Every effort moves you").tolist() == [6109, 3626, 6100, 345]
    assert tokenizer.encode("Hello, I am").tolist() == [15496, 11, 314, 716]
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terracesof someunknownPlace."
    assert tokenizer.encode(text, allow_special=True).tolist() == [
        *(15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554, 262),
        *(4252, 18250, 8812, 2114, 1659, 617, 34680, 27271, 13),
    ]


def printed(run: Path, *words: str) -> tuple[list[tuple[str, ...]], dict[int, dict[str, str]]]:
    """The rows that the book prints, step, training and validation loss, and all rows as it counts them."""
    config = compose("train", TrainConfig, [*words, "logger=csv"])
    train(config, preflight(config, run), run)
    with (run / "metrics.csv").open() as stream:
        rows = {int(row["step"]) - 1: row for row in csv.DictReader(stream)}
    return [
        (str(step), *(f"{float(row[key]):.3f}" for key in ("train/eval_loss", "val/loss")))
        for step, row in rows.items()
        if step >= 0 and step % 5 == 0 and row["val/loss"]
    ], rows


def as_rows(table: str) -> list[tuple[str, ...]]:
    words = table.split()
    return list(zip(words[::3], words[1::3], words[2::3], strict=True))


@pytest.mark.slow
@pytest.mark.whole_chapter
def test_the_experiment_prints_the_books_table_digit_for_digit(tmp_path, story):
    table, rows = printed(tmp_path, "experiment=chapter5", f"data.path={story}")
    assert table == as_rows(TABLE)
    step, loss = SPIKE
    assert f"{float(rows[step]['train/loss']):.3f}" == loss


@pytest.mark.slow
@pytest.mark.whole_chapter
def test_appendix_d_prints_the_book_s_log_to_one_in_the_third_decimal(tmp_path, story):
    """No more: over 135 steps the rounding of one processor's sums comes to that much on another."""
    table, _ = printed(tmp_path, "experiment=appendix_d", f"data.path={story}")
    for row, expected in zip(table, as_rows(APPENDIX_D), strict=True):
        assert [float(value) for value in row] == pytest.approx(
            [float(value) for value in expected], abs=0.0011
        )
