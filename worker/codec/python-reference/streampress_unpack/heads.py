"""From iterators of columns back to the bytes of a block, in parts (FORMAT.md, "Heads")."""
import re

from .common import decimal, need

STRING = re.compile(rb'"(?:[^"\\\0-\x1f]|\\.)*"', re.DOTALL)
MAX_DEPTH, MAX_PATHS, MAX_SHAPES = 100, 4000, 20000
ELEMENT, ENTRY, EXTRA = ('element',), ('entry',), ('extra',)  # the items of shapes without text


def text(head, columns, _spend):
    """One column, the lines."""
    head.need(len(columns) == 1, f'{len(columns)} columns of lines')
    end = b'\n' * (head.byte() == 1)
    head.end()
    return [b'\n'.join(columns[0]), end]


def csv(head, columns, _spend):
    """The first row stands in the head; the others' fields are in a column for each place."""
    delimiter, is_closed = head.take(1), head.byte() == 1
    end, rows, first = b'\r' * (head.byte() == 1), [], head.string()
    head.need(columns, 'a table without columns')
    for size in columns[0]:
        fields = [next(columns[place + 1]) for place in range(decimal(size, len(columns)))]
        need(fields, 'a row without fields')
        rows.append(delimiter.join(fields) + end)
    return [first, b'\n'.join(rows), b'\n' if is_closed and rows else b'']


def read_shape(data):
    """A shape: beginning, what each element adds (the last without its last item), end."""
    kind, (first, *parts) = data[:1], data[1:].split(b'\0')
    if kind == b'L' and len(parts) > 1:
        return [first], [ELEMENT, parts[0]], parts[1:2]
    if kind == b'V':
        return [first], [ELEMENT, EXTRA], []
    if kind == b'M' and len(parts) > 2:
        return [first], [b'"', EXTRA, b'"' + parts[0], ENTRY, parts[1]], parts[2:3]
    keys = range(len(parts))
    if kind == b'O':
        strings = [STRING.match(part, max(part.find(b'"'), 0)) for part in [first, *parts][:-1]]
        keys = [string[0] for string in strings if string]
    is_right = kind == b'O' and len(keys) == len(parts) or kind == b'T' and len(parts) <= 4
    need(is_right, f'unknown shape {data[:40]!r}')
    return [first] + [item for key, part in zip(keys, parts) for item in ((key,), part)], [], []


def json(head, columns, spend):
    """Gaps around the outermost values; four columns for each path, a path being parent and key."""
    size = head.varint(MAX_SHAPES, 'number of shapes')
    head.need(size and columns, 'shape 0 or column 0 is not there')
    strings = [head.string() for _ in range(size)]
    shapes = [None] + [read_shape(string) for string in strings[1:]]
    paths, parts, gaps = {}, [], list(columns[0])
    for gap in gaps[:-1]:
        parts.append(gap)
        waiting = [(None, (None,), 0)]  # what is still to come, the next one last
        while waiting:
            parent, item, depth = waiting.pop()
            if item is EXTRA:
                item = next(columns[4 * parent + 4])
            if isinstance(item, bytes):
                parts.append(item)
                continue
            path = paths.setdefault((parent, item), len(paths))
            is_right = 4 * len(paths) < len(columns) and path < MAX_PATHS and depth <= MAX_DEPTH
            need(is_right, 'there are too few columns, too many paths, or too deep ones')
            numbers, scalars, counts, _extras = columns[4 * path + 1:4 * path + 5]
            shape = shapes[decimal(next(numbers), len(shapes))]
            if not shape:
                parts.append(next(scalars))
                continue
            items, element, end = shape
            count = decimal(next(counts), 1 << 32) if element else 0
            for item in {ELEMENT, ENTRY}.intersection(element):
                paths.setdefault((path, item), len(paths))  # also if there are none
            spend(len(items) + len(element) * count)
            items = items + (element * count)[:-1 if end else None] + end
            waiting += [(path, item, depth + 1) for item in reversed(items)]
    return parts + gaps[-1:]


HEADS = {1: json, 2: csv, 3: text}
