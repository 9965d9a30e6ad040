"""From sources of text to batches of windows: `sources`, `corpus`, `windows`, `datamodule`, in this order."""
