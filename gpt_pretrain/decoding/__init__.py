"""Choosing tokens.

`filters` and `penalties` are pure functions on logits, `choose` draws, `key_values` keeps keys and values,
`loop` puts them together, `beam` and `contrastive` are searches, `text` puts a tokenizer around them.
"""
