"""Multiple choice and cloze: log-probabilities as transformers has them, files of HellaSwag and LAMBADA."""

import json

import numpy as np
import pytest
import torch

from gpt_pretrain.errors import InputError
from gpt_pretrain.generation.questions import (
    Ending,
    Question,
    answer_choices,
    answer_cloze,
    read_choices,
    read_cloze,
    score,
)
from gpt_pretrain.tokenizer import build_tokenizer
from gpt_pretrain.weights.read import build_model, open_weights
from tests.weights import foreign
from tests.weights.foreign import CONTEXT, reference

SIZE = (24, 4, 3)
HELLASWAG = {
    "activity_label": "Removing ice",
    "ctx_a": "A man is [header] outside.",
    "ctx_b": "he",
    "endings": ["sings.", "scrapes [step] it off. [title] Done", "eats.", "is the [substeps] car."],
    "label": "1",
}
ARC = {"question": "Which?", "choices": {"text": ["one", "two"], "label": ["A", "B"]}, "answerKey": "B"}


@pytest.fixture
def model(tmp_path):
    foreign.huggingface(reference(SIZE), tmp_path / "theirs")
    weights = open_weights(tmp_path / "theirs")
    return build_model(weights, weights.config).eval()


def written(tmp_path, rows, name="questions.jsonl"):
    file = tmp_path / name
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(file)


