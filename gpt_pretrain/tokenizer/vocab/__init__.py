"""GPT-2's vocabulary as OpenAI published it: `encoder.json`, token to id, and `vocab.bpe`, merges."""
