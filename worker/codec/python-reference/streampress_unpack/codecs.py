"""The general codecs (FORMAT.md, "Codecs"). The length that must come out is known before."""
import bz2
from collections import namedtuple
import lzma
from pathlib import Path
import struct

from .bzip2 import decode_block
from .common import Damaged, need

STORED, LZMA, BZ2, COLUMNS, FILL, COMPACT = range(6)
WITHOUT_HEADERS = {LZMA: 65536, BZ2: 524288}  # version 2, for at most so many raw bytes
PRIMER = Path(__file__).resolve().parents[2] / 'primer.lzma2'  # a chunk; only version 2 needs it
Packed = namedtuple('Packed', 'codec parameter length size')  # `size` bytes unpack to `length`


def read_lengths(codec, parameter, fields):
    """Version 2: a raw length, and a packed one where it is not known."""
    length = fields.varint()
    size = {STORED: length, FILL: 0}.get(codec)
    return Packed(codec, parameter, length, fields.varint() if size is None else size)


def decompress(packed, data, version=1):
    """The bytes that `data` unpacks to; memory for no more than their length is used."""
    codec, parameter, length, _ = packed
    need(codec in (STORED, LZMA, BZ2, FILL), f'unknown codec {codec}')
    wrong_size, primer = f'codec {codec}: {len(data)} packed bytes for {length}', 0
    if codec in (STORED, FILL):
        need(len(data) == (length if codec == STORED else 0), wrong_size)
        return data if codec == STORED else bytes([parameter]) * length
    if version == 2 and length <= (1 << 21 if parameter == 225 else WITHOUT_HEADERS[codec]):
        if codec == BZ2:
            return decode_block(data, length)
        need(length and len(data) < 65536, wrong_size)
        high, low = divmod(length - 1, 65536)
        header = struct.pack('>BHHBx', 0xe0, low, len(data), parameter)
        if parameter == 225:
            chunk = PRIMER.read_bytes()
            header, parameter = chunk + bytes([0x80 | high]) + header[1:5] + b'\0', chunk[5]
            primer = int.from_bytes(chunk[1:3], 'big') + 1
        data, length = header + data + b'\0', primer + length
    unpacker = bz2.BZ2Decompressor()
    if codec == LZMA:
        lc, lp, pb = parameter % 9, parameter // 9 % 5, parameter // 45
        need(lc + lp <= 4 and pb <= 4, f'LZMA parameter {parameter} is not allowed')
        size = 1 << (max(length, 4096) - 1).bit_length()
        chain = {'id': lzma.FILTER_LZMA2, 'dict_size': size, 'lc': lc, 'lp': lp, 'pb': pb}
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])
    try:
        out = unpacker.decompress(data, length + 1)
        if len(out) == length and not unpacker.eof:
            out += unpacker.decompress(b'', 1)  # the mark of the end may be unread still
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise Damaged(f'codec {codec}: {error}') from None
    need(len(out) == length and unpacker.eof and not unpacker.unused_data, wrong_size)
    return out[primer:]
