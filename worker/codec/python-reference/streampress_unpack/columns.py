"""The codec `columns`: the directory, the plan and the streams of a block, and the codings of columns."""
from itertools import accumulate, islice
from string import ascii_letters

from .codecs import BZ2, FILL, LZMA, STORED, decompress
from .common import Budget, Damaged, Reader, covered
from .heads import HEADS
from .integers import BYTES, PACKED, ROWS, TEXT, Bits, read_integers
from .scalars import Numbers, Times, read_predicted, without_quotes

MAX_DEPTH = 32  # of codings inside codings
LETTERS = ascii_letters.encode()
OTHERS = bytes(set(range(256)) - set(LETTERS))


def ends(data, count, is_end):
    """The length of the first `count` values of `data`, whose last bytes are ends; None if there are fewer."""
    places = (place for place, byte in enumerate(data, 1) if is_end(byte))
    return next(islice(places, count - 1, None), None) if count else 0


class Listed:
    """The streams of version 1, whose lengths are known."""

    def __init__(self, streams):
        self.left = iter(streams)

    def take(self, _length, _kind):
        """The next stream."""
        return next(self.left, None)

    def end(self):
        """All streams must have been taken."""
        if next(self.left, None) is not None:
            raise Damaged('there are streams left over')


class Shared:
    """The streams of version 2: alone in a group, or the next bytes of the group of their kind."""

    def __init__(self, groups, single):
        self.groups, self.places, self.single, self.number = groups, [0] * len(groups), single, -1

    def take(self, length, kind):
        """The next stream, of a known length, or up to where a function says."""
        self.number += 1
        alone = self.single.pop(self.number, None)
        rest = self.groups[kind][self.places[kind]:] if alone is None else alone
        size = length if isinstance(length, int) else length(rest)
        if size is None or size > len(rest) or alone is not None and size < len(alone):
            raise Damaged('a stream does not have its length')
        self.places[kind] += size if alone is None else 0
        covered.add(f'stream {"alone" if alone is not None else "shared"}')
        return rest[:size]

    def end(self):
        """All streams must have been taken."""
        if self.single or self.places != [len(group) for group in self.groups]:
            raise Damaged('there are streams left over')


def pick(rows, places):
    """The rows of the values at some places."""
    return None if rows is None else [rows[place] for place in places]


