"""From the columns of a block back to its bytes, as a list of parts: text, CSV, JSON."""
import re

from .common import Damaged, covered

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Columns:
    """Yields the values of columns one by one."""

    def __init__(self, columns):
        self.left = [iter(column) for column in columns]

    def next(self, number):
        """The next value of a column."""
        value = next(self.left[number], None) if number < len(self.left) else None
        if value is None:
            raise Damaged(f'column {number} has too few values')
        return value

    def number(self, number, limit):
        """The next value of a column of numbers as decimal text, which must be below `limit`."""
        value = self.next(number)
        if not value.isdigit() or len(value) > 9 or int(value) >= limit:
            raise Damaged(f'column {number} has {value[:20]!r} instead of a number below {limit}')
        return int(value)

    def end(self):
        """All values must have been used."""
        if any(next(values, None) is not None for values in self.left):
            raise Damaged('columns have values left over')


def text(head, columns, _budget):
    """One column, the lines."""
    if len(columns) != 1:
        head.fail(f'{len(columns)} columns of lines')
    parts = [part for line in columns[0] for part in (line, b'\n')]
    return parts if head.byte(2, 'flag') else parts[:-1]


def csv(head, columns, _budget):
    """The first row stands in the head; the others' fields are in a column for each place."""
    delimiter, closed, end = head.take(1), head.byte(2, 'flag'), (b'\n', b'\r\n')[head.byte(2, 'flag')]
    parts, source = [head.string()], Columns(columns)
    for _ in range(len(columns[0]) if columns else 0):
        fields = source.number(0, len(columns))
        for place in range(1, fields + 1):
            parts += (source.next(place), delimiter)
        parts[-1 if fields else len(parts):] = [end]
    source.end()
    return parts if closed else parts[:-1]


class Shape:
    """The fixed text of an array or an object."""

    SIZES = {b'L': 3, b'V': 1, b'M': 4}

    def __init__(self, data):
        self.kind, self.parts, self.keys = data[:1], data[1:].split(b'\0'), []
        self.counted, size = self.kind in self.SIZES, len(self.parts)
        if self.kind == b'T':
            self.keys = range(size - 1)
        elif self.kind == b'O':
            strings = [STRING.match(part, max(part.find(b'"'), 0)) for part in self.parts[:-1]]
            self.keys = [string[0] for string in strings if string]
        if not data or self.kind not in b'OTLVM' or size != self.SIZES.get(self.kind, len(self.keys) + 1):
            raise Damaged(f'unknown shape {data[:40]!r}')
        covered.add(f'shape {self.kind.decode()}')

    def content(self, path, extras, count):
        """What it consists of, in order: bytes, numbers of columns to take a value from, keys of child paths."""
        parts, out = self.parts, [self.parts[0]]
        if self.kind == b'V':
            return out + [(path, 'element'), extras] * count
        if self.kind == b'L':
            return out + ([(path, 'element'), parts[1]] * count)[:-1] + [parts[2]]
        if self.kind == b'M':  # the keys in the extras are without their quotes
            return out + ([b'"', extras, b'"' + parts[1], (path, 'entry'), parts[2]] * count)[:-1] + [parts[3]]
        for key, part in zip(self.keys, parts[1:]):
            out += ((path, key), part)
        return out


def json(head, columns, budget):
    """Gaps around the outermost values; four columns for each path, a path being a parent and a key."""
    size = head.varint()
    if size < 1 or head.string():
        head.fail('shape 0 is not there or not empty')
    shapes = [None] + [Shape(head.string()) for _ in range(size - 1)]
    roots = len(columns[1]) if len(columns) > 1 else 0
    if len(columns) % 4 != 1 or len(columns[0]) != roots + 1:
        head.fail(f'{len(columns)} columns, and {roots} outermost values')
    source, paths = Columns(columns), {}
    parts = [source.next(0)]
    for _ in range(roots):
        waiting = [(None, None)]  # what is still to come, the next one last
        while waiting:
            item = waiting.pop()
            if not isinstance(item, tuple):
                parts.append(item if isinstance(item, bytes) else source.next(item))
                continue
            path = paths.setdefault(item, len(paths))
            shape = shapes[source.number(4 * path + 1, len(shapes))]
            if shape is None:
                parts.append(source.next(4 * path + 2))
                continue
            count = source.number(4 * path + 3, 1 << 32) if shape.counted else 0
            budget.spend(len(shape.parts) + 2 * count)
            waiting += reversed(shape.content(path, 4 * path + 4, count))
        parts.append(source.next(0))
    source.end()
    return parts


HEADS = {1: json, 2: csv, 3: text}
