"""Tests of the reference decoder: python3 -m unittest, in the folder above.

STREAMPRESS_PACKER names a program that is called as `PACKER pack EFFORT BLOCKBYTES IN OUT`; without it the
tests that pack are skipped. STREAMPRESS_SAMPLES is the number of generated files (1000), STREAMPRESS_SEED the
first seed (0), STREAMPRESS_GOLDEN the folder of the golden files.
"""
from datetime import datetime, timedelta
import io
import os
from pathlib import Path
import random
import struct
import subprocess
import sys
import tempfile
import unittest

from streampress_unpack import Damaged, covered, unpack
from streampress_unpack.codecs import decompress
from streampress_unpack.columns import Listed, Table, decode_columns
from streampress_unpack.common import Budget, Reader
from streampress_unpack.hashing import PlainBlake3
from streampress_unpack.integers import read_integers
from tests.generate import generate

HERE = Path(__file__).resolve().parent
PACKER = os.environ.get('STREAMPRESS_PACKER')
SAMPLES = int(os.environ.get('STREAMPRESS_SAMPLES', 1000))
SEED = int(os.environ.get('STREAMPRESS_SEED', 0))
GOLDEN = sorted(Path(os.environ.get('STREAMPRESS_GOLDEN', HERE.parents[1] / 'testdata/hybrid')).glob('*.spk'))
FIRST_VERSION = [path for path in GOLDEN if path.read_bytes()[4] == 1]
EXPECTED = {f'tag {tag}' for tag in range(14)} | {f'prediction {kind}' for kind in range(8)} | {
    f'prediction {kind} from the next value' for kind in (3, 5, 6)} | {f'hex flags {flags}' for flags in range(8)} | {
    f'times: piece {kind}' for kind in "YmdHMSfba'"} | {f'copied, mark {mark}' for mark in range(4)} | {
    f'shape {kind}' for kind in 'OTLVM'} | {f'codec {name}' for name in ('stored', 'LZMA', 'BZ2', 'fill')} | {
    f'transform {transform}' for transform in range(4)} | {
    f'numbers: print 0, style {style}, width 0' for style in range(4)} | {
    'numbers: print 0, style 0, width > 0', 'numbers: print 1, style 3, width 0', 'numbers: print 2, style 3, width 0',
    'dictionary, one byte', 'dictionary, two bytes', 'text with line ends', 'text with lengths',
    'templates with border 0', 'templates with border 1'} | {
    f'integers: {layout}, less the smallest' for layout in ('planes', 'buckets', 'digits', 'groups')} | {
    f'integers: {layout}, zigzag' for layout in ('planes', 'rows', 'buckets', 'groups')}


ODD_NUMBERS = (
    '0 -5 00 -0 0123 +5 5. .5 5.0 1e3 1E3 1e 1_0 1.5 nan NaN inf -inf Infinity INF - . "77" "5 5" 00.50 -00.25 0.005 '
    '-0.005 1.005 2.675 9223372036854775807 -9223372036854775807 9223372036854775808 -9223372036854775808 1e17 9.3e16 '
    '-9.3e16 1e18 -1e18 1e400 1e-400 999999999999999999 1000000000000000000 0000000000000000009 000000000000000009 '
    '92233720368547758.07 92233720368547758.08 -92233720368547758.08 9.111111111111111111 10.111111111111111111 '
    '99999999999999999999999999 0x10 5f 1d5 5.555 5.550 000500 0000500').split() + ['', ' 5', '5 ', '5\t']
ODD_TIMES = (
    '2024-02-30 10:00:00|2024-13-01 10:00:00|2024-00-01 10:00:00|2024-01-00 10:00:00|2024-01-01 24:00:00|'
    '2024-01-01 99:99:99|2024-01-99 23:59:60|0000-01-01 00:00:00|0000-02-29 00:00:00|0001-01-01 00:00:00|'
    '9999-12-32 23:59:59|2024-01-01 10:00:0|2024-01-01T10:00:00|"2024-01-01 10:00:00"|1900-02-29 00:00:00||24:00:00|'
    '99:99:99|23:59:60|"12:00:00"|12:00|Tue Jan 01 10:00:00 2024|mon Jan 01 10:00:00 2024|Mon jan 01 10:00:00 2024|'
    'xxx Feb 30 10:00:00 2024|Mon Foo 01 10:00:00 2024|2024-01-01T10:00:00.5Z|2024-01-99T99:00:00.123456Z').split('|')


def unpack_bytes(packed, limit=1 << 24):
    """What a packed file holds."""
    return b''.join(unpack(io.BytesIO(packed), limit))


def raw_file(path):
    """The raw file of a golden file, NAME.spk or NAME.v2.spk."""
    return path.with_name(path.name.removesuffix('.spk').removesuffix('.v2'))


