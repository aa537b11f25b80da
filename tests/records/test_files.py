"""Files are written whole or not at all, and nothing stays beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from placement.errors import InputError
from placement.records.files import check_writable, replace_file, write_text

ROOT = Path(__file__).resolve().parents[2]
WRITERS = {
    "write_text": lambda path: write_text(path, "new", "--out"),
    "check_writable": lambda path: check_writable(path, "--out"),
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.json"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_text(path, "new", "--out")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"kept.json"}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_killed_run_left_is_removed_and_what_a_living_one_writes_is_not(writer: str, tmp_path: Path) -> None:
    target = tmp_path / "plan [1].json"
    target.write_text("old")
    others = {".plan [1].json.tmp", ".plan [1].json.0123456789ab.tmp.old", ".plan 1.json.0123456789ab.tmp"}
    for name in others:
        (tmp_path / name).touch()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom placement.records.files import replace_file\n"
        "def fill(file):\n    file.write(b'half')\n    file.flush()\n    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "replace_file(Path(sys.argv[1]), fill)"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert running.stdout is not None
    running.stdout.readline()
    try:
        (half,) = names(tmp_path) - others - {target.name}
        WRITERS[writer](target)
        assert names(tmp_path) == others | {target.name, half}
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    assert (tmp_path / half).read_text() == "half"
    WRITERS[writer](target)
    assert names(tmp_path) == others | {target.name}


def test_many_writers_at_once(tmp_path: Path) -> None:
    """A file that is new and not yet locked is taken for a left one; its writer then begins anew."""
    target = tmp_path / "a"
    errors = []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                write_text(target, str(number) * 1000, "--out")
        except InputError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert names(tmp_path) == {"a"}
    assert target.read_text() in {str(number) * 1000 for number in range(4)}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    target.chmod(0o640)

    def fails(_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_file(target, fails)
    assert (names(tmp_path), target.read_text()) == ({"a"}, "old")
    write_text(target, "new", "--out")
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o640)


@pytest.mark.parametrize("name", ["x" * 255, "\u4e2d" * 80, "\U0001f600" * 60])
def test_a_name_as_long_as_may_be(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "new", "--out")
    assert names(tmp_path) == {name}
