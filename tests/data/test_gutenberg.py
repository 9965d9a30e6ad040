"""Project Gutenberg's books: its own words go, encodings are repaired, English stays and the rest goes."""

import pytest

from gpt_pretrain.data.gutenberg import decode_book, is_english, strip_matter
from gpt_pretrain.errors import InputError

ENGLISH = "It was the best of times, it was the worst of times, and the man said that he was in the house."
GERMAN = (
    "Es war die beste aller Zeiten, und der Mann sagte, dass er in dem Hause sei, das ihm nicht lieb war."
)
RUSSIAN = "Это было лучшее изо всех времён, это было худшее изо всех времён."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("*** START OF THE PROJECT GUTENBERG EBOOK X ***", "*** END OF THE PROJECT GUTENBERG EBOOK X ***"),
        ("*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "*** END OF THIS PROJECT GUTENBERG EBOOK X ***"),
        (
            "***START OF THE PROJECT GUTENBERG EBOOK A LONG\nTITLE***",
            "***END OF THE PROJECT GUTENBERG EBOOK***",
        ),
        ("*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*", "End of Project Gutenberg's X"),
        ("*** START OF THE PROJECT GUTENBERG EBOOK X ***", "End of the Project Gutenberg EBook of X"),
        ("*** START OF THE PROJECT GUTENBERG EBOOK X ***", ""),
        ("*** START OF PROJECT GUTENBERG EBOOK X ***", "*** END OF PROJECT GUTENBERG EBOOK X ***"),
        (
            "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\nProduced by A. B. and the\nProofreading Team",
            "*** END OF THE PROJECT GUTENBERG EBOOK X ***",
        ),
    ],
)
def test_front_and_back_matter_goes(before, after):
    book = "Chapter 1\n\nIt began.\n\nThe end of it."
    assert strip_matter(f"License\n{before}\n\n{book}\n\n{after}") == book


def test_a_book_without_markers_stays_whole():
    assert strip_matter(f"{ENGLISH}\n") == ENGLISH


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("café\r\n“quoted”".encode(), "café\n“quoted”"),
        ("\ufeffcafé".encode(), "café"),
        ("café “quoted”".encode("cp1252"), "café “quoted”"),
        (b"caf\xe9 \x81", "café \x81"),
        ("café".encode().decode("latin-1").encode(), "café"),
        ("Ã‰ â€œquotedâ€\x9d".encode(), "É “quoted”"),
        (b"\x93quoted\x94 \x81", "“quoted” \x81"),
        ("PÂTÉ Â£".encode(), "PÂTÉ Â£"),
        ("café “quoted”".encode("utf-16"), "café “quoted”"),
    ],
)
def test_encodings_are_repaired(content, text):
    assert decode_book(content) == text


@pytest.mark.parametrize("line", ["\n", "*** START OF THE PROJECT GUTENBERG a\n", "a\n"])
def test_a_book_of_equal_lines_takes_no_quadratic_time(line):
    assert strip_matter(line * 50_000) == (line * 50_000).strip()  # else it would take minutes


def test_english_is_kept_and_other_languages_are_not():
    # The book's recipe has this condition the wrong way round.
    assert is_english(ENGLISH)
    assert not is_english(GERMAN)
    assert not is_english(RUSSIAN)
    assert not is_english("1234 5678")


def test_only_english_books_reach_the_tokens_without_gutenberg_s_words(tmp_path, load, text_of):
    for name, body in (
        ("1.txt", ENGLISH),
        ("2.txt", GERMAN),
        ("3.txt", RUSSIAN),
        ("4.txt", ENGLISH + " Again."),
    ):
        start, end = (f"*** {word} OF THE PROJECT GUTENBERG EBOOK X ***" for word in ("START", "END"))
        (tmp_path / name).write_text(f"Produced by\n{start}\n{body}\n{end}\nLicense")
    corpus = load(tmp_path, source="gutenberg", split="tokens", val_fraction=0.01)
    assert text_of(corpus.train + corpus.val) == f"{ENGLISH}|{ENGLISH} Again."


def test_a_folder_of_books_in_other_languages_says_what_it_lacks(tmp_path, load):
    (tmp_path / "1.txt").write_text(GERMAN)
    with pytest.raises(InputError, match="holds no text in English"):
        load(tmp_path, source="gutenberg")
