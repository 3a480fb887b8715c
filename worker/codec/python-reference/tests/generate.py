"""Makes inputs from a seed: tables of columns of many kinds, written as JSON, NDJSON, CSV or log lines."""
from datetime import datetime, timedelta
import json
import random
import struct
import sys
import uuid

TIMES = ('%Y-%m-%d', '%Y-%m-%dT%H:%M:%SZ', '%Y-%m-%d %H:%M:%S.%f', '%d/%b/%Y:%H:%M:%S +0000', '%H:%M:%S',
         '%m/%d/%Y',
         '%a %b %d %H:%M:%S %Y', '%a, %d %b %Y %H:%M:%S GMT', '%Y%m%d%H%M%S', '%d.%m.%Y %H:%M', '%Y-%m-%d %H', '%H:%M',
         '%Y%m%d', '%y-%m-%d', '%b %d %H:%M:%S', '%Y-%m', '%H:%M:%S.%f', '%Y-%m-%dT%H:%M:%S,%f', '%d-%b-%Y', '%a')
WORDS = ('the of and Zürich "quoted" a,b x\ty Köln null true false NaN - Inf 1e5 0x1F über C:\\dir [] {} '
         '\u4e2d\u6587').split(' ')
ODD = ('', '0', '-0', '00', '+1', '1.', '.5', '1e3', '-1.50', '9223372036854775807', '-9223372036854775808',
       '2024-02-30',
       '18446744073709551616', '0.1', '123456789012345678901234567890', ' 7', 'n/a', 'inf', 'NAN', '23:59:60', '1_000',
       '12345678901234567.89', '0.0000000001', 'ff', 'a\\"b', '1,5', 'x y', '2024-01-01T00:00:00Z', '0001-01-01')


def integers(r, n, _done):
    """Integers of some size, walking, random or in steps."""
    step, width = r.choice((0, 1, 1, 7, 1000, 10 ** r.randrange(18))), r.choice((0, 0, 0, 3, 6, 12))
    kind, now, out = r.randrange(6), r.randint(-step, step * 9 + 5), []
    for i in range(n):
        if kind == 0:
            now += step
        elif kind == 1:
            now += r.randint(-step, step)
        elif kind == 2:
            now = r.randint(0, max(1, step))
        elif kind == 3:
            now = (int(r.lognormvariate(3, 4)) * r.choice((1, 1, -1)) if step > 1
                   else r.randrange(r.choice((2, 3, 5, 11))))
        elif kind == 4:
            now = (i * (3 * step + 1) + 5) // 4
        else:
            now = r.getrandbits(r.choice((8, 16, 32, 63, 64))) - (step & 1) * (1 << 62)
        out.append(str(abs(now)).zfill(width) if width else str(now))
    return out


def decimals(r, n, _done):
    """Decimal numbers, printed in many ways."""
    places, kind, now, out = r.choice((1, 2, 2, 3, 6, 9, 15)), r.randrange(7), r.uniform(-50, 5000), []
    scale = 10 ** r.randrange(-6, 20)
    for i in range(n):
        now += r.gauss(0, r.choice((0.01, 1)))
        text = f'{now:.{places}f}'
        if kind == 1:
            text = text.rstrip('0').rstrip('.')
        elif kind == 2:
            text = repr(float(text))
        elif kind == 3:
            text = text.rstrip('0').rstrip('.') if r.random() < 0.5 else f'{now:.{r.randrange(places + 1)}f}'
        elif kind == 4:
            text = repr(round(now, places) * 3 + 0.1)
        elif kind == 5:
            text = '%.17g' % (round(now, places) * 7)
        elif kind == 6:
            text = repr(round(now, 3) * scale)
        out.append(text)
    return out


def times(r, n, _done):
    """Times in one format, in order or not, some of them wrong."""
    form, step = r.choice(TIMES), 10 ** r.uniform(-3, 6)
    now = datetime(r.choice((1, 1900, 1969, 1970, 2024, 2024, 9990)), r.randint(1, 12), 28)
    now += timedelta(seconds=r.random())
    cut, ordered, out = r.choice((0, 3, 3, 4, 5)), r.random() < 0.7, []
    for _ in range(n):
        if ordered:
            now = now if now.year > 9998 else now + timedelta(seconds=r.random() * step)
        else:
            now = now.replace(year=r.randint(1950, 2050), day=r.randint(1, 28), hour=r.randrange(24))
        text = now.strftime(form).zfill(len(form) if form[:2] == '%Y' and now.year < 1000 else 0)
        out.append(text[:-cut] if cut and '%f' in form else text)
    return out


def hexadecimal(r, n, _done):
    """UUIDs and other hexadecimal numbers."""
    kind, bits, fixed = r.randrange(5), 4 * r.choice((4, 7, 8, 16, 31, 32, 64)), r.getrandbits(256)
    mask = r.getrandbits(256) & r.getrandbits(256) if r.random() < 0.5 else -1
    out = []
    for _ in range(n):
        number = (r.getrandbits(256) & mask | fixed & ~mask) & (1 << (128 if kind < 2 else bits)) - 1
        text = str(uuid.UUID(int=number)) if kind < 2 else f'{number:0{bits // 4}x}'
        out.append(text.upper() if kind in (1, 3) else text)
    return out


