"""The directory, the groups and the streams of a block (FORMAT.md, "Columns" and "Version 2")."""
from .codecs import BZ2, FILL, LZMA, STORED, Packed, decompress, read_lengths
from .common import Reader, need

KINDS = ('text', 'bytes', 'packed', 'rows 1', 'rows 2', 'rows 4', 'rows 8')  # of streams


class Streams:
    """The streams in the order in which they are taken: alone, or next in the group of a kind."""

    def __init__(self, alone, shared):
        self.number = -1
        self.alone = {number: Reader(data, f'stream {number}') for number, data in alone.items()}
        self.shared = {kind: Reader(data, f'group of {kind}') for kind, data in shared.items()}

    def take(self, kind, read):
        """What the function `read` makes of the next stream, which is a Reader."""
        self.number += 1
        alone = self.alone.pop(self.number, None)
        need(alone or kind in self.shared, 'there are too few streams')
        content = read(alone or self.shared[kind])
        if alone:
            alone.end()
        return content

    def end(self):
        for stream in (*self.alone.values(), *self.shared.values()):
            stream.end()
        need(not self.alone, 'there are streams left over')


def full_directory(payload, allowed):
    """The plan and the streams of version 1, each of which is given its length."""
    outer = Reader(payload, 'payload')
    header = Packed(outer.byte(), outer.byte(), outer.varint(allowed), outer.varint())
    directory = Reader(decompress(header, outer.take(header.size)), 'directory')
    plan = Reader(directory.string(), 'plan')
    groups = [[directory.byte(), directory.byte(), 0, directory.varint()] for _ in range(directory.varint())]
    streams = [(directory.varint(len(groups) - 1, 'number of a group'), directory.varint())
               for _ in range(directory.varint())]
    directory.end()
    for group, length in streams:
        groups[group][2] += length
    directory.need(sum(group[2] for group in groups) <= allowed, 'the streams are too long')
    raw = [Reader(decompress(group, outer.take(group[3])), 'group') for group in groups]
    outer.end()
    return plan, Streams(dict(enumerate(raw[group].take(length) for group, length in streams)), {})


def compact_directory(payload, allowed):
    """The plan and the streams of version 2."""
    outer, left = Reader(payload, 'payload'), 2 * allowed  # the directory, and all streams

    def read_header(fields):
        coder = fields.byte('coder', 229)
        codec = (STORED, BZ2, FILL)[coder] if coder < 3 else LZMA
        return read_lengths(codec, fields.byte() if codec == FILL else max(coder - 3, 0), fields)

    def unpack(header):
        nonlocal left
        left -= header.length
        need(left >= 0, 'the directory and the streams are too long')
        return decompress(header, outer.take(header.size), 2)

    is_joint = payload[:1] == b'\xff'  # directory and shared groups together
    outer.take(is_joint)
    directory = Reader(unpack(read_header(outer)), 'directory')
    used = directory.byte('kinds of streams', 1 << len(KINDS))
    kinds = [kind for place, kind in enumerate(KINDS) if used >> place & 1]
    groups = [directory.varint() if is_joint else read_header(directory) for _ in kinds]
    number, single = -1, {}
    for _ in range(directory.varint()):
        number += 1 + directory.varint()
        single[number] = read_header(directory)
    size = directory.varint() if is_joint else len(directory.data) - directory.place
    plan = Reader(directory.take(size), 'plan')
    groups = [directory.take(group) if is_joint else unpack(group) for group in groups]
    directory.end()
    alone = {number: unpack(header) for number, header in single.items()}
    outer.end()
    return plan, Streams(alone, dict.fromkeys(KINDS, b'') | dict(zip(kinds, groups)))
