"""Numbers and times: how integers are written and read, and what each one is expected to be."""
from datetime import date
from decimal import Decimal
from math import isfinite
import re
import struct

from .common import Damaged, SIGN64, covered, signed, unzigzag
from .integers import read_integers

PLAIN, SEVENTEEN = 0, 1  # ways to print; 2 is the fewest digits that read back
FLOAT = re.compile(rb'[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|infinity|nan)', re.IGNORECASE)
MONTHS = b'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split()
WEEKDAYS = b'Sun Mon Tue Wed Thu Fri Sat'.split()
# Python has no year 0, but the calendar repeats every 400 years: an era.
ERA, YEAR_400 = 146097, date(400, 1, 1).toordinal()
FIRST_DAY, LAST_DAY = -719528, 2932896  # of the years 0 and 9999, counted from 1970-01-01
WIDTHS = {'Y': 4, 'm': 2, 'd': 2, 'H': 2, 'M': 2, 'S': 2, 'b': 3, 'a': 3, "'": 1}


def without_quotes(text):
    """A value without the double quotes around it, if there are any."""
    return text[1:-1] if len(text) > 1 and text[:1] == text[-1:] == b'"' else text


class Numbers:
    """How the numbers of a column are written."""

    def __init__(self, plan, version):
        self.decimals, self.width, self.print = plan.byte(), 0, PLAIN
        if version == 1:
            self.style = plan.byte(4, 'style')
        else:
            more, self.style, self.decimals = self.decimals >> 7, self.decimals >> 5 & 3, self.decimals & 31
        if version == 1 or more:
            self.width, self.print = plan.byte(), plan.byte(3, 'print')
        covered.add(f'numbers: print {self.print}, style {self.style}, width {"> 0" if self.width else "0"}')
        self.has_extra = self.print != PLAIN or self.style == 3
        part = rb'(?:\.([0-9]{1,%d}))?' % self.decimals if self.decimals else rb'()'
        self.plain = re.compile(rb'([0-9]{1,18})()' if self.width else rb'(-?(?:0|[1-9][0-9]{0,18}))' + part)

    def show(self, number, extra):
        """A number as text; `extra` is its byte from the first stream, if there is one."""
        if self.print != PLAIN:
            return show_double(number / 10 ** self.decimals, unzigzag(extra), self.print)
        sign, text = '-' * (number < 0), str(abs(number)).zfill(max(self.width, self.decimals + 1))
        if self.decimals:
            whole, part = text[:-self.decimals], text[-self.decimals:]
            needed = len(part.rstrip('0'))
            shown = (self.decimals, needed, max(needed, 1), extra)[self.style]
            if not needed <= shown <= self.decimals:
                raise Damaged(f'a number with {needed} of {self.decimals} decimals is to be written with {shown}')
            text = whole + '.' * (shown > 0) + part[:shown]
        return (sign + text).encode()

    def read(self, text):
        """The integer that a value of another column stands for; 0 if it is none."""
        text = without_quotes(text)
        if self.print != PLAIN:
            return scaled(text, self.decimals)
        match = self.plain.fullmatch(text)
        number = int(match[1] + (match[2] or b'').ljust(self.decimals, b'0')) if match else 0
        return number if abs(number) < SIGN64 else 0


def show_double(value, steps, form):
    """A double, moved by some steps in its last place, as text without exponent."""
    bits = struct.unpack('<q', struct.pack('<d', value))[0]
    value = struct.unpack('<d', struct.pack('<q', signed(bits + steps)))[0]
    if not isfinite(value):
        raise Damaged('a number is not finite')
    text = '%.17g' % value if form == SEVENTEEN else repr(value)
    if 'e' in text:
        text = f'{Decimal(text):f}'
    return text.removesuffix('.0').encode()


def scaled(text, decimals):
    """A text as a double times 10^decimals, rounded half away from zero; 0 if it is no number."""
    value = float(text) * 10.0 ** decimals if FLOAT.fullmatch(text) else 0.0
    if value != value:
        return 0
    if abs(value) >= SIGN64:  # the nearest that 64 bits can hold, for infinity as well
        return SIGN64 - 1 if value > 0 else -SIGN64
    whole = int(abs(value))
    whole += abs(value) - whole >= 0.5
    return -whole if value < 0 else whole


