"""From sources of text to batches of windows.

`files` and `gutenberg` read documents, `sources` says which, `workers` turns them into tokens, `shards` and
`cache` keep those on disk, `token_files` reads other programs' tokens, `corpus` splits them, `windows` orders
them and `datamodule` hands them out.
"""
