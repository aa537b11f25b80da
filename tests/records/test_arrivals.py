"""Records of requests: what reads, and every defect as one line that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from placement.errors import InputError
from placement.records import arrivals
from placement.records.arrivals import read_arrivals


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "requests.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_columns_in_any_order_and_times_from_the_first(tmp_path: Path) -> None:
    found = read_arrivals(written(tmp_path, "osl,model,arrival_s,isl\n10,x,5.0,100\n20,y,5.5,200\n\n30,z,7,300\n"))
    np.testing.assert_array_equal(found.arrival_s, [0.0, 0.5, 2.0])
    np.testing.assert_array_equal(found.isl, [100, 200, 300])
    np.testing.assert_array_equal(found.osl, [10, 20, 30])
    assert found.requests_per_s == 1.0
    np.testing.assert_allclose(found.at_rate(4.0).arrival_s, [0.0, 0.125, 0.5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "arrival_s: is not there"),
        ("arrival_s,isl,osl\n", "has no requests"),
        ("time,isl,osl\n0,1,1\n", "the first line names time, isl, osl"),
        ("arrival_s,isl,osl,isl\n0,1,1,1\n", "isl: is there more than once"),
        ("arrival_s,isl,osl\n0,1\n", "line 2: has 2 values"),
        ("arrival_s,isl,osl\n-1,1,1\n", "line 2: arrival_s '-1'"),
        ("arrival_s,isl,osl\nnan,1,1\n", "line 2: arrival_s 'nan'"),
        ("arrival_s,isl,osl\n0,1,1\n1e300,1,1\n", "line 3: arrival_s '1e300'"),
        ("arrival_s,isl,osl\n0,0,1\n", "line 2: isl '0'"),
        ("arrival_s,isl,osl\n0,5,-3\n", "line 2: osl '-3'"),
        ("arrival_s,isl,osl\n0,5,1.5\n", "line 2: osl '1.5'"),
        ("arrival_s,isl,osl\n0,99999999999999999999,1\n", "line 2: isl"),
        ("arrival_s,isl,osl\n2,1,1\n1,1,1\n", "request 2: arrival_s 1 is before the one above, 2; sort"),
        (b"arrival_s,isl,osl\n\xff\xfe,1,1\n", "is not UTF-8"),
        ("arrival_s,isl,osl\n0,\x1b[31m,1\n", r"isl '\x1b[31m'"),
        ('arrival_s,isl,osl\n"' + "9" * 200_000 + '",1,1\n', "is no CSV"),
    ],
)
def test_a_defect_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_arrivals(written(tmp_path, text))
    told = str(caught.value)
    assert words in told.replace("\\\\", "\\")
    assert "requests.csv" in told
    assert "\n" not in told


def test_no_file_a_folder_and_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_arrivals(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_arrivals(tmp_path)
    path = written(tmp_path, "arrival_s,isl,osl\n" + "0,1,1\n" * 4)
    monkeypatch.setattr(arrivals, "MAX_REQUESTS", 3)
    with pytest.raises(InputError, match="has 4 requests; give at most 3"):
        read_arrivals(path)
    monkeypatch.setattr(arrivals, "MAX_BYTES", 30)
    with pytest.raises(InputError, match="is over 30 bytes"):
        read_arrivals(path)