class Times:
    """How the times of a column are written."""

    has_extra = False

    def __init__(self, plan, _version):
        self.pieces, fraction = [], 0
        for _ in range(plan.varint()):
            kind = chr(plan.byte())
            if kind not in WIDTHS and kind != 'f':
                plan.fail(f'unknown piece of times {kind!r}')
            extra = plan.byte(256, 'extra', kind == 'f') if kind in "f'" else 0
            fraction = extra if kind == 'f' else fraction
            self.pieces.append((kind, extra, extra if kind == 'f' else WIDTHS[kind]))
            covered.add(f'times: piece {kind}')
        self.second = 10 ** fraction  # a second and the smallest unit, counted in the smallest fractions
        sizes = {'f': 1, 'S': self.second, 'M': 60 * self.second, 'H': 3600 * self.second}
        self.unit = min((sizes[kind] for kind, _, _ in self.pieces if kind in sizes), default=86400 * self.second)

    def show(self, number, _extra):
        """A number of the smallest units since 1970 as text."""
        days, rest = divmod(number * self.unit, 86400 * self.second)
        if not FIRST_DAY <= days <= LAST_DAY:
            raise Damaged(f'a time is not in the years 0 to 9999: day {days}')
        eras, day = divmod(days - FIRST_DAY, ERA)
        day, (second, rest) = date.fromordinal(day + YEAR_400), divmod(rest, self.second)
        numbers = {'Y': day.year + (eras - 1) * 400, 'm': day.month, 'd': day.day,
                   'H': second // 3600, 'M': second // 60 % 60, 'S': second % 60, 'f': rest}
        names, out = {'b': MONTHS[day.month - 1], 'a': WEEKDAYS[(days + 4) % 7]}, b''
        for kind, extra, width in self.pieces:
            out += b'%0*d' % (width, numbers[kind]) if kind in numbers else names.get(kind, bytes([extra]))
        return out

    def read(self, text):
        """The number of units that a value of another column stands for; 0 if it is no such time.

        Only the month is checked, the weekday not even read: what else is out of range counts on.
        """
        text, place, numbers = without_quotes(text), 0, {'Y': 1970, 'm': 1, 'd': 1, 'H': 0, 'M': 0, 'S': 0, 'f': 0}
        if len(text) != sum(width for _, _, width in self.pieces):
            return 0
        for kind, extra, width in self.pieces:
            part, place = text[place:place + width], place + width
            if kind in numbers and part.isdigit():
                numbers[kind] = int(part)
            elif kind == 'b' and part in MONTHS:
                numbers['m'] = MONTHS.index(part) + 1
            elif not (kind == 'a' or kind == "'" and part[0] == extra):
                return 0
        if not 1 <= numbers['m'] <= 12:
            return 0
        eras, year = divmod(numbers['Y'], 400)
        days = date(year + 400, numbers['m'], 1).toordinal() - YEAR_400 + eras * ERA + numbers['d'] - 1
        seconds = (days + FIRST_DAY) * 86400 + numbers['H'] * 3600 + numbers['M'] * 60 + numbers['S']
        return signed((seconds * self.second + numbers['f']) // self.unit)


def read_predicted(table, form, count, rows):
    """Integers that are stored as what they are more than expected, and the byte that goes with each."""
    plan, kind = table.plan, table.plan.byte(8, 'prediction')
    covered.add(f'prediction {kind}')
    others, ahead = [], []
    for _ in range((0, 0, 0, 1, 1, 2, 2, 0)[kind]):
        number, follows = (plan.varint(), 0) if kind == 4 else divmod(plan.varint(), 2)
        others.append([form.read(value) for value in table.other(number, rows)])
        ahead.append(follows)
        covered.add(f'prediction {kind}' + follows * ' from the next value')
    step = unzigzag(plan.varint()) if kind == 7 else 0
    extra = table.stream(count) if form.has_extra else bytes(count)
    above = before = 0
    numbers = []
    for i, rest in enumerate(read_integers(table, count)):
        if kind < 3:
            expected = (0, above, 2 * above - before)[kind]
        elif kind == 4:
            expected = above + others[0][i] - (others[0][i - 1] if i else 0)
        elif kind == 7:
            expected = i * step >> 32
        else:
            expected = [other[min(i + follows, count - 1)] for other, follows in zip(others, ahead)]
            expected = min(expected) if kind == 6 else max(expected)
        before, above = above, signed(expected + rest)
        numbers.append(above)
    return numbers, extra
