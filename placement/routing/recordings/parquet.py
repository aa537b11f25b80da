"""Tables in Parquet files; needs pyarrow (an optional part)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from placement.errors import InputError, MissingExtraError
from placement.routing.recordings.intake import Intake
from placement.routing.recordings.table import TableReader
from specs.documents import shown

#: Rows read at once, and most bytes that a row group may unpack to.
_ROWS, _MAX_GROUP = 20_000, 2**30
INSTALL = "pip install 'placement[parquet]'"


def read(files: Sequence[Path], intake: Intake) -> None:
    """Reads files of one recording, one after the other.

    Raises:
        InputError: a broken file, or columns that say neither ids nor counts.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(f"a Parquet file needs pyarrow; install it with: {INSTALL}") from error
    table = TableReader(intake)
    for path in files:
        try:
            file = parquet.ParquetFile(path)
            _check(file.metadata, str(path))
            for batch in file.iter_batches(batch_size=_ROWS):
                names = batch.schema.names
                table.add({name: batch.column(i).to_pylist() for i, name in enumerate(names)}, str(path))
                intake.meter.advance(path.stat().st_size * batch.num_rows // max(1, file.metadata.num_rows))
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
            problem = f"cannot be read ({shown(str(error), 200)})"
            raise InputError(str(path), "", problem, "write the file anew") from error
    table.finish()


def _check(about: Any, source: str) -> None:
    for i in range(about.num_row_groups):
        group = about.row_group(i)
        if group.total_byte_size > _MAX_GROUP or group.num_rows > _MAX_GROUP // 8:
            problem = f"has a row group of {group.num_rows} rows and {group.total_byte_size} bytes"
            raise InputError(source, "", problem, f"write row groups of at most {_MAX_GROUP} bytes")
