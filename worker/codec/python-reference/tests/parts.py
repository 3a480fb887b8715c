"""Writes inputs of `tests/fuzz/differential.rs`: python3 -m tests.parts FOLDER SEED…

`blocks` gets the blocks of packed files, as version, transform and raw length, the plan, and the streams, which are not packed, so
that changes of them reach the decoders: all streams of version 1, the shared groups of version 2. `streams` gets what the
codecs packed: version, codec, raw length and parameter, and the packed bytes. What has nothing new is left out.
STREAMPRESS_PACKER is set as for the tests.
"""
from pathlib import Path
import struct
import sys
import unittest
from unittest import mock

from streampress_unpack import container, streams
from streampress_unpack.codecs import decompress
from streampress_unpack.columns import compact_directory, decode_columns, full_directory
from tests import test_unpack
from tests.generate import generate

SEPARATOR = b'\xff\xfe\xff\xfe'
MOST_BYTES = 3000  # the test is quicker with small ones


def parts(transform, payload, length, version=1):
    """The parts of a block."""
    taken, take = [], streams.Streams.take

    def noted(self, kind, read):
        def read_noted(stream):
            start = stream.place
            content = read(stream)
            taken.append((kind, stream.data[start:stream.place]))
            return content
        return take(self, kind, read_noted)

    with mock.patch.object(streams.Streams, 'take', noted):
        decode_columns(transform, payload, length, version)
    plan, _ = (full_directory, compact_directory)[version - 1](payload, 4 * length + 65536)
    groups = [data for _, data in taken]
    if version == 2:
        groups = [b''.join(data for its, data in taken if its == kind) for kind in streams.KINDS]
    return [struct.pack('<BBI', version, transform, length), plan.data, *groups]


def main(folder, *seeds):
    known = set()

    def keep(kind, name, what, data):
        if what - known and len(data) <= MOST_BYTES:
            known.update(what)
            Path(folder, kind, name).write_bytes(data)

    def decompress_noted(packed, data, version=1):
        codec, parameter, length, _ = packed
        head = struct.pack('<BBI', version, codec, length)[:5] + bytes([parameter])
        what = {(version, codec, parameter, length > 65536)} if data else set()
        keep('streams', f'{codec}.{parameter}.{len(known)}', what, head + SEPARATOR + data)
        return decompress(packed, data, version)

    for seed in map(int, seeds):
        for version in (1, 2):
            blocks, test = [], unittest.TestCase()
            with (mock.patch.object(container, 'decode_columns', lambda *it: blocks.append(it) or decode_columns(*it)),
                  mock.patch.object(container, 'decompress', decompress_noted),
                  mock.patch.object(streams, 'decompress', decompress_noted)):
                test_unpack.watch(test)
                test_unpack.unpack_bytes(test_unpack.pack(generate(seed), 'max', '4Mi', version))
            what = {(version, met) for met in test_unpack.covered}
            test.doCleanups()
            if len(blocks) == 1:
                keep('blocks', f'{seed}.{version}', what, SEPARATOR.join(parts(*blocks[0])))


if __name__ == '__main__':
    main(*sys.argv[1:])
