"""The ids of keys are those of the library for Rust, byte for byte.

The hash is written down here once more, from the chapter on the format. It is compared with the table there, and with the store.
"""

from __future__ import annotations

import struct
from pathlib import Path

import recstore

MASK = (1 << 64) - 1


def siphash_1_3(k0: int, k1: int, data: bytes) -> int:
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotl(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotl(v[1], 13) ^ v[0]
            v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotl(v[1], 17) ^ v[2]
            v[2] = rotl(v[2], 32)

    whole = len(data) // 8 * 8
    words = [word for (word,) in struct.iter_unpack("<Q", data[:whole])]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v[3] ^= word
        rounds(1)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(3)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def id_of(hash_key: int, name: bytes, key: bytes) -> int:
    k0, k1 = (siphash_1_3(hash_key, half, name) for half in (0, 1))
    return siphash_1_3(k0, k1, key)


def test_the_hash_is_that_of_the_table_in_the_chapter() -> None:
    chapter = (Path(__file__).parents[2] / "src/format/mod.md").read_text()
    rows = [line.split("|")[1:5] for line in chapter.splitlines() if line.startswith("| `0x") and line.count("|") == 5]
    assert len(rows) == 4
    for row in rows:
        hash_key, name, key, expected = (cell.strip().strip("`") for cell in row)
        key = "" if key == "(empty)" else key
        assert id_of(int(hash_key, 16), name.encode(), key.encode()) == int(expected, 16)


def test_the_ids_of_a_store_are_those_of_the_hash(path: str) -> None:
    with recstore.open(path) as store:
        hash_key = None
        superblock = Path(path).read_bytes()[:4096]
        # The key of the hash is one of the words of the superblock.
        words = struct.unpack("<512Q", superblock)
        wanted = store.id_of("user:7")
        hash_key = next(word for word in words if id_of(word, b"main", b"user:7") == wanted)
        for key in ["", "a", "user:7", "ä€🎯", "x" * 100, b"\x00\xff", bytes(range(256)), 7]:
            raw = key.encode() if isinstance(key, str) else key
            if isinstance(raw, bytes):
                assert store.id_of(key) == id_of(hash_key, b"main", raw)
                assert store.space("sessions").id_of(key) == id_of(hash_key, b"sessions", raw)
        assert store.id_of(7) == 7
        assert store.space("sessions").id_of(7) == id_of(hash_key, b"sessions", (7).to_bytes(8, "big"))