def words(r, n, _done):
    """Values from a list, evenly or some more often than others."""
    size = r.choice((1, 2, 3, 5, 20, 300, 700))
    entries = [r.choice(WORDS) + str(r.randrange(9 * size)) * r.randrange(2) for _ in range(size)]
    if r.random() < 0.5:
        return [r.choice(entries) for _ in range(n)]
    return [entries[min(int(r.expovariate(0.5)), size - 1)] for _ in range(n)]


def templates(r, n, _done):
    """Fixed text with parts that vary."""
    forms = r.sample(('user %d logged in from 10.0.%d.%d', 'GET /a/%d?x=%d&x=%d HTTP/1.1', 'blk_%d to %d', '%d/%d %d%%',
                      'took %dms (%d of %d)', 'a=%d b=%d a=%d', '[%d] id:%d', '/srv/%d/x%d.png'), r.randint(1, 4))
    return [(form % ((r.randrange(1000), i, r.choice((200, 404, 500)))[:form.count('%d')])) for i in range(n)
            for form in (r.choice(forms),)]


def related(r, n, done):
    """Something that depends on an earlier column."""
    if not done:
        return words(r, n, done)
    other, kind, rate = r.choice(done), r.randrange(9), r.choice((0, 0, 0.02, 0.2))
    ratio = r.choice((2, 0.1, 0.01, 100, -3, 1.19, 1 / 7))
    known, out, extra = {}, [], words(r, n, done)
    for i, value in enumerate(other):
        try:
            number = float(value)
            number = number if abs(number) < 1e15 else 0.0
        except (ValueError, OverflowError):
            number = 0.0
        where = len(value.partition('.')[2])
        if kind == 0 or r.random() < rate:
            new = extra[i] if r.random() < rate else value
        elif kind == 1:
            new = known.setdefault(value, extra[i])
        elif kind == 2:
            known[value] = known.get(value, r.randrange(1000)) + r.randrange(3)
            new = str(known[value])
        elif kind in (3, 4):
            new = f'{number + r.choice((0, 0, 1, 2)) * 10 ** -where:.{where}f}'
        elif kind == 5:
            follower = other[min(i + 1, n - 1)]
            new = follower if r.random() < 0.7 else value
        elif kind == 8:
            new = f'{number * ratio + r.choice((0, 0, 0.01)):.{r.choice((0, where)) if rate else where}f}'
        elif kind == 6:
            new = f'{max(number, 3 * (i % 5)) + r.choice((0, 0.25)):.{max(where, 2)}f}'
        else:
            new = value.strip('"') if value[:1] == '"' else f'"{value}"'
        out.append(new)
    return out


def mixed(r, n, done):
    """One kind with exceptions: odd values or another kind."""
    main, other = (r.choice(KINDS[:6])(r, n, done) for _ in range(2))
    if r.random() < 0.5:
        other = [r.choice(ODD) for _ in range(n)]
    rate = r.choice((0.005, 0.05, 0.4, 0.9))
    return [b if r.random() < rate else a for a, b in zip(main, other)]


def odd(r, n, _done):
    """Odd values."""
    return [r.choice(ODD) for _ in range(n)]


KINDS = (integers, decimals, times, hexadecimal, words, templates, related, related, related, mixed, mixed, odd)


def make_columns(r, n, width):
    """Columns of text."""
    done = []
    for _ in range(width):
        done.append(r.choice(KINDS)(r, n, done))
    return done


def json_value(r, text, quote):
    """A value for JSON: as it is if it is a number or a literal, else in quotes."""
    if not quote:
        try:
            json.loads(text)
            return text
        except ValueError:
            pass
    return json.dumps(text, ensure_ascii=r.random() < 0.5) if '\\"' not in text else '"' + text + '"'


