"""Lists of 64-bit integers: layouts, by their names, and signs (FORMAT.md, "Integers")."""
from .common import need, signed, unzigzag


def planes(table, count):
    planes_of = [table.stream(count) for _ in range(table.plan.byte('width', 9, 1))]
    return [int.from_bytes(number, 'big') for number in zip(*planes_of)]


def rows(table, count):
    width = table.plan.byte('width', 9, 1)
    data = table.stream(width * count, f'rows {width if width in (1, 2, 4, 8) else 1}')
    return [int.from_bytes(data[at:at + width], 'big') for at in range(0, len(data), width)]


def buckets(table, count):
    precision = table.plan.byte('precision', 6)
    numbers, one, out = table.stream(count), 1 << precision, []
    sizes = [max((bucket >> precision) - 1, 0) for bucket in numbers]
    need(max(sizes, default=0) + precision < 64, 'a bucket is beyond 64 bits')
    low = table.bits(sum(sizes))
    for bucket, size in zip(numbers, sizes):
        leading = bucket if bucket < 2 * one else one | bucket % one
        out.append(leading << size | low.number(size))
    return out


def split(number, base, size):
    """The digits of the number, the highest first."""
    return [number // base ** place % base for place in reversed(range(size))]


def digits(table, count):
    base, together, out = table.plan.varint(), 1, []
    table.plan.need(base >= 2, f'integers to base {base}')
    while base ** (together + 1) <= 1 << 128:
        together += 1
    sizes = [together] * (count // together) + [count % together]
    lengths = {size: (base ** size - 1).bit_length() for size in set(sizes)}
    bits = table.bits(sum(lengths[size] for size in sizes))
    for size in sizes:
        out += split(bits.number(lengths[size]), base, size)
    return out


def groups(table, count):
    base, together = table.plan.byte('base', 17, 2), table.plan.byte('count', 9, 1)
    table.plan.need(base ** together <= 256, 'a group is more than a byte')
    data = table.stream(-(-count // together))
    return [number for byte in data for number in split(byte, base, together)][:count]


LAYOUTS = (planes, rows, buckets, digits, groups)


def read_integers(table, count):
    plan, limit = table.plan, len(LAYOUTS)
    if table.version == 1:
        has_smallest = plan.byte('sign', 2)
        smallest = unzigzag(plan.varint()) if has_smallest else 0
        numbers = LAYOUTS[plan.byte('layout', limit)](table, count)
    else:
        has_smallest, layout = divmod(plan.byte('layout and sign', 16 + limit), 16)
        plan.need(layout < limit, f'unknown layout {layout}')
        numbers = LAYOUTS[layout](table, count)
        smallest = unzigzag(plan.varint()) if has_smallest else 0
    return [signed(number + smallest) if has_smallest else unzigzag(number) for number in numbers]
