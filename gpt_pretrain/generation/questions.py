"""Multiple choice (HellaSwag and its like) and cloze (LAMBADA) from local files, scored by log-probabilities.

Contexts, endings and what counts are those of EleutherAI's lm-evaluation-harness, so figures can be compared.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpt_pretrain.decoding.text import encode, some_tokens
from gpt_pretrain.errors import InputError
from gpt_pretrain.generation.prompts import is_json_lines
from gpt_pretrain.loss import log_probabilities, perplexity
from gpt_pretrain.model import GPTModel
from gpt_pretrain.tokenizer import Tokenizer

# What is to be written, by the setting that names the file.
FORMS = {
    "choices": '{"context": "...", "choices": ["...", "..."], "answer": 0}, or HellaSwag\'s own',
    "cloze": '{"text": "..."} to ask for its last word, or {"context": "...", "target": "..."}',
}


@dataclass(frozen=True, slots=True)
class Question:
    context: str
    endings: list[str]  # one of a cloze; each begins with the space that parts it from the context
    lengths: list[int]  # characters of each as its file has it: what the harness divides by
    answer: int  # which of them


@dataclass(frozen=True, slots=True)
class Ending:
    logprob: float  # summed over its tokens
    is_greedy: bool  # each of its tokens is the most likely one


@dataclass(frozen=True, slots=True)
class Result:
    accuracy: float  # choices: the likeliest ending is the right one; cloze: greedy decoding writes it
    by_length: float | None  # choices: the same by log-probability a character, so short ones gain nothing
    perplexity: float | None  # cloze: of the missing words, exp of the mean over questions
    n: int

    def error(self, share: float) -> float:
        """Standard error of a share of right answers."""
        return math.sqrt(share * (1 - share) / max(1, self.n - 1))


def read_choices(path: str) -> list[Question]:
    """Questions of JSON lines: HellaSwag's, ARC's, or `context`, `choices` and `answer`.

    Raises InputError that names the first line that is none.
    """
    return _read(path, "choices", _choice)


def read_cloze(path: str) -> list[Question]:
    """Texts whose last word is asked for: JSON lines with `text` as LAMBADA's, or with `context` and
    `target`; or any other file, a text a line. Raises InputError, for a text without a space too.
    """
    return _read(path, "cloze", _cloze)


@torch.inference_mode()
def score(model: GPTModel, tokenizer: Tokenizer, question: Question) -> list[Ending]:
    """Each ending, given the context; of a text longer than the model's context the last tokens are read."""
    device, limit = model.tok_emb.weight.device, model.config.context_length + 1
    rows, lengths = [], []
    for ending in question.endings:
        whole = some_tokens(tokenizer, question.context + ending, "a question")
        n_tokens = len(whole)
        # The end of a text stands before an empty context: something must be given for the first token.
        given = len(encode(tokenizer, question.context)) if question.context else 0
        whole = [tokenizer.end_of_text_id, *whole][-limit:] if not given else whole[-limit:]
        n = min(len(whole) - 1, n_tokens - given)
        rows.append(whole)
        lengths.append(max(1, n))
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
    logits = model(padded[:, :-1]).float()  # (E, T, V); padding follows, so no ending sees it
    endings = []
    for row, length, row_logits in zip(rows, lengths, logits, strict=True):
        asked = slice(len(row) - 1 - length, len(row) - 1)
        targets = torch.tensor(row[-length:], device=device)
        logprob = log_probabilities(row_logits[asked], targets).sum().item()
        is_greedy = bool((row_logits[asked].argmax(-1) == targets).all())
        endings.append(Ending(logprob=logprob, is_greedy=is_greedy))
    return endings


def answer_choices(scored: list[tuple[Question, list[Ending]]]) -> Result:
    """The share of questions whose likeliest ending is the right one."""
    right = by_length = 0
    for question, endings in scored:
        logprobs = [ending.logprob for ending in endings]
        a_character = [x / length for x, length in zip(logprobs, question.lengths, strict=True)]
        right += logprobs.index(max(logprobs)) == question.answer
        by_length += a_character.index(max(a_character)) == question.answer
    n = len(scored)
    return Result(accuracy=right / n, by_length=by_length / n, perplexity=None, n=n)


def answer_cloze(scored: list[tuple[Question, list[Ending]]]) -> Result:
    """The share of texts whose missing words greedy decoding writes, and their perplexity."""
    endings = [ending for _, (ending,) in scored]
    mean = sum(ending.logprob for ending in endings) / len(endings)
    accuracy = sum(ending.is_greedy for ending in endings) / len(endings)
    return Result(accuracy=accuracy, by_length=None, perplexity=perplexity(-mean), n=len(endings))


def _read(path: str, setting: str, build: Callable[[Any], Question]) -> list[Question]:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{setting}={path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{setting}={path} is not UTF-8 text: byte {error.start} is not") from error
    questions = []
    for number, line in _lines(text):
        try:
            row = json.loads(line) if is_json_lines(path) else {"text": line}
            questions.append(build(row))
        except InputError as error:
            raise InputError(f"{setting}={path}: line {number} {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InputError(
                f"{setting}={path}: line {number} is no question: write {FORMS[setting]}"
            ) from error
    if not questions:
        raise InputError(f"{setting}={path} holds no question")
    return questions


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _choice(row: dict[str, Any]) -> Question:
    if "endings" in row:  # HellaSwag: what happens, then how it goes on
        context = row["ctx"] if "ctx_a" not in row else f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
        if "activity_label" in row:
            context = f"{row['activity_label']}: {context}"
        endings = [_cleaned(ending) for ending in row["endings"]]
        return _question(_cleaned(context), endings, int(row["label"]))
    choices, answer = row["choices"], row.get("answer", row.get("label", row.get("answerKey")))
    (context, *_) = [row[key] for key in ("context", "question", "query") if key in row]
    names: list[Any] = list("ABCDEFGH")
    if isinstance(choices, dict):  # ARC: texts and their letters
        choices, names = choices["text"], choices["label"]
        if "context" not in row and "question" in row:
            context = f"Question: {context}\nAnswer:"
    if isinstance(answer, str) and answer in names:
        answer = names.index(answer)
    elif isinstance(answer, str) and answer in choices:
        answer = choices.index(answer)
    return _question(context, choices, int(str(answer)))


def _cloze(row: dict[str, Any]) -> Question:
    if "target" in row:
        return _question(row["context"], [row["target"]], 0)
    context, _, word = row["text"].rstrip().rpartition(" ")
    if word and not context.strip():  # all of a text in Chinese, say
        raise InputError(
            "has no space before a last word: "
            """write it into a .jsonl file as {"context": "...", "target": "..."}"""
        )
    return _question(context, [word], 0)


def _question(context: str, endings: list[str], answer: int) -> Question:
    spaced = [ending if ending[:1].isspace() else f" {ending}" for ending in endings]
    if not 0 <= answer < len(spaced) or not all(ending.strip() for ending in spaced):
        raise ValueError("its answer is none of its endings, or one of them is empty")
    return Question(context.rstrip(), spaced, [len(ending) for ending in endings], answer)


def _cleaned(text: str) -> str:
    """Without the marks that WikiHow's texts have kept, as the harness takes them out."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")
