"""Broken and hostile files by the thousand: each sample cut off, overwritten, and edited where checksums don't tell."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import zipfile
from collections.abc import Callable

_NUMBERS = (
    "-1", "0", "65535", "99999999999999999999999", "1e308", "5e-324", "-1e-9", "NaN", "Infinity", "2.5", '""', "null",
    "[]", "{}", "true", "[[[[[[]]]]]]", "[" * 3000,
)  # fmt: skip


def hostile(name: str, data: bytes, seed: int) -> bytes:
    """The bytes of a sample, broken in one of the ways that its form can be; by `seed` alone."""
    rng = random.Random(f"{name} {seed}")
    ways: list[Callable[[bytes, random.Random], bytes]] = [_cut, _flipped, _flipped, _inserted]
    if data.startswith(b"PK"):
        ways += [_member, _member, _member, _renamed]
    elif data[8:9] == b"{":
        ways += [_header, _header, _header]
    elif b"\0" not in data[:200]:
        ways += [_text, _text, _text]
    return rng.choice(ways)(data, rng)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(len(out))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(out)


def _inserted(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.randint(1, 12)) + data[place + rng.choice((0, 0, 5)) :]


def _packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _member(data: bytes, rng: random.Random) -> bytes:
    """A member broken, and its checksum made good again: most often the one that says what the others are."""
    members = _members(data)
    name = rng.choice([each for each in members if each.endswith(("data.pkl", ".npy"))] or list(members))
    members[name] = rng.choice((_cut, _flipped, _flipped, _inserted))(members[name][: rng.choice((200, 10**9))], rng)
    return _packed(members)


def _renamed(data: bytes, rng: random.Random) -> bytes:
    members = _members(data)
    name = rng.choice(list(members))
    content = members.pop(name)
    if rng.random() < 0.5:
        members[name[:-1] + rng.choice("xyz/.")] = content
    return _packed(members)


def _header(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    text = _text(data[8 : 8 + size], rng)
    said = rng.choice((len(text), len(text), len(text), 2**62, 0, len(text) + 1))
    return said.to_bytes(8, "little") + text + data[8 + size :]


def _text(data: bytes, rng: random.Random) -> bytes:
    """A number, a string or a mark replaced."""
    text = data.decode("utf-8", "replace")
    places = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"]{0,40}\"|[,:;\[\]{}\n]", text))
    for _ in range(rng.randint(1, 3)):
        found = rng.choice(places)
        new = (
            rng.choice(_NUMBERS)
            if rng.random() < 0.7
            else rng.choice((",", "\n", '"', "é", "\x00", "layer", "topk_ids"))
        )
        text = text[: found.start()] + new + text[found.end() :]
        places = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"]{0,40}\"|[,:;\[\]{}\n]", text[:20000])) or places
    return text.encode()


def crafted() -> dict[str, bytes]:
    """Files that claim, or unpack to, far more than they have."""
    few = {"dump/byteorder": b"little", "dump/version": b"3\n"}
    storage = b"(X\x07\0\0\0storagectorch\nLongStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ"

    def tensor(shape: bytes, stride: bytes) -> bytes:
        return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + stride + b"\x89NtR."

    pickles = {
        "dicts": b"\x80\x02" + b"}" * 10**7 + b".",
        "marks": b"\x80\x02" + b"(" * 10**7 + b".",
        "text": b"\x80\x02X\xff\xff\xff\xff" + b"a" * 1000 + b".",
        "memo": b"\x80\x02N" + b"".join(b"r" + i.to_bytes(4, "little") for i in range(10**6)) + b".",
        "call": b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.",
        "builtin": b"\x80\x02cbuiltins\neval\nX\x02\0\0\0id\x85R.",
        "getattr": b"\x80\x02ctorch\n__init__\n)R.",
        "huge tensor": tensor(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"K\x01K\x01\x86"),
        "no strides": tensor(b"J\xff\xff\xff\x7fK\x08\x86", b"K\0K\0\x86"),
        "itself": b"\x80\x02}q\0X\x01\0\0\0ah\0s.",
    }
    found = {f"pickle {name}": _packed({**few, "dump/data.pkl": text, "dump/data/0": bytes(128)})
             for name, text in pickles.items()}  # fmt: skip
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dump/data.pkl", b"\x80\x02" + b"N0" * 10**8)
    found["zip bomb"] = bomb.getvalue()
    names = io.BytesIO()
    with zipfile.ZipFile(names, "w") as archive:
        archive.writestr("topk_ids.npy", b"\x93NUMPY\x01\0" + b"\xff" * 80)
    found["npy header"] = names.getvalue()
    found["json depth"] = b'{"routed_experts": ' + b"[" * 10**6
    found["json width"] = b"[" + b"[]," * 10**7 + b"[]]"
    found["json line"] = b"{" + b" " * 10**7
    found["csv line"] = b"layer,expert,count\n" + b"1" * 10**7
    found["csv quotes"] = b'layer,expert,count\n"' + b"1,\n" * 10**6
    found["csv cells"] = b"layer,expert,count\n2047,65535,1\n" * 2
    found["csv columns"] = b",".join(b"c%d" % i for i in range(10**5)) + b"\n" + b",".join([b"1"] * 10**5)
    found["safetensors header"] = (2**25).to_bytes(8, "little") + b"{" + b'"a":{},' * 10**6
    entry = {"dtype": "I64", "shape": [2**31, 2**31], "data_offsets": [0, 2**65]}
    text = json.dumps({"5_1": entry}).encode()
    found["safetensors sizes"] = len(text).to_bytes(8, "little") + text
    text = json.dumps({"5_1": {**entry, "shape": [-1, -8], "data_offsets": [0, 64]}}).encode()
    found["safetensors negative"] = len(text).to_bytes(8, "little") + text + bytes(64)
    header = str({"descr": "|O", "fortran_order": False, "shape": (10**9, 9, 9)}).ljust(117).encode() + b"\n"
    text = base64.b64encode(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header).decode()
    found["base64 npy"] = json.dumps({"routed_experts": text}).encode()
    return found