class Table:
    """Decodes the columns of a block. A column is a list of byte strings.

    Every coding gets the number of its values and their rows in the table, None if they have none.
    """

    def __init__(self, plan, streams, budget, version=1):
        self.plan, self.streams, self.budget, self.version = plan, streams, budget, version
        self.columns, self.counts, self.depth = [], [], 0

    def read(self, raw_length):
        """All columns. No column can have more values than the block has bytes, save one."""
        last = 0
        for _ in range(self.plan.varint()):
            count = self.plan.varint(raw_length + self.version, 'number of values')
            if self.version == 2:
                count = (0, last)[count] if count < 2 else count - 1
            last = count or last
            self.counts.append(count)
        for count in self.counts:
            self.columns.append(self.column(count, range(count)))
        self.plan.end()
        self.streams.end()
        return self.columns

    def column(self, count, rows):
        """One column, or a list of values inside another one's coding."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.plan.fail('too many codings inside each other')
        self.budget.spend(count)
        tag = 0
        if count or self.version == 1:
            tag = self.plan.byte(len(self.CODINGS) - (self.version == 1), 'coding')
            covered.add(f'tag {tag}')
        values = self.CODINGS[tag](self, count, rows)
        if len(values) != count:
            self.plan.fail(f'{len(values)} values instead of {count}')
        self.depth -= 1
        return values

    def stream(self, length, kind=BYTES):
        """The next stream, which has `length` bytes, or a function finds how many of some bytes it has."""
        data = self.streams.take(length, kind)
        if data is None:
            self.plan.fail('there are too few streams')
        if isinstance(length, int) and len(data) != length:
            self.plan.fail(f'a stream of {len(data)} bytes instead of {length}')
        return data

    def other(self, number, rows):
        """The values that an earlier column has in these rows."""
        here = len(self.columns)
        if rows is None or number >= here or self.counts[number] != self.counts[here]:
            self.plan.fail(f'column {number} cannot be named here')
        self.budget.spend(len(rows))
        return pick(self.columns[number], rows)

    def put(self, values, places, size, rows):
        """Read a column of `size` values and put them at their places."""
        if size != len(places):
            self.plan.fail(f'{size} values for {len(places)} places')
        for place, value in zip(places, self.column(size, pick(rows, places))):
            values[place] = value

    def exceptions(self, size, count):
        """The places of `size` exceptions among `count` values, from the gaps between them."""
        self.budget.spend(size)
        gaps = read_integers(self, size)
        if gaps and min(gaps) < 0 or sum(gaps) + size > count:
            self.plan.fail('an exception lies outside the column')
        return [place - 1 for place in accumulate(gap + 1 for gap in gaps)]

    def text(self, count, rows):
        """The values themselves, with line ends or with lengths."""
        first = self.stream(lambda data: ends(data, count, lambda byte: byte == 10), TEXT)
        if self.version == 2:
            first += b'\0'
        if not first or first[-1] > 1:
            self.plan.fail('a text stream ends in neither 0 nor 1')
        covered.add(f'text with {("line ends", "lengths")[first[-1]]}')
        if first[-1] == 0:
            if first.count(b'\n') != count or first[-2:-1] not in (b'', b'\n'):
                self.plan.fail(f'a text stream does not have {count} lines')
            return first[:-1].split(b'\n')[:-1]
        return self.long_text(count, first[:-1])

    def long_text(self, count, lengths):
        """The lengths of the values, then the values."""
        lengths = Reader(lengths, 'lengths of values')
        sizes = [lengths.varint() for _ in range(count)]
        lengths.end()
        values = Reader(self.stream(sum(sizes), TEXT), 'values')
        return [values.take(size) for size in sizes]

    def separate_lengths(self, count, _rows):
        """Tag 14: the lengths in a stream of their own."""
        return self.long_text(count, self.stream(lambda data: ends(data, count, lambda byte: byte < 128)))

    def dictionary(self, count, rows, ranked=False):
        """Indexes into a list of values: of one or two bytes, or in any layout if the list is ranked."""
        entries = self.column(self.plan.varint(count, 'number of entries'), None)
        if ranked:
            indexes = read_integers(self, count)
        else:
            covered.add(f'dictionary, {"two bytes" if len(entries) > 256 else "one byte"}')
            high = self.stream(count) if len(entries) > 256 else bytes(count)
            indexes = [a << 8 | b for a, b in zip(high, self.stream(count))]
        if indexes and not (min(indexes) >= 0 and max(indexes) < len(entries)):
            self.plan.fail('an index is beyond the entries')
        return [entries[index] for index in indexes]

    def numbers(self, count, rows, form_of=Numbers):
        """Integers, written as numbers or as times."""
        form, out = form_of(self.plan, self.version), []
        for number, extra in zip(*read_predicted(self, form, count, rows)):
            out.append(form.show(number, extra))
            self.budget.spend(len(out[-1]))
        return out

    def hexadecimal(self, count, rows):
        """Digits of hexadecimal numbers, UUIDs among them."""
        flags = self.plan.byte(8, 'flags of hex')
        covered.add(f'hex flags {flags}')
        size = self.plan.varint() if flags & 2 else 32
        if size % 2 or not size:
            self.plan.fail(f'hex values of {size} digits')
        self.budget.spend((count + 8 * flags) * size)
        if flags & 4:
            mask, now = (list(f'{int.from_bytes(self.plan.take(size // 2), "big"):0{4 * size}b}') for _ in range(2))
            places = [place for place, bit in enumerate(mask) if bit == '1']
            bits, values = Bits(self.stream(len(places) * count + 7 >> 3, PACKED)), []
            for _ in range(count):
                for place, bit in zip(places, f'{bits.take(len(places)):0{len(places)}b}'):
                    now[place] = bit
                values.append(f'{int("".join(now), 2):0{size}x}')
            bits.end()
        else:
            data = self.stream(count * size // 2, ROWS[8]).hex()
            values = [data[place:place + size] for place in range(0, len(data), size)]
        if not flags & 2:
            values = ['-'.join((v[:8], v[8:12], v[12:16], v[16:20], v[20:])) for v in values]
        return [(value.upper() if flags & 1 else value).encode() for value in values]

    def classes(self, count, rows):
        """Values sorted out by kind, a column for each kind. The marks are bytes, not digits."""
        marks = self.column(count, rows)
        if not set(marks) <= {bytes([kind]) for kind in range(5)}:
            self.plan.fail('unknown class')
        out = [b''] * count
        for kind in range(1, 5):
            places = [place for place, mark in enumerate(marks) if mark[0] == kind]
            self.put(out, places, self.plan.varint(), rows)
            if kind == 2:
                self.budget.spend(2 * len(places))
                for place in places:
                    out[place] = b'"' + out[place] + b'"'
        return out

    def templates(self, count, rows):
        """Fixed text around parts that vary, which come from a column for each kind of hole."""
        border, holes, uses = self.plan.byte(2, 'border'), {}, [([], [])]
        covered.add(f'templates with border {border}')
        for template in self.column(self.plan.varint(count, 'number of templates'), None):
            uses.append((template.split(b'\0'), []))
            self.budget.spend(len(uses[-1][0]))
            # What stands before a hole is its key: all of it, or with border 1 what starts at the last run of
            # letters. The number of the hole before stands for the text up to there: so the keys stay short.
            before = -1
            for part in uses[-1][0][:-1]:
                if border and part.rstrip(OTHERS):
                    before, part = -1, part[len(part.rstrip(OTHERS).rstrip(LETTERS)):]
                before = holes.setdefault((before, part), len(holes))
                uses[-1][1].append(before)
        marks = self.column(count, rows)
        if not all(mark.isdigit() and len(mark) < 10 and int(mark) < len(uses) for mark in marks):
            self.plan.fail('there is no such template')
        out, kinds, places = [b''] * count, [int(mark) for mark in marks], [[] for _ in holes]
        without = [place for place, kind in enumerate(kinds) if kind == 0]
        self.put(out, without, len(without), rows)
        for place, kind in enumerate(kinds):
            self.budget.spend(len(uses[kind][1]))
            for hole in uses[kind][1]:
                places[hole].append(place)
        parts = [iter(self.column(len(which), pick(rows, which))) for which in places]
        for place, kind in enumerate(kinds):
            if kind:
                first, *fixed = uses[kind][0]
                out[place] = first + b''.join([next(parts[hole]) + part for hole, part in zip(uses[kind][1], fixed)])
                self.budget.spend(len(out[place]))
        return out

    def ordered(self, count, rows):
        """Values in the order of other columns."""
        size = self.plan.varint(len(self.columns), 'number of keys')
        keys = [self.other(self.plan.varint(), rows) for _ in range(size)]
        out, order = [b''] * count, sorted(range(count), key=lambda place: [key[place] for key in keys])
        self.put(out, order, count, rows)
        return out

    def copied(self, count, rows):
        """Mostly what another column has in the same row."""
        out, size, marks = self.other(self.plan.varint(), rows), self.plan.varint(), self.stream(count)
        for place, mark in enumerate(marks):
            if mark == 2:
                out[place] = without_quotes(out[place])
            elif mark == 3:
                self.budget.spend(len(out[place]))
                out[place] = b'"' + out[place] + b'"'
            elif mark > 3:
                self.plan.fail(f'unknown mark {mark}')
        covered.update(f'copied, mark {mark}' for mark in set(marks))
        self.put(out, [place for place, mark in enumerate(marks) if mark == 0], size, rows)
        return out

    def mostly(self, count, rows):
        """A usual value and exceptions."""
        out, size = [self.plan.string()] * count, self.plan.varint(count, 'number of exceptions')
        self.put(out, self.exceptions(size, count), size, rows)
        return out

    def mapped(self, count, rows):
        """A value for each value of another column, and exceptions."""
        other, size = self.other(self.plan.varint(), rows), self.plan.varint(count, 'number of exceptions')
        exceptions, first = self.exceptions(size, count), {}
        for place, value in enumerate(other):
            first.setdefault(value, place)
        values = dict(zip(first, self.column(len(first), pick(rows, first.values()))))
        out = [values[value] for value in other]
        self.put(out, exceptions, size, rows)
        return out

    CODINGS = (lambda self, count, rows: [],
               lambda self, count, rows: [self.plan.string()] * count,
               text, dictionary, numbers,
               lambda self, count, rows: self.numbers(count, rows, Times),
               hexadecimal, classes, templates, ordered, copied,
               lambda self, count, rows: self.dictionary(count, rows, ranked=True),
               mostly, mapped, separate_lengths)


def split_payload(payload, raw_length):
    """The plan and the streams of a block."""
    outer, allowed = Reader(payload, 'payload'), 4 * raw_length + 65536
    codec, parameter, length = outer.byte(), outer.byte(), outer.varint(allowed, 'length of the directory')
    directory = Reader(decompress(codec, parameter, outer.string(), length), 'directory')
    plan = Reader(directory.string(), 'plan')
    groups = [(directory.byte(), directory.byte(), directory.varint()) for _ in range(directory.varint())]
    streams, sizes = [], [0] * len(groups)
    for _ in range(directory.varint()):
        group = directory.varint(len(groups) - 1, 'number of a group')
        streams.append((group, directory.varint(allowed, 'length of a stream')))
        sizes[group] += streams[-1][1]
    directory.end()
    if sum(sizes) > allowed:
        directory.fail(f'{sum(sizes)} bytes of streams, at most {allowed} are allowed')
    raw = [Reader(decompress(codec, parameter, outer.take(packed), size), 'group')
           for (codec, parameter, packed), size in zip(groups, sizes)]
    outer.end()
    return plan, Listed([raw[group].take(size) for group, size in streams])


class Compact:
    """Reads a payload of version 2."""

    KINDS = 7

    def __init__(self, payload, raw_length):
        self.payload, self.left = Reader(payload, 'payload'), 4 * raw_length + 65536

    def header(self, fields):
        """Coder, parameter, raw and packed length of a group."""
        byte, parameter = fields.byte(228, 'coder'), 0
        codec = (STORED, BZ2, FILL)[byte] if byte < 3 else LZMA
        if codec in (FILL, LZMA):
            parameter = fields.byte() if codec == FILL else byte - 3
        length = fields.varint(self.left, 'length of a group')
        self.left -= length
        return codec, parameter, length, fields.varint() if codec in (BZ2, LZMA) else length * (codec == STORED)

    def group(self, header):
        """The raw bytes of the next group in the payload."""
        codec, parameter, length, packed = header
        return decompress(codec, parameter, self.payload.take(packed), length, 2)

    def alone(self, fields):
        """The groups of single streams, by number; their bytes follow the shared groups."""
        number, headers = -1, {}
        for _ in range(fields.varint()):
            number += 1 + fields.varint(1 << 32)
            headers[number] = self.header(fields)
        return headers

    def split(self):
        """The plan and the streams."""
        joint = self.payload.data[:1] == b'\xff'
        self.payload.take(joint)
        fields = Reader(self.group(self.header(self.payload)), 'directory')
        covered.add('directory ' + ('with the shared groups' if joint else 'alone'))
        used = fields.byte(1 << self.KINDS, 'kinds of streams')
        kinds = [kind for kind in range(self.KINDS) if used >> kind & 1]
        shared = [fields.varint() if joint else self.header(fields) for _ in kinds]
        headers = self.alone(fields)
        plan = fields.string() if joint else fields.take(len(fields.data) - fields.place)
        groups = [b''] * self.KINDS
        for kind, entry in zip(kinds, shared):
            groups[kind] = fields.take(entry) if joint else self.group(entry)
        single = {number: self.group(header) for number, header in headers.items()}
        fields.end()
        self.payload.end()
        return Reader(plan, 'plan'), Shared(groups, single)


def decode_columns(transform, payload, raw_length, version=1):
    """The raw bytes of a block."""
    plan, streams = split_payload(payload, raw_length) if version == 1 else Compact(payload, raw_length).split()
    head, budget = Reader(plan.string(), 'head'), Budget(raw_length)
    columns = Table(plan, streams, budget, version).read(raw_length)
    parts = HEADS[transform](head, columns, budget)
    head.end()
    length = sum(map(len, parts))
    if length != raw_length:
        head.fail(f'the columns make {length} bytes instead of {raw_length}')
    return b''.join(parts)