def pack(data, effort, block):
    """Pack with the program."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, 'in'), os.path.join(folder, 'out')
        Path(source).write_bytes(data)
        subprocess.run([PACKER, 'pack', effort, str(block), source, target], check=True, capture_output=True)
        return Path(target).read_bytes()


def split(packed):
    """The header and the payload of each block, found through the end frame's index."""
    size, magic = struct.unpack('<I4s', packed[-8:])
    index = packed[-size:]
    count, place, out = struct.unpack('<I', index[8:12])[0], 16, []
    assert magic == b'SPKX' and index[:4] == b'SPKE'
    for _, length in struct.iter_unpack('<II', index[52:52 + 8 * count]):
        out.append((packed[place:place + 40], packed[place + 40:place + 40 + length]))
        place += 40 + length
    return out


def varint(number):
    """A number as LEB128."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


class Golden(unittest.TestCase):
    """The golden files, whole and damaged."""

    def test_files(self):
        self.assertTrue(GOLDEN)
        for path in GOLDEN:
            self.assertEqual(unpack_bytes(path.read_bytes()), raw_file(path).read_bytes(), path.name)
        self.assertEqual({path.read_bytes()[4] for path in GOLDEN}, {1, 2})

    def test_index_and_independent_blocks(self):
        for path in FIRST_VERSION:
            blocks = split(path.read_bytes())
            raw = [decode_columns(h[5], p, *struct.unpack('<I', h[12:16])) if h[5] else
                   decompress(h[6], h[7], p, *struct.unpack('<I', h[12:16])) for h, p in reversed(blocks)]
            self.assertEqual(b''.join(reversed(raw)), raw_file(path).read_bytes())

    def test_command(self):
        with tempfile.TemporaryDirectory() as folder:
            out, bad = Path(folder, 'out'), Path(folder, 'bad.spk')
            command = [sys.executable, '-m', 'streampress_unpack']
            subprocess.run([*command, GOLDEN[0], '-o', out], check=True, cwd=HERE.parent)
            self.assertEqual(out.read_bytes(), raw_file(GOLDEN[0]).read_bytes())
            bad.write_bytes(GOLDEN[0].read_bytes()[:-70])
            command += [bad, '-o', out.with_name('no')]
            done = subprocess.run(command, cwd=HERE.parent, capture_output=True, check=False)
            self.assertEqual((done.returncode, sorted(os.listdir(folder))), (1, ['bad.spk', 'out']))
            self.assertIn(b'offset ', done.stderr)
            self.assertNotIn(b'Traceback', done.stderr)

    def test_damaged(self):
        r = random.Random(1)
        for path in GOLDEN:
            packed = path.read_bytes()
            for place in r.sample(range(len(packed)), 60):
                flipped = bytearray(packed)
                flipped[place] ^= 1 << r.randrange(8)
                for data in (packed[:place], bytes(flipped), packed + packed[:place + 1],
                             packed[:place] + packed[place + 1:]):
                    try:
                        # Version 2: a bit that only completes a byte has no meaning.
                        self.assertEqual((packed[4], unpack_bytes(data)), (2, raw_file(path).read_bytes()))
                    except Damaged as damaged:
                        self.assertLessEqual(damaged.offset, len(data))

    def test_newer_version(self):
        for place, version, expected in ((4, 3, 'version 3.*versions 1 to 2'), (20, 2, 'version 2.*version 1')):
            data = bytearray(FIRST_VERSION[0].read_bytes())
            data[place] = version
            with self.assertRaisesRegex(Damaged, expected):
                unpack_bytes(bytes(data))

    def test_limit(self):
        with self.assertRaisesRegex(Damaged, 'at most 1000 are allowed'):
            unpack_bytes(GOLDEN[0].read_bytes(), 1000)

    def test_hash(self):
        """Hashes from the test vectors of BLAKE3: bytes 0, 1, …, 250, 0, 1, … of several lengths."""
        for length, start in ((0, 'af1349b9f5f9a1a6'), (1, '2d3adedff11b61f1'), (1024, '42214739f095a406'),
                              (1025, 'd00278ae47eb27b3'), (2049, '5f4d72f40d7a5f82'), (102400, 'bc3e3d41a1146b06')):
            data, state = bytes(i % 251 for i in range(length)), PlainBlake3()
            for place in range(0, length, 777):
                state.update(data[place:place + 777])
            self.assertEqual(state.digest().hex()[:16], start, length)


class Layouts(unittest.TestCase):
    """Integers by hand, also as the packer does not write them."""

    def test_layouts(self):
        for plan, streams, expected in (
                ([1, 10, 1, 1], [b'\0\3'], [5, 8]),  # rows, less the smallest, 5
                ([0, 0, 2], [b'\1\0', b'\0\5'], [128, -3]),  # planes, zigzag
                ([0, 3, 10], [bytes([12 << 1])], [-1, 1]),  # digits, zigzag, base 10: 12 in 7 bits
                ([1, 1, 4, 3, 5], [bytes([2 * 81 + 27])], [1, 0]),  # groups, less the smallest, -1
                ([0, 2, 0], [b'\1\6', bytes([0b11010000])], [-1, 29])):  # buckets: 1, and 32 + 0b11010
            table = Table(Reader(bytes(plan), 'plan'), Listed(streams), Budget(100))
            self.assertEqual(read_integers(table, 2), expected)
            table.plan.end()


class Crafted(unittest.TestCase):
    """Files whose checks are right but whose plans are not: an error or some bytes, but nothing else."""

    def try_plans(self, packed, r, times):
        """Change bytes of a block's directory and unpack it."""
        for header, payload in split(packed):
            length = struct.unpack('<I', header[12:16])[0]
            if not header[5]:
                continue
            outer = Reader(payload, 'payload')
            codec, parameter, size = outer.byte(), outer.byte(), outer.varint()
            directory = decompress(codec, parameter, outer.string(), size)
            for _ in range(times):
                new = bytearray(directory)
                for _ in range(r.choice((1, 1, 2, 5))):
                    place = r.randrange(len(new))
                    new[place:place + r.choice((0, 1, 1, 1, 2))] = r.choice((
                        bytes([r.randrange(256)]), bytes([r.randrange(16)]), b'\xff' * r.randrange(12), b'\xff\xff\x7f',
                        bytes([new[place] ^ 1 << r.randrange(8)])))
                try:
                    decode_columns(header[5], bytes(2) + varint(len(new)) * 2 + new + payload[outer.place:], length)
                except Damaged:
                    pass

    def test_golden(self):
        for path in FIRST_VERSION:
            self.try_plans(path.read_bytes(), random.Random(path.name), 300)

    @unittest.skipUnless(PACKER, 'STREAMPRESS_PACKER is not set')
    def test_generated(self):
        for seed in range(SEED, SEED + SAMPLES, 10):
            self.try_plans(pack(generate(seed), 'max', 1 << 22), random.Random(seed), 30)


