"""Answers what packed bytes unpack to, for a test that compares the decoder with another one (`tests/fuzz/differential.rs`).

A request: kind, version, transform or codec, parameter (a byte each), raw length and packed length (u32, little-endian), the packed
bytes. Kinds are `file`, `block` with the codec columns, and `stream` in another codec. An answer: 0 refused, 1 unpacked, 2 failed
(a byte), the length (u32), the processor time of this process in nanoseconds (u64), the raw bytes, or why there are none.
"""
import io
import struct
import sys
import time
import traceback

from streampress_unpack import Damaged, unpack
from streampress_unpack.codecs import Packed, decompress
from streampress_unpack.columns import decode_columns

REQUEST, ANSWER = struct.Struct('<cBBBII'), struct.Struct('<BIQ')
LARGEST_BLOCK = 1 << 20


def answer(kind, version, what, parameter, length, packed):
    """The raw bytes."""
    if kind == b'f':
        return b''.join(unpack(io.BytesIO(packed), LARGEST_BLOCK))
    if kind == b'b':
        return decode_columns(what, packed, length, version)
    return decompress(Packed(what, parameter, length, len(packed)), packed, version)


def main():
    while request := sys.stdin.buffer.read(REQUEST.size):
        *fields, size = REQUEST.unpack(request)
        packed = sys.stdin.buffer.read(size)
        try:
            outcome, content = 1, answer(*fields, packed)
        except Damaged as damaged:
            outcome, content = 0, str(damaged).encode()
        except Exception:  # the decoder is to refuse what it cannot read, and not to fail
            outcome, content = 2, traceback.format_exc().encode()
        sys.stdout.buffer.write(ANSWER.pack(outcome, len(content), time.process_time_ns()) + content)
        sys.stdout.buffer.flush()


main()
