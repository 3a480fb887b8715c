"""One block of a bzip2 stream without the stream around it, as version 2 writes it."""
from itertools import accumulate

from .common import Damaged
from .integers import Bits


def code_table(bits, size):
    """The symbol of each code, by length and code."""
    lengths, length = [], bits.take(5)
    for _ in range(size):
        while bits.take(1):
            length += 1 - 2 * bits.take(1)
        if not 1 <= length <= 20:
            raise Damaged(f'BZ2: a code of {length} bits')
        lengths.append(length)
    table, code, last = {}, 0, 0
    for length, symbol in sorted(zip(lengths, range(size))):
        code, last = code << length - last, length
        table[length, code] = symbol
        code += 1
    return table


def unary(bits, limit):
    """The number of ones before a zero."""
    count = 0
    while bits.take(1):
        count += 1
        if count >= limit:
            raise Damaged('BZ2: a table that does not exist')
    return count


def read_symbol(bits, table):
    """The next symbol."""
    code = 0
    for length in range(1, 21):
        code = code << 1 | bits.take(1)
        if (length, code) in table:
            return table[length, code]
    raise Damaged('BZ2: a code that does not exist')


def read_sorted(bits, limit):
    """The last bytes of the sorted rotations, at most `limit`."""
    rows = bits.take(16)
    used = [16 * row + column for row in range(16) if rows >> 15 - row & 1
            for flags in [bits.take(16)] for column in range(16) if flags >> 15 - column & 1]
    count, selectors = bits.take(3), bits.take(15)
    if not used or not 2 <= count <= 6:
        raise Damaged('BZ2: no bytes, or a number of tables out of range')
    recent, chosen = list(range(count)), []
    for _ in range(selectors):
        recent.insert(0, recent.pop(unary(bits, count)))
        chosen.append(recent[0])
    tables = [code_table(bits, len(used) + 2) for _ in range(count)]
    out, run, digit, end = bytearray(), 0, 1, len(used) + 1
    for table in chosen:
        for _ in range(50):
            symbol = read_symbol(bits, tables[table])
            if symbol < 2:
                run, digit = run + (digit << symbol), digit * 2
            if run + len(out) > limit:
                raise Damaged('BZ2: a block is longer than its size')
            if symbol < 2:
                continue
            out += bytes([used[0]]) * run
            run, digit = 0, 1
            if symbol == end:
                return out
            used.insert(0, used.pop(symbol - 1))
            out.append(used[0])
    raise Damaged('BZ2: a block without its end')


def decode_block(data, length):
    """The `length` bytes of a block."""
    bits = Bits(data)
    if bits.take(1):
        raise Damaged('BZ2: a randomised block')
    origin, last = bits.take(24), read_sorted(bits, length + length // 4 + 1)
    if len(data) != bits.place + 7 >> 3 or origin >= len(last):
        raise Damaged('BZ2: bytes left over, or the origin is outside the block')
    counts = [0] * 256
    for byte in last:
        counts[byte] += 1
    starts, links = [0, *accumulate(counts)], [0] * len(last)
    for place, byte in enumerate(last):
        links[starts[byte]] = place
        starts[byte] += 1
    out, place, run = bytearray(), origin, 0
    for _ in last:
        place = links[place]
        byte = last[place]
        if run == 4:  # a count follows four equal bytes
            out += out[-1:] * byte
            run = 0
            continue
        run = run + 1 if run and out[-1] == byte else 1
        out.append(byte)
    if len(out) != length:
        raise Damaged(f'BZ2: {len(out)} bytes instead of {length}')
    return bytes(out)
