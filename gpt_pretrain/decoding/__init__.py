"""Choosing tokens.

`filters` and `penalties` are pure functions on logits, `choose` draws, `cache` keeps keys and values,
`generate` is the loop, `beam` and `contrastive` are searches, `text` puts a tokenizer around them.
"""
