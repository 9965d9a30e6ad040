"""The vocabulary that ships is OpenAI's, byte for byte."""

import hashlib
from importlib.resources import files

import pytest


@pytest.mark.parametrize(
    ("name", "published"),  # in tiktoken_ext/openai_public.py, as gpt2's
    [
        ("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
        ("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    ],
)
def test_a_file_has_the_hash_that_tiktoken_publishes(name, published):
    content = (files("gpt_pretrain.tokenizer.vocab") / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == published
