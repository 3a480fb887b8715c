"""From iterators of columns back to the bytes of a block, in parts (FORMAT.md, "Heads")."""
import re

from .common import decimal, need

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
ELEMENT, ENTRY, EXTRA = ('element',), ('entry',), ('extra',)  # the items of shapes without text


def text(head, columns, _spend):
    """One column, the lines."""
    head.need(len(columns) == 1, f'{len(columns)} columns of lines')
    parts = [part for line in columns[0] for part in (line, b'\n')]
    return parts if head.byte('flag', 2) else parts[:-1]


def csv(head, columns, _spend):
    """The first row stands in the head; the others' fields are in a column for each place."""
    delimiter, is_closed = head.take(1), head.byte('flag', 2)
    end, parts = b'\r\n' if head.byte('flag', 2) else b'\n', [head.string()]
    for size in columns[0] if columns else ():
        fields = [next(columns[place + 1]) for place in range(decimal(size, len(columns)))]
        parts += (delimiter.join(fields), end)
    return parts if is_closed else parts[:-1]


def read_shape(data):
    """A shape: beginning, what each element adds (the last without its last item), end."""
    kind, (first, *parts) = data[:1], data[1:].split(b'\0')
    if kind == b'L' and len(parts) == 2:
        return [first], [ELEMENT, parts[0]], parts[1:]
    if kind == b'V' and not parts:
        return [first], [ELEMENT, EXTRA], []
    if kind == b'M' and len(parts) == 3:
        return [first], [b'"', EXTRA, b'"' + parts[0], ENTRY, parts[1]], parts[2:]
    keys = range(len(parts))
    if kind == b'O':
        strings = [STRING.match(part, max(part.find(b'"'), 0)) for part in [first, *parts][:-1]]
        keys = [string[0] for string in strings if string]
    need(kind in (b'O', b'T') and len(keys) == len(parts), f'unknown shape {data[:40]!r}')
    return [first] + [item for key, part in zip(keys, parts) for item in ((key,), part)], [], []


def json(head, columns, spend):
    """Gaps around the outermost values; four columns for each path, a path being parent and key."""
    size = head.varint()
    head.need(size and not head.string(), 'shape 0 is not there or not empty')
    shapes = [None] + [read_shape(head.string()) for _ in range(size - 1)]
    head.need(len(columns) % 4 == 1, f'{len(columns)} columns')
    paths, parts, gaps = {}, [], list(columns[0])
    for gap in gaps[:-1]:
        parts.append(gap)
        waiting = [(None, (None,))]  # what is still to come, the next one last
        while waiting:
            parent, item = waiting.pop()
            if item is EXTRA:
                item = next(columns[4 * parent + 4])
            if isinstance(item, bytes):
                parts.append(item)
                continue
            path = paths.setdefault((parent, item), len(paths))
            need(4 * path + 4 < len(columns), 'there are too few columns')
            numbers, scalars, counts, _extras = columns[4 * path + 1:4 * path + 5]
            shape = shapes[decimal(next(numbers), len(shapes))]
            if not shape:
                parts.append(next(scalars))
                continue
            items, element, end = shape
            count = decimal(next(counts), 1 << 32) if element else 0
            spend(len(items) + len(element) * count)
            items = items + (element * count)[:-1 if end else None] + end
            waiting += [(path, item) for item in reversed(items)]
    return parts + gaps[-1:]


HEADS = {1: json, 2: csv, 3: text}
