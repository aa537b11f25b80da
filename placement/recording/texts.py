"""Texts as token sequences of a model: from plain files and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from placement.errors import InputError
from specs.documents import shown

#: No more characters of a file are read for each token that is wanted of it: no script has shorter texts than that.
_CHARS_PER_TOKEN = 16
#: Longest line of a .jsonl file.
_MAX_LINE = 64 * 2**20


@dataclass(frozen=True)
class TextTokens:
    """What is recorded of one file.

    Attributes:
        name: the file's stem. sequences: token ids, in order. full: whether the file had the tokens that were wanted.
    """

    name: str
    sequences: tuple[tuple[int, ...], ...]
    full: bool

    @property
    def tokens(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)


def tokenize_files(paths: Sequence[str | Path], tokenizer: Any, tokens: int, length: int) -> tuple[TextTokens, ...]:
    """The first tokens of every file, equally many of each, cut into sequences.

    Args:
        paths: texts in UTF-8. A .jsonl file has a document a line, an object with the field "text"; any other file is
            one document. tokenizer: of transformers.
        tokens: to record of all files. length: most tokens of a sequence, none of which spans documents.

    Raises:
        InputError: a file can't be read, is no UTF-8 or JSON, or has no text.
    """
    share = tokens // len(paths)
    if share < 1:
        raise InputError("tokens", "", f"{tokens} tokens are fewer than {len(paths)} files", "record more")
    return tuple(_tokenized(Path(path), tokenizer, share, length) for path in paths)


def _tokenized(path: Path, tokenizer: Any, wanted: int, length: int) -> TextTokens:
    sequences: list[tuple[int, ...]] = []
    left = wanted
    for document in _documents(path, wanted * _CHARS_PER_TOKEN):
        ids = tokenizer(document, verbose=False)["input_ids"][:left]
        sequences += [tuple(ids[start : start + length]) for start in range(0, len(ids), length)]
        left -= len(ids)
        if left == 0:
            break
    if not sequences:
        raise InputError(str(path), "", "has no text", "name a file with text in it")
    return TextTokens(shown(path.stem, 200), tuple(sequences), left == 0)


def _documents(path: Path, most: int) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            if path.suffix != ".jsonl":
                yield file.read(most)
                return
            number = 0
            while line := file.readline(_MAX_LINE):
                number += 1
                if line.strip():
                    yield _text_of(line, path, number)
    except UnicodeDecodeError as error:
        raise InputError(str(path), "", f"is no UTF-8 ({error.reason} at byte {error.start})", "convert it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid path"
        raise InputError(str(path), "", f"can't be read: {reason}", "name a text file") from None


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    text = found.get("text") if isinstance(found, dict) else None
    if not isinstance(text, str):
        problem = 'is no JSON object with a field "text"'
        raise InputError(str(path), f"line {number}", problem, "give a document a line, or name the file .txt")
    return text