@unittest.skipUnless(PACKER, 'STREAMPRESS_PACKER is not set')
class Generated(unittest.TestCase):
    """Generated files, packed and unpacked."""

    def test_samples(self):
        covered.clear()
        for seed in range(SEED, SEED + SAMPLES):
            data, r = generate(seed), random.Random(seed)
            for effort in r.sample(('fast', 'balanced', 'max', 'max'), 2):
                block = r.choice((4096, 65536, 1 << 22, 1 << 22))
                with self.subTest(seed=seed, effort=effort, block=block):
                    self.assertEqual(unpack_bytes(pack(data, effort, block)), data)
        if SAMPLES >= 1000:  # fewer do not meet every coding
            self.assertEqual(EXPECTED - covered, set(), 'not all codings were met')

    def test_numbers_of_other_columns(self):
        """Odd values in a column that the numbers of another one are predicted from."""
        day = datetime(2000, 1, 1)
        forms = ['%Y-%m-%d %H:%M:%S', '%a %b %d %H:%M:%S %Y', '%H:%M:%S', '%Y-%m-%dT%H:%M:%S.%fZ']
        makers = [(lambda n: str(n), ODD_NUMBERS), (lambda n: f'{n / 100:.2f}', ODD_NUMBERS),
                  (lambda n: f'0.{n * 999999937 % 10 ** 18:018}', ODD_NUMBERS), (lambda n: f'{n % 10 ** 6:06}', ODD_NUMBERS),
                  (lambda n: '%.17g' % (n % 10 ** 6 / 100), ODD_NUMBERS)]
        makers += [(lambda n, form=form: (day + timedelta(seconds=n)).strftime(form), ODD_TIMES) for form in forms]
        for number, (show, odd) in enumerate(makers):
            r = random.Random(number)
            rows = ['a,b']
            for i in range(1500):
                n = r.randrange(10 ** 9)
                other = odd[i // 20] if i % 20 == 7 and i // 20 < len(odd) else show(n)
                rows.append(f'{other},{show(n + r.randrange(3))}')
            data = '\n'.join(rows).encode()
            covered.discard('prediction 3')
            with self.subTest(number=number):
                self.assertEqual(unpack_bytes(pack(data, 'max', 1 << 22)), data)
                self.assertIn('prediction 3', covered)


if __name__ == '__main__':
    unittest.main()
