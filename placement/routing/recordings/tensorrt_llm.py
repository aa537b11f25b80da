"""TensorRT-LLM's expert statistics (EXPERT_STATISTIC_ITER_RANGE): a folder with meta_info.json and rank*.safetensors.

A tensor is named "{iteration}_{layer}". In `rank*.safetensors` it holds [experts] counts; in `rank*_raw.safetensors`
(or `token_selected_experts_rank*`) [tokens, k] ids. The files of all ranks are one recording.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from placement.errors import InputError
from placement.routing.recordings.intake import Intake
from placement.routing.recordings.safetensors_file import SafetensorsFile
from specs.documents import read_text, shown
from specs.fields import MAX_LAYERS

_FORM = "name the folder that TensorRT-LLM wrote (EXPERT_STATISTIC_PATH)"
_RAW = re.compile(r"rank\d+_raw\.safetensors|token_selected_experts_rank\d+\.safetensors")
_COUNTS = re.compile(r"rank\d+\.safetensors")


@dataclass(frozen=True)
class _Rank:
    """One file: the tensor of each (iteration, layer)."""

    source: str
    file: SafetensorsFile
    names: dict[tuple[int, int], str]

    @classmethod
    def of(cls, path: Path) -> _Rank:
        """Opens a file."""
        file, names = SafetensorsFile(path, str(path)), {}
        for name in file.names:
            found = re.fullmatch(r"(\d{1,15})_(\d{1,6})", name)
            if found is None or int(found[2]) >= MAX_LAYERS:
                raise InputError(str(path), shown(name), "is no tensor of an iteration and layer", _FORM)
            names[int(found[1]), int(found[2])] = name
        return cls(str(path), file, names)

    def same_as(self, other: _Rank) -> bool:
        """Whether both hold the same tokens: their first tensors are equal."""
        if list(self.names) != list(other.names) or not self.names:
            return False
        first = next(iter(self.names.values()))
        return np.array_equal(self.file.read(first), other.file.read(first))


def is_folder(path: Path) -> bool:
    """Whether a folder holds such statistics."""
    return any(_RAW.fullmatch(each.name) or _COUNTS.fullmatch(each.name) for each in path.iterdir())


def read(files: Sequence[Path], intake: Intake) -> None:
    """Reads a folder, or the files named.

    Raises:
        InputError: files that are no such statistics.
    """
    found = sorted(each for path in files for each in (path.iterdir() if path.is_dir() else (path,)))
    about = [
        path for path in (*found, *(path.parent / "meta_info.json" for path in found)) if path.name == "meta_info.json"
    ]
    for path in dict.fromkeys(about):
        if path.exists():
            _learn(path, intake)
    raw = [path for path in found if _RAW.fullmatch(path.name)]
    counts = [path for path in found if _COUNTS.fullmatch(path.name) or (not path.name.startswith("cooccurrence") and
              path.suffix == ".safetensors" and path not in raw)]  # fmt: skip
    if raw:
        if counts:
            intake.note("read the ids of the raw files; the others count the same tokens")
        _read_ids(raw, intake)
    elif counts:
        _read_counts(counts, intake)
    else:
        raise InputError(str(files[0]), "", "holds no rank*.safetensors", _FORM)


def _learn(path: Path, intake: Intake) -> None:
    try:
        about = json.loads(read_text(path, str(path)))
    except (ValueError, RecursionError):
        about = None
    if about is None:  # TensorRT-LLM writes null where rank 0 recorded nothing
        return
    if not isinstance(about, dict):
        raise InputError(str(path), "", "is no mapping", _FORM)
    intake.learn(str(path), "num_experts", experts=about.get("num_experts"))
    intake.learn(str(path), "num_experts_per_token", top_k=about.get("num_experts_per_token"))


def _read_counts(files: Sequence[Path], intake: Intake) -> None:
    """One window an iteration, added up over ranks."""
    ranks = [_Rank.of(path) for path in files]
    layers = tuple(sorted({layer for rank in ranks for _, layer in rank.names}))
    if not layers:
        raise InputError(str(files[0]), "", "holds no tensors", _FORM)
    size = sum(path.stat().st_size for path in files)
    iterations = sorted({iteration for rank in ranks for iteration, _ in rank.names})
    for iteration in iterations:
        rows = [np.zeros(0)] * len(layers)
        for rank in ranks:
            for place, layer in enumerate(layers):
                if (name := rank.names.get((iteration, layer))) is not None:
                    found = rank.file.read(name)
                    if found.ndim != 1 or (rows[place].size and rows[place].shape != found.shape):
                        raise InputError(rank.source, name, f"has shape {found.shape}", _FORM)
                    rows[place] = found.astype(np.float64) + (rows[place] if rows[place].size else 0.0)
        width = max(row.size for row in rows)
        if not width or any(row.size not in (0, width) for row in rows):
            raise InputError(str(files[0]), f"iteration {iteration}", "has layers of unlike size", _FORM)
        intake.counts.add(np.stack([row if row.size else np.zeros(width) for row in rows]), layers)
        intake.meter.advance(size // len(iterations))


def _read_ids(files: Sequence[Path], intake: Intake) -> None:
    """The tokens of an iteration on a rank count as a sequence."""
    ranks = [_Rank.of(path) for path in files]
    if len(ranks) > 1 and all(rank.same_as(ranks[0]) for rank in ranks[1:]):
        intake.note(f"all {len(ranks)} ranks hold the same tokens (no attention data parallelism): read one")
        ranks = ranks[:1]
    for rank in ranks:
        for _, group in groupby(sorted(rank.names), key=lambda each: each[0]):
            for key in group:
                name = rank.names[key]
                ids = rank.file.read(name)
                if ids.ndim != 2:
                    raise InputError(rank.source, name, f"has shape {ids.shape}, not [tokens, k]", _FORM)
                intake.tokens.add(key[1], ids)
            intake.tokens.end_sequence()
        intake.meter.advance(sum(path.stat().st_size for path in files) // len(ranks))
    intake.note("the tokens of an iteration on a rank count as one sequence")
