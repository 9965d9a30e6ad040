"""Choosing tokens: `filters` are pure functions on logits, `cache` keeps keys and values, `generate` is the
loop.
"""
