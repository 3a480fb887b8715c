"""Lists of 64-bit integers: signs and layouts."""
from .common import Damaged, covered, signed, unzigzag


# Kinds of streams, as version 2 shares groups among them.
TEXT, BYTES, PACKED = range(3)
ROWS = {1: 3, 2: 4, 4: 5, 8: 6}


class Bits:
    """Reads a stream bit by bit, from the highest bit of each byte."""

    def __init__(self, data):
        self.data, self.place = data, 0

    def take(self, count):
        """The next `count` bits as a number."""
        start, self.place = self.place >> 3, self.place + count
        stop = self.place + 7 >> 3
        if stop > len(self.data):
            raise Damaged('a stream has too few bits')
        return int.from_bytes(self.data[start:stop], 'big') >> 8 * stop - self.place & (1 << count) - 1

    def end(self):
        """Only the zero bits that fill up the last byte may be left."""
        if self.place + 7 >> 3 != len(self.data) or self.take(-self.place % 8):
            raise Damaged('a stream has bits left over')


def planes(table, count):
    """A stream for each byte place, the highest first."""
    numbers = [0] * count
    for _ in range(table.plan.byte(9, 'width', 1)):
        numbers = [number << 8 | byte for number, byte in zip(numbers, table.stream(count))]
    return numbers


def rows(table, count):
    """One stream with the bytes of each integer side by side."""
    width = table.plan.byte(9, 'width', 1)
    data = table.stream(width * count, ROWS.get(width, ROWS[1]))
    return [int.from_bytes(data[place:place + width], 'big') for place in range(0, len(data), width)]


def buckets(table, count):
    """A byte with the bucket of each integer; a stream of the bits below its leading ones."""
    fine = table.plan.byte(6, 'fineness')
    numbers = table.stream(count)
    below = [max((bucket >> fine) - 1, 0) for bucket in numbers]
    if below and max(below) + fine > 63:
        raise Damaged(f'a bucket of fineness {fine} is beyond 64 bits')
    low, out = Bits(table.stream(sum(below) + 7 >> 3, PACKED)), []
    for bucket, size in zip(numbers, below):
        leading = bucket if bucket < 2 << fine else 1 << fine | bucket & (1 << fine) - 1
        out.append(leading << size | low.take(size))
    low.end()
    return out


def digits(table, count):
    """Integers as the digits of numbers below 2^128."""
    base, together = table.plan.varint(), 1
    if base < 2:
        table.plan.fail(f'integers to base {base}')
    while base ** (together + 1) <= 1 << 128:
        together += 1
    sizes = [min(together, count - start) for start in range(0, count, together)]
    lengths = {size: (base ** size - 1).bit_length() for size in set(sizes)}
    bits, out = Bits(table.stream(sum(map(lengths.get, sizes)) + 7 >> 3, PACKED)), []
    for size in sizes:
        number, group = bits.take(lengths[size]), [0] * size
        for place in reversed(range(size)):
            number, group[place] = divmod(number, base)
        if number:
            raise Damaged('a group of integers is beyond its base')
        out += group
    bits.end()
    return out


def groups(table, count):
    """A few small integers in each byte."""
    base, together = table.plan.byte(17, 'base', 2), table.plan.byte(9, 'number of integers in a byte', 1)
    if base ** together > 256:
        table.plan.fail(f'{together} integers to base {base} in a byte')
    powers, out = [base ** place for place in reversed(range(together))], []
    for byte in table.stream(-(-count // together)):
        if byte >= base ** together:
            raise Damaged('a byte of integers is beyond their base')
        out += [byte // power % base for power in powers]
    if any(out[count:]):
        raise Damaged('the last byte of integers is not filled up with 0')
    return out[:count]


LAYOUTS = (planes, rows, buckets, digits, groups)


def read_integers(table, count):
    """`count` signed integers."""
    if table.version == 2:
        byte = table.plan.byte(32, 'layout')
        layout, minus = LAYOUTS[byte & 15] if byte & 15 < len(LAYOUTS) else table.plan.fail('unknown layout'), byte >> 4
        numbers = layout(table, count)
        smallest = unzigzag(table.plan.varint()) if minus else None
    else:
        smallest = unzigzag(table.plan.varint()) if table.plan.byte(2, 'sign byte') else None
        layout = LAYOUTS[table.plan.byte(len(LAYOUTS), 'layout')]
        numbers = layout(table, count)
    covered.add(f'integers: {layout.__name__}, {"zigzag" if smallest is None else "less the smallest"}')
    return [unzigzag(number) if smallest is None else signed(number + smallest) for number in numbers]
