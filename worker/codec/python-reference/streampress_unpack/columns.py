"""The codec `columns`: the plan of a block and the codings of columns (FORMAT.md, "Columns")."""
from itertools import accumulate
from string import ascii_letters

from .common import Bits, Damaged, Reader, decimal, need
from .heads import HEADS
from .integers import read_integers
from .scalars import Numbers, Times, read_values, without_quotes
from .streams import compact_directory, full_directory

LETTERS = ascii_letters.encode()
OTHERS = bytes(set(range(256)) - set(LETTERS))


def pick(rows, places):
    return None if rows is None else [rows[place] for place in places]


class Table:
    """Columns are lists of bytes. Codings get the number of their values and their rows."""

    def __init__(self, plan, streams, version, raw_length):
        self.plan, self.streams, self.version, self.raw_length = plan, streams, version, raw_length
        self.left, self.columns, self.counts, self.depth = 8 * raw_length + 65536, [], [], 0

    def read(self):
        last, moves, size = 0, 0, self.plan.varint(40001, 'number of columns')
        if self.version == 2:
            size, moves = size // 2, size % 2 and self.plan.varint(64, 'number of moves')
        order = list(range(size))
        for _ in range(moves):
            place = self.plan.varint(size - 1, 'moved column')
            order.insert(self.plan.varint(place, 'its place'), order.pop(place))
        for _ in order:
            count = self.plan.varint()
            if self.version == 2 and count:
                count = last if count == 1 else count - 1
            self.plan.need(count <= self.raw_length + 1, f'a column of {count} values')
            last = count or last
            self.counts.append(count)
        for count in self.counts:
            self.columns.append(self.column(count, range(count)))
        self.plan.end()
        self.streams.end()
        return [column for _, column in sorted(zip(order, self.columns))]

    def spend(self, amount):
        """Count values and bytes of values: crafted files must not fill the memory."""
        self.left -= amount
        need(self.left >= 0, 'the columns hold far more than the block')

    def column(self, count, rows):
        """One column, or a list of values inside another one's coding."""
        if self.version == 2 and not count:
            return []
        self.depth += 1
        self.plan.need(self.depth <= 7, 'too many codings inside each other')
        self.spend(count)
        values = self.CODINGS[self.plan.byte('coding', 12 + 2 * self.version)](self, count, rows)
        is_right = len(values) == count and sum(map(len, values)) <= 2 * self.raw_length + 64
        self.plan.need(is_right, f'{len(values)} values instead of {count}, or too long ones')
        self.depth -= 1
        return values

    def stream(self, length, kind='bytes'):
        return self.streams.take(kind, lambda stream: stream.take(length))

    def bits(self, count):
        return Bits(self.stream(count + 7 >> 3, 'packed'), 'bits')

    def other(self, number, rows):
        here = len(self.columns)
        is_right = rows is not None and number < here and self.counts[number] == self.counts[here]
        self.plan.need(is_right, f'column {number} cannot be named here')
        self.spend(len(rows))
        return pick(self.columns[number], rows)

    def put(self, values, places, rows, size=None):
        """Read a column, perhaps of a given size, and put its values at their places."""
        self.plan.need(size in (None, len(places)), f'{size} values for {len(places)} places')
        for place, value in zip(places, self.column(len(places), pick(rows, places))):
            values[place] = value

    def exceptions(self, count):
        gaps = read_integers(self, self.plan.varint(count, 'number of exceptions'))
        self.plan.need(min(gaps, default=0) >= 0 and sum(gaps) + len(gaps) <= count, 'an exception is outside')
        return [place - 1 for place in accumulate(gap + 1 for gap in gaps)]

    def constant(self, count, _rows):
        return [self.plan.string(4096)] * count

    def text(self, count, _rows, is_long=False):
        """Lines, or lengths and then values: tag 14, and version 1 where a last byte 1 says so."""
        def read(stream):
            has_lengths = is_long or self.version == 1 and stream.data[-1:] == b'\1'
            content = [stream.varint() if has_lengths else stream.line() for _ in range(count)]
            if self.version == 1:
                stream.byte('form of text', 2)
            return content, has_lengths

        content, has_lengths = self.streams.take('bytes' if is_long else 'text', read)
        values = lambda stream: [stream.take(size) for size in content]
        return self.streams.take('text', values) if has_lengths else content

    def dictionary(self, count, _rows, is_ranked=False):
        """Indexes into a list of values: of one or two bytes, or integers if the list is ranked."""
        entries = self.column(self.plan.varint(65536, 'number of entries'), None)
        high = self.stream(count) if len(entries) > 256 and not is_ranked else bytes(count)
        indexes = read_integers(self, count) if is_ranked else [a << 8 | b for a, b in zip(high, self.stream(count))]
        self.plan.need(all(0 <= index < len(entries) for index in indexes), 'an index is beyond the entries')
        return [entries[index] for index in indexes]

    def hex(self, count, _rows):
        flags = self.plan.byte('flags of hex', 8)
        size = self.plan.varint(128) // 2 * 2 if flags & 2 else 32
        self.plan.need(size, 'hex values without digits')
        if flags & 4:
            mask, first = (Bits(self.plan.take(size // 2), 'bits').data for _ in range(2))
            form = ''.join('%s' if varies == '1' else bit for varies, bit in zip(mask, first))
            bits = self.bits((varying := mask.count('1')) * count)
            rows = (form % tuple(bits.take(varying)) for _ in range(count))
            values = [f'{int(row, 2):0{size}x}' for row in rows]
        else:
            digits = self.stream(count * size // 2, 'rows 8').hex()
            values = [digits[start:start + size] for start in range(0, len(digits), size)]
        if not flags & 2:
            values = ['-'.join((v[:8], v[8:12], v[12:16], v[16:20], v[20:])) for v in values]
        return [(value.upper() if flags & 1 else value).encode() for value in values]

    def classes(self, count, rows):
        """Values sorted out by kind, a column for each kind. The marks are bytes, not digits."""
        marks, out = [mark[:1] for mark in self.column(count, rows)], [b''] * count
        self.plan.need(set(marks) <= {b'\0', b'\1', b'\2', b'\3', b'\4'}, 'unknown class')
        for kind in b'\1\2\3\4':
            places = [place for place, mark in enumerate(marks) if mark[0] == kind]
            self.put(out, places, rows, self.plan.varint())
            for place in places if kind == 2 else ():
                out[place] = b'"' + out[place] + b'"'
        return out

    def templates(self, count, rows):
        """Fixed text around parts from a column for each key; template 0 is one such part alone."""
        rule, fixed, used, keys = self.plan.byte('key rule', 2), [[b'', b'']], [[0]], {None: 0}
        for template in self.column(self.plan.varint(4096, 'number of templates'), None):
            fixed.append(template.split(b'\0'))
            used.append([])
            before = None  # the placeholder before stands for all bytes up to there
            for part in fixed[-1][:-1]:
                upto_letters = part.rstrip(OTHERS)
                if rule and upto_letters:
                    before, part = None, part[len(upto_letters.rstrip(LETTERS)):]
                before = keys.setdefault((before, part), len(keys))
                used[-1].append(before)
        self.plan.need(len(keys) <= 4097, 'too many columns of placeholders')
        numbers = [decimal(mark, len(fixed)) for mark in self.column(count, rows)]
        places = [[] for _ in keys]
        for place, number in enumerate(numbers):
            self.spend(len(used[number]))
            for key in used[number]:
                places[key].append(place)
        parts, out = [iter(self.column(len(which), pick(rows, which))) for which in places], []
        for number in numbers:
            first, *rest = fixed[number]
            varying = [next(parts[key]) + part for key, part in zip(used[number], rest)]
            out.append(first + b''.join(varying))
            self.spend(len(out[-1]))
        return out

    def in_key_order(self, count, rows):
        """The keys of each row, and the places of the rows in the order of their keys."""
        columns = [self.other(self.plan.varint(), rows) for _ in range(self.plan.varint(3, 'number of keys'))]
        keys = list(zip(*columns)) or [()] * count
        return keys, sorted(range(count), key=keys.__getitem__)

    def sorted(self, count, rows):
        out, (_, order) = [b''] * count, self.in_key_order(count, rows)
        self.put(out, order, rows)
        return out

    def recalled(self, count, rows):
        """Values are new, or places in a list of those that rows with the same keys had before."""
        keys, order = self.in_key_order(count, rows)
        marks, last = iter(read_integers(self, count - len(set(keys)))), None
        new, sources = [], list(range(count))
        for place in order:
            mark, listed = (next(marks), listed) if keys[place] == last else (0, [])
            last = keys[place]
            need(0 <= mark <= len(listed), 'a value is not in its list')
            if mark:
                entry = listed.pop(mark - 1)
                entry[0] += 1
                while mark > 1 and listed[mark - 2][0] <= entry[0]:
                    mark -= 1
                listed.insert(mark - 1, entry)
            else:
                entry = [1, place]
                listed[254:] = [entry]
                new.append(place)
            sources[place] = entry[1]
        values = dict(zip(new, self.column(len(new), pick(rows, new))))
        return [values[source] for source in sources]

    def copied(self, count, rows):
        out, size = self.other(self.plan.varint(), rows), self.plan.varint()
        marks = self.stream(count)
        self.plan.need(max(marks, default=0) < len(self.MARKS), 'unknown mark')
        out = [self.MARKS[mark](value) for mark, value in zip(marks, out)]
        self.put(out, [place for place, mark in enumerate(marks) if mark == 0], rows, size)
        return out

    def sparse(self, count, rows):
        out = self.constant(count, rows)
        self.put(out, self.exceptions(count), rows)
        return out

    def mapped(self, count, rows):
        other, exceptions, first = self.other(self.plan.varint(), rows), self.exceptions(count), {}
        for place, value in enumerate(other):
            first.setdefault(value, place)
        values = dict(zip(first, self.column(len(first), pick(rows, first.values()))))
        out = [values[value] for value in other]
        self.put(out, exceptions, rows)
        return out

    MARKS = (lambda text: b'', lambda text: text, without_quotes, lambda text: b'"' + text + b'"')
    CODINGS = (
        lambda self, count, rows: [], constant, text, dictionary,
        lambda self, count, rows: read_values(self, Numbers, count, rows),
        lambda self, count, rows: read_values(self, Times, count, rows),
        hex, classes, templates, sorted, copied,
        lambda self, count, rows: self.dictionary(count, rows, is_ranked=True), sparse, mapped,
        lambda self, count, rows: self.text(count, rows, is_long=True), recalled)


def decode_columns(transform, payload, raw_length, version=1):
    """The raw bytes of a block."""
    plan, streams = (full_directory, compact_directory)[version - 1](payload, 4 * raw_length + 65536)
    head, table = Reader(plan.string(), 'head'), Table(plan, streams, version, raw_length)
    columns = [iter(column) for column in table.read()]
    try:
        parts = HEADS[transform](head, columns, table.spend)
    except StopIteration:
        raise Damaged('a column has too few values') from None
    length = sum(map(len, parts))
    need(length == raw_length, f'the columns make {length} bytes instead of {raw_length}')
    return b''.join(parts)
