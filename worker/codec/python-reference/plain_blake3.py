"""BLAKE3 in plain Python, in place of the package `blake3`: plain hashing only.

Many chunks are hashed side by side. One long Python integer holds the same state word of all of
them, each in a lane of 64 bits, so that the carry of a 32-bit sum stays inside its lane.
"""
import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
      0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
CHUNK, BATCH = 1024, 1 << 20  # bytes of a chunk, and of the chunks that are hashed side by side


def to_lanes(words):
    """32-bit words as one integer, a word in each lane."""
    return int.from_bytes(struct.pack(f'<{len(words)}Q', *words), 'little')


def compress(chain, message, counter, length, flags, ones):
    """The compression function in every lane. `ones` has a 1 in each, `counter` chunk numbers."""
    mask = ones * 0xFFFFFFFF
    v = chain + [ones * word for word in IV[:4]]
    v += [counter & mask, counter >> 32 & mask, ones * length, ones * flags]
    for _ in range(7):
        for number, (a, b, c, d) in enumerate(MIXES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            for word, first, second in zip(message[2 * number:], (16, 8), (12, 7)):
                va = va + vb + word & mask
                vd ^= va
                vd = (vd >> first | vd << 32 - first) & mask
                vc = vc + vd & mask
                vb ^= vc
                vb = (vb >> second | vb << 32 - second) & mask
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        message = [message[place] for place in PERMUTATION]
    return [v[place] ^ v[place + 8] for place in range(8)]


def node_values(data, size, numbers, start_flags, end_flags):
    """The 32-byte values of nodes of `size` bytes each; `numbers` are those of their chunks."""
    count, padded = len(numbers), max(-(-size // 64), 1) * 64
    words = struct.unpack(f'<{count * padded // 4}I', data.ljust(count * padded, b'\0'))
    ones, counter = to_lanes([1] * count), to_lanes(numbers)
    chain = [ones * word for word in IV]
    for start in range(0, padded, 64):
        message = [to_lanes(words[start // 4 + place::padded // 4]) for place in range(16)]
        flags = start_flags * (start == 0) | end_flags * (start + 64 == padded)
        chain = compress(chain, message, counter, min(size - start, 64), flags, ones)
    lanes = [struct.unpack(f'<{count}Q', word.to_bytes(8 * count, 'little')) for word in chain]
    return b''.join(struct.pack('<8I', *value) for value in zip(*lanes))


class blake3:  # the name that the package gives it
    """What is needed of the package's interface: the constructor, update() and digest()."""

    def __init__(self, data=b''):
        self.values, self.rest = bytearray(), b''
        self.update(data)

    def update(self, data):
        """Take in more bytes. The last chunk waits: it may be short, and the root."""
        self.rest += data
        whole = max(len(self.rest) - 1, 0) // CHUNK * CHUNK
        for start in range(0, whole, BATCH):
            chunks, first = self.rest[start:min(start + BATCH, whole)], len(self.values) // 32
            numbers = range(first, first + len(chunks) // CHUNK)
            self.values += node_values(chunks, CHUNK, numbers, CHUNK_START, CHUNK_END)
        self.rest = self.rest[whole:]

    def digest(self):
        """The 32 bytes of the hash."""
        end = CHUNK_END | (0 if self.values else ROOT)
        number = len(self.values) // 32
        level = self.values + node_values(self.rest, len(self.rest), [number], CHUNK_START, end)
        while len(level) > 32:  # hash pairs of values; an odd one goes up as it is
            pairs, flags = len(level) // 64, PARENT | ROOT * (len(level) == 64)
            level = node_values(level[:64 * pairs], 64, [0] * pairs, 0, flags) + level[64 * pairs:]
        return bytes(level)