@pytest.mark.parametrize("context", ["ab", "", "a text that is longer than the model's context"])
def test_an_ending_has_the_log_probability_of_transformers(model, context):
    tokenizer = build_tokenizer("bytes")
    question = Question(context, [" b", " longer", " c d"], [2, 7, 4], 0)
    for ending, found in zip(question.endings, score(model, tokenizer, question), strict=True):
        ids = [256, *ending.encode()] if not context else [*context.encode(), *ending.encode()]
        ids = ids[-(CONTEXT + 1) :]
        with torch.no_grad():
            logprobs = reference(SIZE)(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
        n = len(ending)
        expected = logprobs[range(len(ids) - 1 - n, len(ids) - 1), ids[-n:]]
        assert found.logprob == pytest.approx(expected.sum().item(), abs=1e-4)
        assert found.is_greedy == (logprobs[-n:].argmax(-1).tolist() == ids[-n:])


def test_the_tokens_of_an_ending_are_those_of_the_whole_text(model):
    """BPE may join what stands at the seam; as in the harness, what is left of the whole counts."""
    tokenizer = build_tokenizer("bytes")
    ids = torch.tensor([[*"é\u0301x".encode()]])
    (whole,) = score(model, tokenizer, Question("é", ["\u0301x"], [2], 0))
    with torch.no_grad():
        logprobs = reference(SIZE)(ids[:, :-1]).logits[0].log_softmax(-1)
    assert whole.logprob == pytest.approx(logprobs[range(1, 4), ids[0, 2:]].sum().item(), abs=1e-4)


def test_hellaswag_arc_and_plain_rows_are_read(tmp_path):
    plain = {"context": "Once ", "choices": ["upon", " on"], "answer": 1}
    named = {"query": "Once", "choices": ["upon", "on"], "label": "on"}
    found = read_choices(written(tmp_path, [HELLASWAG, ARC, plain, named, ""]))
    assert found == [
        Question(
            "Removing ice: A man is outside. He",
            [" sings.", " scrapes it off.. Done", " eats.", " is the car."],
            [6, 21, 5, 11],
            1,
        ),
        Question("Question: Which?\nAnswer:", [" one", " two"], [3, 3], 1),
        Question("Once", [" upon", " on"], [4, 3], 1),
        Question("Once", [" upon", " on"], [4, 2], 1),
    ]


def test_lambada_is_read_from_jsonl_and_from_lines(tmp_path):
    expected = [Question("He came back", [" home."], [5], 0)]
    assert read_cloze(written(tmp_path, [{"text": "He came back home."}])) == expected
    assert read_cloze(written(tmp_path, [{"context": "He came back ", "target": "home."}])) == expected
    assert read_cloze(written(tmp_path, ["He came back home.\r"], "lambada.txt")) == expected
    for name in ("lambada.ndjson", "LAMBADA.JSONL"):
        assert read_cloze(written(tmp_path, [{"text": "He came back home."}], name)) == expected


@pytest.mark.parametrize("text", ["天地玄黄宇宙洪荒", "word", " word"])
def test_a_text_of_one_word_leaves_nothing_to_ask_it_by(tmp_path, text):
    with pytest.raises(
        InputError, match=r"zh\.txt: line 2 has no space before a last word: write it"
    ) as refused:
        read_cloze(written(tmp_path, ["two words", text], "zh.txt"))
    assert len(str(refused.value).splitlines()) == 1
    given = written(tmp_path, [{"context": "天地玄黄", "target": "宇宙"}])
    assert read_cloze(given) == [Question("天地玄黄", [" 宇宙"], [2], 0)]


def test_a_perplexity_beyond_all_floats_is_infinite():
    cloze = answer_cloze([(Question("", [""], [1], 0), [Ending(-5000.0, False)])])
    assert cloze.perplexity == float("inf")


def test_a_question_without_a_token_is_refused(model, monkeypatch):
    tokenizer = build_tokenizer("bytes")
    monkeypatch.setattr(tokenizer, "encode", lambda text: np.empty(0, np.uint32))
    with pytest.raises(InputError, match="makes no token of 'a b'"):
        score(model, tokenizer, Question("a", [" b"], [1], 0))


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (read_choices, '{"ctx": "a", "endings": ["b"], "label": 1}'),
        (read_choices, '{"ctx": "a", "endings": ["b", " "], "label": 0}'),
        (read_choices, '{"question": "a", "choices": ["b"]}'),
        (read_choices, '{"choices": ["b"], "answer": 0}'),
        (read_choices, "[]"),
        (read_choices, "{"),
        (read_choices, "[" * 10_000),
        (read_cloze, '{"text": ""}'),
        (read_cloze, '{"text": 3}'),
        (read_cloze, '{"no": "text"}'),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path, read, line):
    file = written(tmp_path, [ARC if read is read_choices else {"text": "a b"}, line])
    with pytest.raises(InputError, match=r"questions\.jsonl: line 2 is no question") as refused:
        read(file)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_a_question_is_refused(tmp_path, content):
    (tmp_path / "empty.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="holds no question"):
        read_choices(str(tmp_path / "empty.jsonl"))
    with pytest.raises(InputError, match="cannot be read"):
        read_cloze(str(tmp_path / "nowhere.jsonl"))


def test_shares_are_of_the_likeliest_ending_and_of_the_likeliest_a_character():
    short, long = Ending(-2.0, True), Ending(-3.0, False)
    questions = [(Question("", ["", ""], [1, 9], answer), [short, long]) for answer in (0, 0, 0, 1)]
    result = answer_choices(questions)
    assert (result.accuracy, result.by_length, result.n) == (0.75, 0.25, 4)
    assert result.error(0.75) == pytest.approx((0.75 * 0.25 / 3) ** 0.5)
    cloze = answer_cloze([(Question("", [""], [1], 0), [ending]) for ending in (short, long)])
    assert (cloze.accuracy, cloze.perplexity) == (0.5, pytest.approx(12.182494))


def test_the_space_that_is_put_before_an_ending_makes_it_no_longer_nor_does_its_alphabet(tmp_path):
    rows = [{"context": "c", "choices": ["an", "and so"], "answer": 1}]
    rows += [{"context": "c", "choices": ["an", "日本語"], "answer": 0}]
    short, long = Ending(-2.0, True), Ending(-5.0, False)
    questions = read_choices(written(tmp_path, rows))
    # By a character -1 and -5/6, then -1 and -5/3; with the space, or by the byte, both would be wrong.
    assert answer_choices([(question, [short, long]) for question in questions]).by_length == 1


def test_the_program_prints_a_line_a_figure(typed, tmp_path, capsys):
    foreign.huggingface(reference(SIZE), tmp_path / "theirs")
    written(tmp_path, [ARC] * 3)
    words = ["checkpoint=theirs", "tokenizer=bytes", "choices=questions.jsonl", "max_questions=2"]
    capsys.readouterr()  # transformers' own progress
    assert typed("evaluate", *words) == (0, "theirs/model.safetensors: 28,272 parameters\n")
    code, error = typed("evaluate", *words, "cloze=questions.jsonl")
    assert (code, "one at a time" in error) == (2, True)
    code, error = typed("evaluate", *words[:2], "cloze=questions.jsonl")
    assert (code, "line 1 is no question" in error) == (2, True)
