"""The general codecs: stored, LZMA, BZ2, fill. The length that must come out is always known before."""
import bz2
import lzma
import struct

from .bzip2 import decode_block
from .common import Damaged, covered

STORED, LZMA, BZ2, COLUMNS, FILL, COMPACT = range(6)
NAMES = ('stored', 'LZMA', 'BZ2', 'columns', 'fill', 'compact columns')
SHORT_LZMA, SHORT_BZ2 = 65536, 524288  # version 2 writes no headers for at most so many raw bytes


def decompress(codec, parameter, data, length, version=1):
    """The `length` bytes that `data` unpacks to; memory for no more than that is used."""
    if version == 2 and codec == BZ2 and length <= SHORT_BZ2:
        covered.add('codec BZ2, one block')
        return decode_block(data, length)
    if version == 2 and codec == LZMA and length <= SHORT_LZMA:
        if not 0 < length or len(data) > 65535:
            raise Damaged(f'LZMA: {len(data)} packed bytes for {length}')
        covered.add('codec LZMA, one chunk')
        data = struct.pack('>BHHBx', 0xe0, length - 1, len(data), parameter) + data + b'\0'
    if codec not in (STORED, LZMA, BZ2, FILL):
        raise Damaged(f'unknown codec {codec}')
    covered.add(f'codec {NAMES[codec]}')
    if codec in (STORED, BZ2) and parameter:
        raise Damaged(f'codec {NAMES[codec]} has parameter {parameter}')
    if codec in (STORED, FILL):
        if len(data) != (codec == STORED) * length:
            raise Damaged(f'codec {NAMES[codec]}: {len(data)} packed bytes for {length}')
        return data or bytes([parameter]) * length
    if codec == BZ2:
        unpacker = bz2.BZ2Decompressor()
    else:
        lc, lp, pb = parameter % 9, parameter // 9 % 5, parameter // 45
        if pb > 4 or lc + lp > 4:
            raise Damaged(f'LZMA parameter {parameter} is not allowed')
        chain = {'id': lzma.FILTER_LZMA2, 'dict_size': 1 << (max(length, 4096) - 1).bit_length()}
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain | {'lc': lc, 'lp': lp, 'pb': pb}])
    try:
        out = unpacker.decompress(data, length + 1)
        if len(out) == length and not unpacker.eof:
            out += unpacker.decompress(b'', 1)  # the mark of the end may be unread still
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise Damaged(f'{NAMES[codec]}: {error}') from None
    if len(out) != length or not unpacker.eof or unpacker.unused_data:
        raise Damaged(f'{NAMES[codec]}: not exactly one stream of {length} bytes')
    return out
