"""Tests of the reference decoder: python3 -m unittest, in the folder above.

STREAMPRESS_PACKER names the program `streampress`, whose command `pack` is called; without it the tests that
pack are skipped. STREAMPRESS_SAMPLES is the number of generated files (1000), STREAMPRESS_SEED the
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
from unittest import mock

import plain_blake3
from streampress_unpack import Damaged, container, heads, scalars, streams, unpack
from streampress_unpack.codecs import Packed, decompress
from streampress_unpack.columns import Table, decode_columns
from streampress_unpack.common import Reader
from streampress_unpack.integers import read_integers
from streampress_unpack.streams import Streams
from tests.generate import generate

HERE = Path(__file__).resolve().parent
PACKER = os.environ.get('STREAMPRESS_PACKER')
SAMPLES = int(os.environ.get('STREAMPRESS_SAMPLES', 1000))
SEED = int(os.environ.get('STREAMPRESS_SEED', 0))
GOLDEN = sorted(Path(os.environ.get('STREAMPRESS_GOLDEN', HERE.parents[1] / 'testdata/hybrid')).glob('*.spk'))
FIRST_VERSION = [path for path in GOLDEN if path.read_bytes()[4] == 1]
EXPECTED = {
    *(f'coding {tag}' for tag in range(16)), *(f'prediction {kind}' for kind in range(9)),
    *(f'cell {follows}' for follows in range(2)), *(f'flags of hex {flags}' for flags in range(8)),
    *(f'time field {kind}' for kind in "YmdHMSfba'"), *(f'mark {mark} of a copy' for mark in range(4)),
    *(f'shape {kind}' for kind in 'OTLVM'), *(f'codec {codec} in version 1' for codec in (0, 1, 2, 4)),
    *(f'codec {codec} in version 2' for codec in (0, 1, 2, 4)), *(f'key rule {rule}' for rule in range(2)),
    *(f'form of text {form}' for form in range(2)),
    *(f'print 0, style {style}, width False' for style in range(4)), 'print 0, style 0, width True',
    *(f'print {form}, style 3, width False' for form in (1, 2)), *(f'sign {sign}' for sign in range(2)),
    *(f'layout {layout}' for layout in range(5)),
    *(f'layout and sign {layout}' for layout in (0, 1, 2, 4, 16, 18, 19, 20)),
    'number of steps', 'binary places', 'primed LZMA'}
covered = set()  # names of the codings, layouts, … that have been met


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


def pack(data, effort, block, version=1):
    """Pack with the program."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, 'in'), os.path.join(folder, 'out')
        Path(source).write_bytes(data)
        subprocess.run([PACKER, 'pack', source, '-o', target, '--effort', effort, '--block-size', block,
                        '--format-version', str(version)], check=True, capture_output=True)
        return Path(target).read_bytes()


def two_columns(r, limit, odd, show, follow):
    """A table of numbers below a limit, with odd ones among them, and of what follows from each."""
    rows = ['a,b']
    for i in range(1500):
        n = r.randrange(limit)
        first = odd[i // 20] if i % 20 == 7 and i // 20 < len(odd) else show(n)
        rows.append(f'{first},{follow(n)}')
    return '\n'.join(rows).encode()


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


def watch(test):
    """Write down what the decoder meets until the end of a test."""
    def after(owner, name, describe):
        original = getattr(owner, name)

        def watched(*arguments, **named):
            out = original(*arguments, **named)
            covered.update(describe(out, *arguments, **named))
            return out
        patch = mock.patch.object(owner, name, watched)
        patch.start()
        test.addCleanup(patch.stop)

    covered.clear()
    after(Reader, 'byte', lambda byte, _, what='byte', *_limits: [what, f'{what} {byte}'])
    after(Reader, 'varint', lambda number, _, limit=0, what='varint': [what, f'{what} {number % 2}'])
    after(heads, 'read_shape', lambda _, data: ['shape ' + data[:1].decode()])
    for owner in (container, streams):
        after(owner, 'decompress', lambda _, packed, data, version=1: [
            f'codec {packed[0]} in version {version}', 'primed LZMA' if packed[:2] == (1, 225) else ''])
    after(scalars.Numbers, '__init__', lambda _, form, *_plan: [
        f'print {form.print}, style {form.style}, width {form.width > 0}'])
    after(scalars.Times, '__init__', lambda _, form, *_plan: ['time field ' + kind.decode() for kind in form.kinds])
    marks = [lambda text, number=number, mark=mark: covered.add(f'mark {number} of a copy') or mark(text)
             for number, mark in enumerate(Table.MARKS)]
    patch = mock.patch.object(Table, 'MARKS', marks)
    patch.start()
    test.addCleanup(patch.stop)


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
                   decompress(Packed(h[6], h[7], *struct.unpack('<II', h[12:20])), p) for h, p in reversed(blocks)]
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
            data, state = bytes(i % 251 for i in range(length)), plain_blake3.blake3()
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
            table = Table(Reader(bytes(plan), 'plan'), Streams(dict(enumerate(streams)), {}), 1, 100)
            self.assertEqual(read_integers(table, 2), expected)
            table.plan.end()


