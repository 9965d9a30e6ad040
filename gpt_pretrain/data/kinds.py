"""What a file's name says of its content: text and how it is packed, or something else and what to do then.

Names compare in lower case: cameras, Windows and old tapes write them in capitals.
"""

from pathlib import Path, PurePath

PACKED = (".gz", ".zst")
_PLAIN = (".txt", ".md", ".jsonl", ".ndjson")
TEXTS = (*_PLAIN, *(plain + packed for plain in _PLAIN for packed in PACKED), ".parquet")

_OFFICE = "save its text as .txt"
_MARKUP = "write the text in it to a .txt file"
_ARCHIVE = "unpack it, and give what is in it"
_TABLE = (
    "write its rows as .jsonl or .parquet, as in pandas: "
    "read_{}(...).to_json('rows.jsonl', orient='records', lines=True)"
)
_ARRAY = "are they tokens? np.asarray(ids, 'uint16').tofile('tokens.bin'), then data=token_files"

# Suffix to what such a file holds and what to do. Any other, as .log .py .rst .tex, is text if named.
NOT_TEXT: dict[str, tuple[str, str]] = {
    ".bin": ("tokens", "choose data=token_files, or data=mixture for both"),
    ".json": (
        "JSON",
        "one object a line? name it .jsonl; an array of objects? jq -c '.[]' it.json > it.jsonl",
    ),
    ".csv": ("a table", _TABLE.format("csv")),
    ".tsv": ("a table", _TABLE.format("table")),
    ".ipynb": ("a notebook", "jupyter nbconvert --to markdown it.ipynb"),
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xml", ".epub", ".svg"), ("markup", _MARKUP)),
    **dict.fromkeys((".docx", ".doc", ".odt", ".rtf", ".pptx", ".pdf", ".mobi"), ("a document", _OFFICE)),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), ("a table", _TABLE.format("excel"))),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".lz4"), ("an archive", _ARCHIVE)),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".db", ".sqlite"), ("a table", "write .parquet")),
    **dict.fromkeys((".npy", ".npz", ".pt", ".pth", ".pkl", ".safetensors", ".h5"), ("arrays", _ARRAY)),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".mp3", ".wav", ".mp4"), ("no text", "leave it out")),
}

# What a file begins with that is no text, whatever it is called.
_BEGINNINGS = {
    b"\x1f\x8b": "packed with gzip: name it .txt.gz or .jsonl.gz, and it is unpacked as it is read",
    b"\x28\xb5\x2f\xfd": "packed with zstd: name it .txt.zst or .jsonl.zst, and it is unpacked as it is read",
    b"PK\x03\x04": "an archive of zip or an office document: unpack it, or save its text as .txt",
    b"BZh": f"packed with bzip2: {_ARCHIVE}",
    b"\xfd7zXZ": f"packed with xz: {_ARCHIVE}",
    b"%PDF": f"a PDF: {_OFFICE}",
    b"PAR1": "a table: name it .parquet",
    b"\x93NUMPY": f"an array of numpy's: {_ARRAY}",
    b"\x89PNG": "a picture: leave it out",
    b"\xff\xd8\xff": "a picture: leave it out",
}


def kind_of(file: PurePath) -> str:
    """How a file is read: .jsonl, .parquet, or text, which every other name means."""
    name = unpacked_name(file)
    if name.endswith((".jsonl", ".ndjson")):
        return ".jsonl"
    return ".parquet" if name.endswith(".parquet") else "text"


def unpacked_name(file: PurePath) -> str:
    """The name in lower case, without .gz or .zst."""
    return file.name.lower().removesuffix(".gz").removesuffix(".zst")


def is_text(file: PurePath) -> bool:
    """Whether its name is one that a folder of text is searched for."""
    return file.name.lower().endswith(TEXTS)


def why_no_text(file: PurePath) -> str | None:
    """What a file holds and what to do, where its name says that it is no text to train on."""
    packed = file.suffix.lower() in PACKED
    suffix = PurePath(unpacked_name(file)).suffix
    if suffix not in NOT_TEXT and not (packed and suffix == ".parquet"):
        return None
    if packed:
        return f"holds {suffix} packed: unpack it first"
    what, remedy = NOT_TEXT[suffix]
    return f"holds {what}, not text: {remedy}"


def what_begins_with(beginning: bytes) -> str | None:
    """What else than text a file is, by its first bytes, and what to do; None: nothing known."""
    return next((what for magic, what in _BEGINNINGS.items() if beginning.startswith(magic)), None)


def is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def is_backup(path: Path) -> bool:
    """As editors leave them: a.txt~ and #a.txt#."""
    return path.name.endswith("~") or (path.name.startswith("#") and path.name.endswith("#"))
