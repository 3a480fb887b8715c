"""The frames of a packed file (FORMAT.md, "Frames", and "Version 2", "Frames")."""
import struct

from .codecs import COLUMNS, COMPACT, FILL, LZMA, Packed, decompress, read_lengths
from .columns import decode_columns
from .common import Damaged, Reader

try:
    from blake3 import blake3
except ImportError:
    from plain_blake3 import blake3


class Source(Reader):
    def need(self, is_right, message):
        if not is_right:
            raise Damaged(message, self.place)

    def expect(self, data, what):
        self.need(self.take(len(data)) == data, f'{what} is not right')

    def check(self, start, size):
        self.expect(blake3(self.data[start:self.place]).digest()[:size], 'the check of a header')


def full_header(source, blocks, whole):
    """Version 1: transform, packing, hash, whether it is the last block; None after the end."""
    start, magic, version = source.place, source.take(4), source.byte()
    source.need(magic in (b'SPKB', b'SPKE'), 'neither a block nor the end frame')
    source.need(version == 1, f'version {version} in a file of version 1')
    if magic == b'SPKB':
        transform, codec, parameter, number, length, size, digest = struct.unpack('<BBBIII16s', source.take(31))
        source.check(start, 4)
        source.need(number == len(blocks), f'block {number} in place of block {len(blocks)}')
        return transform, Packed(codec, parameter, length, size), digest, False
    sums = struct.pack('<IQ', len(blocks), sum(length for length, _ in blocks))
    source.need(source.take(15)[3:] == sums, 'the number of blocks or bytes is not right')
    source.expect(whole.digest(), 'the hash of the file')
    source.expect(b''.join(struct.pack('<II', *block) for block in blocks), 'the index')
    source.check(start, 4)
    source.expect(struct.pack('<I4s', source.place + 8 - start, b'SPKX'), 'the end')


def compact_header(source, blocks, whole):
    """The same for version 2."""
    start, first = source.place, source.byte()
    if first == 64:
        source.need(source.varint() == len(blocks), 'there are more or fewer blocks')
        source.expect(whole.digest()[:16], 'the hash of the file')
        source.check(start, 4)
        source.expect(bytes([source.place + 1 - start]), 'the end')
        return None
    transform, codec, is_whole = first >> 4 & 3, first >> 1 & 7, first >> 6 & 1
    source.need(first >= 128 and not first & 1, 'neither a block nor the end frame')
    source.need(not is_whole or not blocks, 'a block that is the whole file follows others')
    parameter = source.byte() if codec in (LZMA, FILL) else 0
    packed, digest = read_lengths(codec, parameter, source), source.take(16 if is_whole else 8)
    source.check(start, 3)
    return transform, packed, digest, is_whole


def unpack(file, limit=64 << 20):
    """Yield the raw bytes of each block of a packed file; raise Damaged if something is wrong."""
    source, blocks, whole, is_last = Source(file.read(), 'the file'), [], blake3(), False
    source.need(source.take(4) == b'\x89SPK', 'this is not a packed file')
    version = source.byte()
    source.need(version in (1, 2), f'version {version}; this reader knows versions 1 to 2')
    if version == 1:
        source.expect(bytes(3), 'the file header')
        source.take(4)  # the packer's block size
        source.check(0, 4)
    read_header = (full_header, compact_header)[version - 1]
    while not is_last and (header := read_header(source, blocks, whole)):
        transform, packed, digest, is_last = header
        is_right = 0 < packed.length <= limit and packed.size <= limit
        source.need(is_right, f'a block of {packed.length} bytes, packed {packed.size}; '
                    f'at most {limit} are allowed')
        has_columns = packed.codec == (COLUMNS, COMPACT)[version - 1]
        source.need(transform < 4 and has_columns == (transform > 0), 'unknown transform or codec')
        start, payload = source.place, source.take(packed.size)
        try:
            raw = (decode_columns(transform, payload, packed.length, version) if transform
                   else decompress(packed, payload, version))
        except Damaged as error:
            raise Damaged(f'block {len(blocks)}: {error.message}', start) from None
        source.need(blake3(raw).digest().startswith(digest), f'block {len(blocks)} is damaged')
        blocks.append((packed.length, packed.size))
        whole.update(raw)
        yield raw
    source.need(source.place == len(source.data), 'something follows the end')