class Edges(unittest.TestCase):
    """What FORMAT.md says of cases that packers seldom write, or never."""

    def test_rows_of_csv(self):
        for head, columns, expected in (
                (b',\0\0\3a,b', ([],), b'a,b'), (b',\0\1\4a,b\n', ([],), b'a,b\n'),  # the first row alone
                (b',\1\1\5a,b\r\n', ([],), b'a,b\r\n'), (b';\1\0\2a\n', ([b'1', b'2'], [b'x', b''], [b'y']), b'a\nx\n;y\n'),
                (b',\0\1\3a\r\n', ([b'1', b'1'], [b'x', b'y']), b'a\r\nx\r\ny\r'),  # `\r` without `\n` at the end
                (b',\0\0\2a\n', ([b'+01'], [b'x', b'no row asks for it']), b'a\nx')):
            parts = heads.csv(Reader(head, 'head'), [iter(column) for column in columns], None)
            self.assertEqual(b''.join(parts), expected)
        with self.assertRaises(Damaged):
            heads.csv(Reader(b',\0\0\2a\n', 'head'), [iter([b'0']), iter([])], None)

    def test_numbers(self):
        for plan, number, extra, expected in (
                ([2, 0, 5, 0], -12, 0, b'-0012'), ([2, 3, 0, 0], -129, 1, b'-1.2'), ([1, 2, 0, 0], 30, 0, b'3.0'),
                ([0, 2, 0, 0], 3, 0, b'3'), ([1, 0, 0, 2], 5, 9, b'0.5')):
            numbers = scalars.Numbers(Reader(bytes(plan), 'plan'), 1)
            self.assertEqual(numbers.show(number, extra if numbers.has_extra else 0), expected)
        with self.assertRaises(Damaged):
            scalars.Numbers(Reader(bytes([18, 0, 0, 2]), 'plan'), 1).show(1, 0)


class Crafted(unittest.TestCase):
    """Files whose checks are right but whose plans are not: an error or some bytes, but nothing else."""

    def try_plans(self, packed, r, times):
        """Change bytes of a block's directory and unpack it."""
        for header, payload in split(packed):
            length = struct.unpack('<I', header[12:16])[0]
            if not header[5]:
                continue
            outer = Reader(payload, 'payload')
            packed = Packed(outer.byte(), outer.byte(), outer.varint(), outer.varint())
            directory = decompress(packed, outer.take(packed.size))
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
            self.try_plans(pack(generate(seed), 'max', '4Mi'), random.Random(seed), 30)


@unittest.skipUnless(PACKER, 'STREAMPRESS_PACKER is not set')
class Generated(unittest.TestCase):
    """Generated files, packed and unpacked."""

    def test_samples(self):
        watch(self)
        for seed in range(SEED, SEED + SAMPLES):
            data, r = generate(seed), random.Random(seed)
            for effort in r.sample(('fast', 'balanced', 'max', 'max'), 2):
                block, version = r.choice(('64Ki', '64Ki', '256Ki', '4Mi')), r.choice((1, 2))
                with self.subTest(seed=seed, effort=effort, block=block, version=version):
                    self.assertEqual(unpack_bytes(pack(data, effort, block, version)), data)
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
        watch(self)
        for number, (show, odd) in enumerate(makers):
            r = random.Random(number)
            rows = two_columns(r, 10 ** 9, odd, show, lambda n: show(n + r.randrange(3)))
            with self.subTest(number=number):
                self.check_prediction(3, rows)

    def test_ratios_of_odd_numbers(self):
        """Odd values in a column that another one is a ratio of."""
        day = datetime(2000, 1, 1)
        kinds = [(lambda n: str(n), lambda n: str(n // 7 - 3)), (lambda n: f'{n / 100:.2f}', lambda n: str(-3 * n)),
                 (lambda n: f'"{n}"', lambda n: f'{n * 119 / 100:.2f}'), (lambda n: str(n * 10 ** 10), lambda n: str(n)),
                 (lambda n: str(n), lambda n: (day + timedelta(seconds=n)).strftime('%Y-%m-%d %H:%M:%S'))]
        watch(self)
        for number, (show, other) in enumerate(kinds):
            with self.subTest(number=number):
                self.check_prediction(8, two_columns(random.Random(number), 10 ** 8, ODD_NUMBERS, show, other), version=2)

    def check_prediction(self, kind, data, version=1):
        """The data comes back, and this prediction was met."""
        covered.discard(f'prediction {kind}')
        self.assertEqual(unpack_bytes(pack(data, 'max', '4Mi', version)), data)
        self.assertIn(f'prediction {kind}', covered)


if __name__ == '__main__':
    unittest.main()
