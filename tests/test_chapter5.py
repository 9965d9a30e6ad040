"""The exact numbers of chapter 5: any CPU must give them. Source: the book, sections 5.1 to 5.3."""

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

INPUTS = torch.tensor([[16833, 3626, 6100], [40, 1107, 588]])  # "every effort moves", "I really like"
TARGETS = torch.tensor([[3626, 6100, 345], [1107, 588, 11311]])


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
