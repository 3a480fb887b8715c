"""The frames of a packed file: file header, blocks, end frame."""
import struct

from .codecs import BZ2, COLUMNS, COMPACT, FILL, LZMA, STORED, decompress
from .columns import decode_columns
from .common import Damaged, Reader, covered
from .hashing import blake3

NEWEST, DEFAULT_LIMIT = 2, 64 << 20
FILE, BLOCK, END, LAST = b'\x89SPK', b'SPKB', b'SPKE', b'SPKX'


class Source:
    """A packed file that is read from front to back."""

    def __init__(self, file):
        self.file, self.place = file, 0

    def take(self, count, what):
        """Exactly `count` bytes."""
        data = self.file.read(count)
        self.place += len(data)
        if len(data) < count:
            raise Damaged(f'the file ends inside {what}', self.place)
        return data


def check_frame(data, what, start):
    """The version at byte 4 must be known, the last 4 bytes be the check of those before."""
    if data[4] != 1:
        raise Damaged(f'version {data[4]} in a file of version 1', start + 4)
    if blake3(data[:-4]).digest()[:4] != data[-4:]:
        raise Damaged(f'{what} does not match its check', start)


def read_block(source, start, number, limit):
    """The raw bytes of a block, and their packed length."""
    header = BLOCK + source.take(36, 'a block header')
    check_frame(header, 'a block header', start)
    transform, codec, parameter, its_number, length, packed, digest = struct.unpack('<5xBBBIII16s4x', header)
    if its_number != number:
        raise Damaged(f'block {its_number} stands where block {number} should be', start + 8)
    if max(length, packed) > limit:
        raise Damaged(f'a block of {length} bytes, packed {packed}; at most {limit} are allowed', start + 12)
    if transform > 3 or (codec == COLUMNS) != (transform > 0):
        raise Damaged(f'unknown transform {transform} or codec {codec} with it', start + 5)
    covered.add(f'transform {transform}')
    payload = source.take(packed, f'block {number}')
    try:
        if codec == COLUMNS:
            raw = decode_columns(transform, payload, length)
        else:
            raw = decompress(codec, parameter, payload, length)
    except Damaged as error:
        raise Damaged(f'block {number}: {error.message}', start + 40) from None
    if blake3(raw).digest()[:16] != digest:
        raise Damaged(f'block {number} does not match its hash', start + 20)
    return raw, packed


def read_end(source, start, blocks, whole):
    """The end frame, which must agree with the blocks."""
    data = END + source.take(60 + 8 * len(blocks), 'the end frame')
    check_frame(data[:-8], 'the end frame', start)
    expected = struct.pack('<4sBxxxIQ32s', END, data[4], len(blocks), sum(raw for raw, _ in blocks), whole)
    expected += b''.join(struct.pack('<II', *block) for block in blocks)
    if data != expected + data[-12:-8] + struct.pack('<I', len(data)) + LAST:
        raise Damaged('the end frame does not agree with the blocks', start)
    if source.file.read(1):
        raise Damaged('something follows the end frame', source.place)


class Header(Reader):
    """A header of version 2, read byte by byte from the source."""

    def __init__(self, source):
        super().__init__(b'', 'a header')
        self.source, self.start = source, source.place

    def fail(self, message):
        raise Damaged(f'a header: {message}', self.start)

    def take(self, count):
        self.data += self.source.take(count, 'a header')
        return super().take(count)

    def check(self, size, start):
        """The next bytes must be those of the hash of all before."""
        if self.take(size) != blake3(self.data[:-size]).digest()[:size]:
            raise Damaged('a header does not match its check', start)


def read_compact_block(source, header, first, limit, number):
    """The raw bytes of a block of version 2."""
    transform, codec, single = first >> 4 & 3, first >> 1 & 7, first >> 6 & 1
    if first < 128 or first & 1 or codec > COMPACT or codec == COLUMNS or (codec == COMPACT) != (transform > 0):
        raise Damaged('neither a block nor the end frame', header.start)
    parameter = header.byte() if codec in (LZMA, FILL) else 0
    length = header.varint(0xffffffff)
    packed = header.varint(0xffffffff) if codec in (LZMA, BZ2, COMPACT) else length * (codec == STORED)
    digest = header.take(16 if single else 8)
    header.check(3, header.start)
    if max(length, packed) > limit:
        raise Damaged(f'a block of {length} bytes, packed {packed}; at most {limit} are allowed', header.start)
    covered.update((f'transform {transform}', 'version 2'))
    start, payload = source.place, source.take(packed, f'block {number}')
    try:
        raw = (decode_columns(transform, payload, length, 2) if transform else
               decompress(codec, parameter, payload, length, 2))
    except Damaged as error:
        raise Damaged(f'block {number}: {error.message}', start) from None
    if blake3(raw).digest()[:len(digest)] != digest:
        raise Damaged(f'block {number} does not match its hash', header.start)
    return raw


def unpack_compact(source, limit):
    """Yield the raw bytes of each block of version 2."""
    whole, blocks, single = blake3(), 0, False
    while not single:
        header = Header(source)
        first = header.byte()
        if first == 64:
            if (header.varint(), header.take(16)) != (blocks, whole.digest()[:16]):
                raise Damaged('the end frame does not agree with the blocks', header.start)
            header.check(4, header.start)
            if header.byte() != header.place:
                raise Damaged('the end frame has another length', header.start)
            break
        raw = read_compact_block(source, header, first, limit, blocks)
        single = first >> 6 & 1
        if single and blocks:
            raise Damaged('a block that is the whole file follows others', header.start)
        blocks += 1
        whole.update(raw)
        yield raw
    if source.file.read(1):
        raise Damaged('something follows the end', source.place)


def unpack(file, limit=DEFAULT_LIMIT):
    """Yield the raw bytes of each block of a packed file; raise Damaged where something is wrong."""
    source, blocks, whole = Source(file), [], blake3()
    first = source.take(5, 'the file header')
    if first[:4] != FILE:
        raise Damaged('this is not a packed file', 0)
    if first[4] == 2:
        yield from unpack_compact(source, limit)
        return
    if first[4] != 1:
        raise Damaged(f'the file has version {first[4]}, this reader knows versions 1 to {NEWEST}', 4)
    header = first + source.take(11, 'the file header')
    if any(header[5:8]):
        raise Damaged('this is not a packed file', 0)
    check_frame(header, 'the file header', 0)
    while True:
        start = source.place
        magic = source.take(4, 'the file, before its end frame')
        if magic == END:
            read_end(source, start, blocks, whole.digest())
            return
        if magic != BLOCK:
            raise Damaged('neither a block nor the end frame', start)
        raw, packed = read_block(source, start, len(blocks), limit)
        blocks.append((len(raw), packed))
        whole.update(raw)
        yield raw
