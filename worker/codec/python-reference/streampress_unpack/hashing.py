"""BLAKE3 (plain hashing only): the package `blake3` if it is installed, else plain Python.

The plain version hashes many chunks side by side. One long Python integer holds the same state word of
all of them, each in a lane of 64 bits, so that the carry of a 32-bit sum stays inside its lane.
"""
import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
CHUNK, LANES = 1024, 1024


def to_lanes(words):
    """32-bit words as one integer, a word in each lane."""
    return int.from_bytes(struct.pack(f'<{len(words)}Q', *words), 'little')


def from_lanes(state, count):
    """The 32-byte values that eight state words hold, one value for each of `count` lanes."""
    words = [struct.unpack(f'<{count}Q', word.to_bytes(8 * count, 'little')) for word in state]
    return b''.join(struct.pack('<8I', *value) for value in zip(*words))


def compress(chain, message, counter, length, flags, ones):
    """The compression function in every lane; `ones` has a 1 in each lane, `counter` its chunk numbers."""
    mask = ones * 0xFFFFFFFF
    v = chain + [ones * word for word in IV[:4]] + [counter & mask, counter >> 32 & mask, ones * length, ones * flags]
    for _ in range(7):
        for number, (a, b, c, d) in enumerate(MIXES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            for word, first, second in ((message[2 * number], 16, 12), (message[2 * number + 1], 8, 7)):
                va = va + vb + word & mask
                vd ^= va
                vd = (vd >> first | vd << 32 - first) & mask
                vc = vc + vd & mask
                vb ^= vc
                vb = (vb >> second | vb << 32 - second) & mask
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        message = [message[place] for place in PERMUTATION]
    return [v[place] ^ v[place + 8] for place in range(8)]


def chunk_values(data, first, root=0):
    """The chaining values of whole chunks from number `first` on, or of a single one that may be short."""
    count = max(len(data) // CHUNK, 1)
    size, words = len(data) // count, struct.unpack(f'<{CHUNK // 4 * count}I', data.ljust(CHUNK * count, b'\0'))
    ones, counter = to_lanes([1] * count), to_lanes(range(first, first + count))
    chain = [ones * word for word in IV]
    for start in range(0, max(size, 1), 64):
        message = [to_lanes(words[start // 4 + place::CHUNK // 4]) for place in range(16)]
        flags = CHUNK_START * (start == 0) | (CHUNK_END | root) * (start + 64 >= size)
        chain = compress(chain, message, counter, min(size - start, 64), flags, ones)
    return from_lanes(chain, count)


class PlainBlake3:
    """What is needed of the package's interface: the constructor, update() and digest()."""

    def __init__(self, data=b''):
        self.values, self.chunks, self.rest = [], 0, b''
        self.update(data)

    def update(self, data):
        """Take in more bytes."""
        data, place = self.rest + data, 0
        while len(data) - place > CHUNK:  # the last chunk waits: it may be the root
            count = min(LANES, (len(data) - place - 1) // CHUNK)
            self.values.append(chunk_values(data[place:place + count * CHUNK], self.chunks))
            self.chunks += count
            place += count * CHUNK
        self.rest = data[place:]

    def digest(self):
        """The 32 bytes of the hash."""
        level = b''.join(self.values) + chunk_values(self.rest, self.chunks, 0 if self.chunks else ROOT)
        while len(level) > 32:  # hash pairs of values; an odd one goes up as it is
            pairs = len(level) // 64
            ones, words = to_lanes([1] * pairs), struct.unpack_from(f'<{16 * pairs}I', level)
            message = [to_lanes(words[place::16]) for place in range(16)]
            flags = PARENT | ROOT * (len(level) == 64)
            level = from_lanes(compress([ones * word for word in IV], message, 0, 64, flags, ones), pairs) \
                + level[64 * pairs:]
        return level


try:
    from blake3 import blake3
except ImportError:
    blake3 = PlainBlake3
