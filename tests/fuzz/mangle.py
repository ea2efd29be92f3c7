"""Valid files, damaged in their bytes or in what they say."""

import copy
import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**30,
    10**400, 0.5, 1e-300, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip

NAMES = (
    "", ".", "..", "../x", "/etc/passwd", "//x", "a/../../x", "a\\..\\x", "C:\\x", "x" * 10_000,
    "\x00", "a\x00b", "\n", "\r\n", "\x1b]0;pwn\x07", "\x1b[2J", "\u202egnp.exe", "\ufeff",
    "\ud800", "\udcff", "\U0010ffff", "é", "e\u0301", "猫", "con", "nul.png", ".hidden", "-rf",
    "%s%n", "{0}", "<script>", "a" * 254 + ".png", "Cat", "cat",
)  # fmt: skip

WRONG: tuple[Any, ...] = (
    None, True, False, [], {}, [[]] * 3, [1, -1], ["frozen", "frozen"], {"\x1b[2J": {}}, {"": ""},
    "NaN", "1", "frozen", *NUMBERS, *NAMES,
)  # fmt: skip
"""For any place of a JSON or TOML file."""

DEEP = (b"[" * 100_000, b'{"a":' * 100_000, b'{"seed":' + b"9" * 100_000 + b"}", b"\xff\xfe[]")


class Trap:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


PICKLE = pickle.dumps(Trap())

_EXTREMES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int = 6) -> bytes:
    """The bytes of a file with up to `most` changes: flipped, cut, repeated, moved, extreme."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from((1, 1, 2, 4, 8, 16, 64, 512, 4096)))
        match draw(st.integers(0, 7)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                data[at : at + 1] = bytes(b ^ 1 << draw(st.integers(0, 7)) for b in data[at:][:1])
            case 2:
                size = len(data[at : at + length])
                data[at : at + length] = draw(st.sampled_from(_EXTREMES)) * size
            case 3:
                del data[at : at + length]
            case 4:
                del data[at:]
            case 5:
                data[at:at] = data[at : at + length] * draw(st.sampled_from((1, 2, 50)))
            case 6:
                other = draw(st.integers(0, max(0, len(data) - 1)))
                part = data[other : other + length]
                data[at : at + len(part)] = part
            case _:
                data[at:at] = draw(st.binary(max_size=16))
    return bytes(data)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a value of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    nested = [p for k, v in inner if isinstance(v, dict | list) for p in places(v, (*at, k))]
    return [*((*at, key) for key, _ in _pairs(value)), *nested]


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items() if isinstance(value, dict) else enumerate(value))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A value of JSON with one to three of its parts replaced, removed, added or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        there = places(value)
        if not there:
            break
        *path, last = draw(st.sampled_from(there))
        holder = value
        for step in path:
            holder = holder[step]
        match draw(st.integers(0, 4)):
            case 0 | 1:
                holder[last] = copy.deepcopy(draw(st.sampled_from(WRONG)))
            case 2:
                del holder[last]
            case 3 if isinstance(holder, dict):
                holder[draw(st.sampled_from(NAMES))] = holder[last]
            case 3:
                holder[last:last] = [holder[last]] * draw(st.sampled_from((1, 2, 1000)))
            case _:
                *elsewhere, other = draw(st.sampled_from(there))
                found = value
                for step in elsewhere:
                    found = found[step]
                # A copy: a value that holds itself is no JSON.
                holder[last] = copy.deepcopy(found[other])
    return value


@st.composite
def json_files(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON file that says something else, is damaged, or has no end."""
    match draw(st.integers(0, 9)):
        case 0:
            return draw(st.sampled_from(DEEP))
        case 1 | 2:
            return draw(damaged(content))
        case _:
            value = draw(changed(json.loads(content)))
            text = json.dumps(value, ensure_ascii=draw(st.booleans()))
            return text.encode("utf-8", "surrogatepass")


SHAPES = (
    "()", "(0,)", "(1,)", "(2,)", "(-1,)", "(40, 2)", "(2, 40)", "(40, 2, 1)", "(1000000000000,)",
    "(1180591620717411303424, 2)", "(" + "1," * 40 + ")", "(40,", "(" * 200, "(1e3,)", "(True,)",
    "9" * 5000, "None", "__import__('os').system('touch pwned')", "(40,)",
)  # fmt: skip

KINDS = (
    "'|O'", "'<f4'", "'>f4'", "'<f2'", "'<f8'", "'<f16'", "'<c8'", "'<i8'", "'>i4'", "'|u1'",
    "'|b1'", "'<U0'", "'<U1'", "'>U8'", "'<U100000000'", "'|S8'", "'|V8'", "'<M8[s]'",
    "[('a', '<f4')]", "[]", "[('a', '|O')]", "'<f4', 'descr': '|O'", "lambda: 0", "'\\ud800'",
)  # fmt: skip


@st.composite
def npy_files(draw: st.DrawFn, array: np.ndarray) -> bytes:
    """A file of one array whose header, numbers or both are not what they were."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    match draw(st.integers(0, 4)):
        case 0:
            return buffer.getvalue()
        case 1:
            return draw(damaged(buffer.getvalue()))
        case 2:
            return draw(st.sampled_from((PICKLE, b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00" + PICKLE)))
        case 3:
            values = st.sampled_from((0.0, -1.0, np.nan, np.inf, -np.inf, 1e308, 2.0))
            if array.dtype.kind == "f":
                array = array.copy()
                array.flat[draw(st.integers(0, array.size - 1))] = draw(values)
            kind = draw(st.sampled_from((">f4", "<f2", "<f8", "<i8", ">i8", "|b1", "<U20", "|S20")))
            buffer = io.BytesIO()
            np.save(buffer, array.astype(kind) if array.dtype.kind != "U" else array[::-1])
            return buffer.getvalue()
        case _:
            kind = draw(st.sampled_from((np.lib.format.dtype_to_descr(array.dtype), *KINDS)))
            kind = kind if kind.startswith(("'", "[", "l")) else repr(kind)
            shape = draw(st.sampled_from((str(array.shape), *SHAPES)))
            order = draw(st.sampled_from(("False", "True", "2")))
            header = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
            version = draw(st.sampled_from((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00")))
            width = 2 if version == b"\x01\x00" else 4
            length = draw(st.sampled_from((len(header),) * 4 + (0, 65535)))
            body = draw(st.sampled_from((array.tobytes(), PICKLE, b"")))
            return b"\x93NUMPY" + version + length.to_bytes(width, "little") + header + body


_METHODS = (
    (zipfile.ZIP_STORED,) * 15
    + (zipfile.ZIP_DEFLATED,) * 15
    + (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
)  # fmt: skip


@st.composite
def npz_files(draw: st.DrawFn, arrays: Mapping[str, np.ndarray]) -> bytes:
    """An archive of arrays of which some are something else, or are not there."""
    wrong = draw(st.sets(st.sampled_from(sorted(arrays)), max_size=2))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            if name in wrong and draw(st.integers(0, 5)) == 0:
                continue
            whole = io.BytesIO()
            np.save(whole, array)
            content = draw(npy_files(array)) if name in wrong else whole.getvalue()
            suffix = draw(st.sampled_from((".npy",) * 30 + ("", ".npy/", ".NPY")))
            archive.writestr(name + suffix, content, draw(st.sampled_from(_METHODS)))
    content = buffer.getvalue()
    return draw(damaged(content)) if not wrong or draw(st.integers(0, 2)) == 0 else content
