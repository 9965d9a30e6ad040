"""From sources of text to batches of windows.

`files` and `gutenberg` read documents, `sources` says which, `splits` puts them into training and validation
streams, `workers` turns those into tokens, `shards` and `cache` keep them on disk, `notes` and `fingerprints`
what is known of the files, `token_files` reads other programs' tokens, `corpus` is all that a run trains on,
`windows` and `order` say in which order, and `datamodule` hands out the batches.
"""
