"""The rules for files from elsewhere, under the name that rooms below `runs` know them by."""

from gpt_pretrain.foreign import DEEPEST, SMALL, check_folder, read_bytes, read_json, read_yaml, to_yaml

__all__ = ["DEEPEST", "SMALL", "check_folder", "read_bytes", "read_json", "read_yaml", "to_yaml"]
