"""One block of a bzip2 stream without the stream around it (FORMAT.md, "Version 2", "Codecs")."""
import re

from .common import Bits

RUN = re.compile(rb'(.)\1{3}(.)', re.DOTALL)  # four equal bytes, and how many more there are


def read_codes(bits, size):
    """The symbols of a table by their codes, which are texts of bits."""
    lengths, length = [], bits.number(5)
    for symbol in range(size):
        while bits.take(1) == '1':
            length += 1 if bits.take(1) == '0' else -1
        bits.need(1 <= length <= 20, f'a code of {length} bits')
        lengths.append((length, symbol))
    table, code, last = {}, 0, 0
    for length, symbol in sorted(lengths):
        code <<= length - last
        table[f'{code:0{length}b}'] = symbol
        code, last = code + 1, length
    return table


def read_symbols(bits, size):
    """Yield the symbols. Each 50 have a table, given by its place among the recent ones."""
    count, selectors = bits.number(3), bits.number(15)
    bits.need(2 <= count <= 6, f'{count} tables')
    recent, chosen = list(range(count)), []
    for _ in range(selectors):
        place = bits.data.find('0', bits.place) - bits.place
        bits.need(0 <= place < count, 'a table that does not exist')
        bits.take(place + 1)
        recent.insert(0, recent.pop(place))
        chosen.append(recent[0])
    tables = [read_codes(bits, size) for _ in range(count)]
    for number in [number for number in chosen for _ in range(50)]:
        for stop in range(bits.place + 1, bits.place + 21):
            symbol = tables[number].get(bits.data[bits.place:stop])
            if symbol is not None:
                break
        bits.need(symbol is not None, 'a code that does not exist')
        bits.place = stop
        yield symbol


def read_sorted(bits, limit):
    """The last bytes of the sorted rotations, at most `limit`."""
    rows = [bits.take(16) if has_bytes == '1' else '0' * 16 for has_bytes in bits.take(16)]
    used = [byte for byte, is_used in enumerate(''.join(rows)) if is_used == '1']
    bits.need(used, 'no bytes')
    out, run, weight = bytearray(), 0, 1
    for symbol in read_symbols(bits, len(used) + 2):
        if symbol < 2:  # a digit of the length of a run, the lowest first
            run, weight = run + (weight << symbol), 2 * weight
        bits.need(run + len(out) <= limit, 'more bytes than a block of this length has')
        if symbol >= 2:
            out += bytes([used[0]]) * run
            run, weight = 0, 1
            if symbol == len(used) + 1:
                break
            used.insert(0, used.pop(symbol - 1))
            out.append(used[0])
    else:
        bits.need(False, 'a block without its end')
    return bytes(out)


def decode_block(data, length):
    bits, out = Bits(data, 'BZ2'), bytearray()
    bits.need(bits.take(1) == '0', 'a randomised block')
    place, last = bits.number(24), read_sorted(bits, length + length // 4 + 1)
    is_right = place < len(last) and len(data) == bits.place + 7 >> 3
    bits.need(is_right, 'bytes are left over, or the first one lies outside')
    links = sorted(range(len(last)), key=last.__getitem__)
    for _ in last:
        place = links[place]
        out.append(last[place])
    raw = RUN.sub(lambda run: run[1] * (4 + run[2][0]), bytes(out))
    bits.need(len(raw) == length, f'{len(raw)} bytes instead of {length}')
    return raw