def as_json(r, columns, n):
    """An array or lines of objects; some parts nested, missing, in another order, or in odd white space."""
    colon, comma = r.choice(((':', ','), (': ', ', '), (' : ', ' ,'), (':\n  ', ',\n\t')))
    names = [r.choice(('id', 'a.b', 'k', 'x y', 'é', 'q\\"', '', 'in')) + str(i) * r.randrange(2)
             for i in range(len(columns))]
    modes = [r.choice(('plain', 'plain', 'plain', 'quote', 'list', 'map', 'nest', 'pair', 'rare', 'deep'))
             for _ in columns]
    rows, swap = [], r.random() < 0.2
    for i in range(n):
        parts = []
        for name, mode, column in zip(names, modes, columns):
            value = json_value(r, column[i], mode == 'quote')
            if mode == 'list':
                size = r.choice((0, 1, 1, 2, 5))
                between = r.choice((comma, ','))
                value = '[' + between.join(json_value(r, column[max(i - j, 0)], False) for j in range(size)) + ']'
            elif mode == 'map':
                value = '{' + comma.join(f'"k{r.randrange(999)}"{colon}{json_value(r, column[max(i - j, 0)], False)}'
                                         for j in range(r.randrange(4))) + '}'
            elif mode == 'nest':
                other = r.choice(('[]', '{}', '[1,2]', 'null', value))
                value = '{"v"' + colon + value + comma + '"w"' + colon + other + '}'
            elif mode == 'pair':
                value = '[' + value + comma + r.choice(('1', '-0.5', '"s"')) + ' ' * r.choice((0, 0, 0, 1)) + ']'
            elif mode == 'deep':
                value = '[' * (i % 5) + value + ']' * (i % 5)
            elif mode == 'rare' and r.random() < 0.5:
                continue
            parts.append(f'"{name}"{colon}{value}')
        if swap:
            r.shuffle(parts)
        row = '{' + comma.join(parts) + '}'
        rows.append(row if r.random() < 0.99 else r.choice(('7', 'null', '"s"', '[]', '[[1]]')))
    if r.random() < 0.5:
        return r.choice(('', '\ufeff')) + '[' + r.choice((',', ',\n', ', ')).join(rows) + ']' + r.choice(('', '\n'))
    gap = r.choice(('\n', '\n', '\n', '\r\n', ' ', '\n\n'))
    return gap.join(rows) + r.choice(('', gap))


def as_csv(r, columns, n):
    """Rows with a delimiter; some too short, too long, empty or with line ends in quotes."""
    delimiter, end, strict = r.choice((',', ',', ';', '\t', '|')), r.choice(('\n', '\n', '\r\n')), r.random() < 0.6
    always, rows = r.random() < 0.1, [delimiter.join(f'col{i}' for i in range(len(columns)))]
    for i in range(n):
        fields = [column[i] for column in columns]
        if strict:
            fields = ['"' + f.replace('"', '""') + '"' if always or set(f) & set('",;\t|\n') else f for f in fields]
        if r.random() < 0.005:
            fields = r.choice((fields[:-1], fields + ['more'], [], ['"two\nlines"'] + fields[1:],
                               ['un"balanced'] + fields[1:]))
        rows.append(delimiter.join(fields))
    return end.join(rows) + r.choice(('', end, end))


def as_lines(r, columns, n):
    """Log lines."""
    names = [r.choice(('', '', 'k=', 'size: ', '[')) for _ in columns]
    gap, end = r.choice((' ', ' ', '  ', ' - ', '\t')), r.choice(('\n', '\n', '\n', '\r\n'))
    rows = [gap.join(name + column[i] for name, column in zip(names, columns)) for i in range(n)]
    rows = [row if r.random() < 0.99 else r.choice(('', 'x', row[:9], row * 3)) for row in rows]
    return end.join(rows) + r.choice(('', end))


def damage(r, data):
    """Some bytes changed, added or left out."""
    data = bytearray(data)
    for _ in range(r.choice((1, 1, 3, 20))):
        place, kind = r.randrange(len(data) + 1), r.randrange(4)
        new = (b'', r.choice((b'"', b'\0', b'\xff', b'\n', b'{', b',', b'\xc3')), b'', r.randbytes(3))[kind]
        data[place:place + (kind > 1) * r.randrange(9)] = new
    return bytes(data)


def special(r):
    """Inputs that are no tables."""
    kind = r.randrange(9)
    size = r.choice((0, 1, 2, 100, 5000))
    if kind == 0:
        return bytes([r.randrange(256)]) * size
    if kind == 1:
        return r.randbytes(size)
    if kind == 2:
        return r.choice((b'[', b'{"a":')) * size + b'1' + r.choice((b']', b'}')) * size
    if kind == 3:
        return r.choice((b'\n', b'\r\n', b'","', b'{}', b'[] ', b'1 ', b'""\n', b'a,b\n', b'\0\n', b'null\n')) * size
    if kind == 4:
        return b'x' * 20000 + b'\n' + ' '.join(r.choices(WORDS, k=size)).encode()
    if kind == 5:
        return b'\n'.join(r.randbytes(r.randrange(1, 12)) for _ in range(size // 10))
    if kind == 6:
        return b''.join(struct.pack('<Id', i, i / 3) for i in range(size // 12))
    if kind == 7:
        lines = (' '.join(r.choices(WORDS, k=r.randrange(9))) for _ in range(size // 9))
        return '\n'.join(lines).encode('latin-1', 'replace')
    return b'"' * (size + 1) + b'\n' + b'a,"b\n' * (size // 5)


def generate(seed):
    """The bytes for a seed."""
    r = random.Random(seed)
    if r.random() < 0.08:
        return special(r)
    n, width = r.choice((1, 2, 7, 40, 40, 200, 200, 700)), r.choice((1, 2, 3, 5, 8))
    columns = make_columns(r, n, width)
    data = r.choice((as_json, as_json, as_csv, as_csv, as_lines))(r, columns, n).encode()
    return damage(r, data) if r.random() < 0.1 else data


if __name__ == '__main__':
    sys.stdout.buffer.write(generate(int(sys.argv[1])))
