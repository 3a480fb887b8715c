"""Numbers, times and predictions (FORMAT.md, "Number format", "Time fields", "Prediction")."""
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from math import isnan
import re
import struct

from .common import need, signed, unzigzag
from .integers import read_integers

PLAIN, SEVENTEEN_DIGITS = 0, 1  # ways to print
FLOAT = re.compile(rb'[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|infinity|nan)', re.IGNORECASE)
DECIMAL = re.compile(rb'-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]+)?')
MONTHS = b'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split()
WEEKDAYS = b'Sun Mon Tue Wed Thu Fri Sat'.split()
ERA, YEAR_400 = 146097, date(400, 1, 1).toordinal()  # 400 years; Python has no year 0
FIRST_DAY, LAST_DAY = -719528, 2932896  # of the years 0 and 9999, counted from 1970-01-01
EPOCH = {b'Y': 1970, b'm': 1, b'd': 1, b'H': 0, b'M': 0, b'S': 0, b'f': 0}
SECONDS = {b'H': 3600, b'M': 60, b'S': 1}
TIME_FIELDS = {  # how to write them, and what to look for
    b'Y': (b'%(Y)04d', b'([0-9]{4})'),
    b'a': (b'%(a)b', b'(...)'),
    b'b': (b'%(b)b', b'(' + b'|'.join(MONTHS) + b')'),
    **{kind: (b'%%(%b)02d' % kind, b'([0-9]{2})') for kind in (b'm', b'd', b'H', b'M', b'S')},
}


def without_quotes(text):
    return text[1:-1] if len(text) > 1 and text[:1] == text[-1:] == b'"' else text


class Numbers:
    def __init__(self, plan, version):
        first = plan.byte()
        if version == 1:
            self.decimals, self.style, has_more = first, plan.byte('style', 4), True
        else:
            self.decimals, self.style, has_more = first & 31, first >> 5 & 3, first >> 7
        self.width = plan.byte() if has_more else 0
        flags = plan.byte('print', 3 if version == 1 else 16) if has_more else PLAIN
        self.print = flags & 3
        plan.need(self.print < 3, 'unknown print')
        self.places = plan.byte('binary places', 63) if flags & 4 else None
        self.steps = plan.varint((1 << 32) - 1, 'number of steps') if flags & 8 else 0
        plan.need(max(self.decimals, self.width) <= 18, 'a number format with more than 18 digits')
        self.has_extra = self.style == 3
        fraction = rb'(?:\.([0-9]{1,%d}))?' % self.decimals if self.decimals else b'()'
        plain = rb'(-?(?:0|[1-9][0-9]{0,18}))' + fraction
        self.plain = re.compile(rb'([0-9]{1,18})()' if self.width else plain)

    def show(self, number, extra):
        """A number as text; `extra` is its byte from the first stream."""
        if self.steps:
            single, = struct.unpack('<f', struct.pack('<f', float(number) / self.steps))
            number = round(single * 10.0 ** self.decimals)
            need(abs(number) < 9 * 10 ** 15, 'a number is too large for its steps')
        if self.print != PLAIN:
            return self.show_double(float(number) / 10.0 ** self.decimals, unzigzag(extra))
        if self.width:
            return f'{number:0{self.width}}'.encode()
        text = str(abs(number)).zfill(self.decimals + 1)
        point = len(text) - self.decimals
        needed = len(text[point:].rstrip('0'))
        shown = (self.decimals, needed, min(max(needed, 1), self.decimals), extra)[self.style]
        need(shown <= self.decimals, 'a number has more decimals than its column')
        text = text[:point] + '.' * (shown > 0) + text[point:point + shown]
        return ('-' * (number < 0) + text).encode()

    def show_double(self, value, steps):
        """A double, moved by some steps in a place or its last one, as text without exponent."""
        if self.places is None:
            bits, = struct.unpack('<q', struct.pack('<d', value))
            value, = struct.unpack('<d', struct.pack('<q', signed(bits + steps)))
        else:
            value = (round(value * 2.0 ** self.places) + steps) / 2.0 ** self.places
        exponent = f'{value:.16e}'.partition('e')[2]
        need(exponent and -4 <= int(exponent) < 17, 'a number that has an exponent')
        text = f'{value:.17g}' if self.print == SEVENTEEN_DIGITS else repr(value)
        return (f'{Decimal(text):f}' if 'e' in text else text).removesuffix('.0').encode()

    def read(self, text):
        """The integer that a value of another column stands for; 0 if it is none."""
        text = without_quotes(text)
        if self.print == PLAIN or self.width:
            match = self.plain.fullmatch(text)
            scale = 0 if self.width else self.decimals
            number = int(match[1] + (match[2] or b'').ljust(scale, b'0')) if match else 0
            number = number * (abs(number) < 1 << 63)
        else:
            value = float(text) * 10.0 ** self.decimals if FLOAT.fullmatch(text) else 0.0
            value = Decimal(0 if isnan(value) else max(-2.0 ** 63, min(value, 2.0 ** 63)))
            number = int(value.to_integral_value(ROUND_HALF_UP))
        if self.steps:
            number = round(float(number) * self.steps / 10.0 ** self.decimals)
        return max(-1 << 63, min(number, (1 << 63) - 1))  # 64 bits


class Times:
    def __init__(self, plan, _version):
        self.kinds, self.has_extra, fields, self.second, self.decimals = [], False, [], 1, 0
        for _ in range(plan.varint(1000, 'number of time fields')):
            kind = plan.take(1)
            self.kinds.append(kind)
            if kind == b'f':
                size = plan.byte('number of digits', 10, 1)
                fields.append((b'%%(f)0%dd' % size, b'([0-9]{%d})' % size))
                self.second = 10 ** size  # times are counted in the smallest fractions
            elif kind == b"'":
                fixed = plan.take(1)
                fields.append((fixed.replace(b'%', b'%%'), b'(%b)' % re.escape(fixed)))
            else:
                plan.need(kind in TIME_FIELDS, f'unknown time field {kind!r}')
                fields.append(TIME_FIELDS[kind])
        self.form = b''.join(form for form, _ in fields)
        self.pattern = re.compile(b''.join(pattern for _, pattern in fields), re.DOTALL)
        seconds = min([SECONDS.get(kind, 86400) for kind in self.kinds], default=86400)
        self.unit = 1 if b'f' in self.kinds else seconds

    def show(self, number, _extra):
        """A number of the smallest units since 1970 as text."""
        seconds, fraction = divmod(number * self.unit, self.second)
        days, second = divmod(seconds, 86400)
        need(FIRST_DAY <= days <= LAST_DAY, 'a time is not in the years 0 to 9999')
        eras, day = divmod(days - FIRST_DAY, ERA)
        day = date.fromordinal(day + YEAR_400)
        return self.form % {
            b'Y': day.year + (eras - 1) * 400, b'm': day.month, b'd': day.day,
            b'b': MONTHS[day.month - 1], b'a': WEEKDAYS[(days + 4) % 7],
            b'H': second // 3600, b'M': second // 60 % 60, b'S': second % 60, b'f': fraction}

    def read(self, text):
        """The number of units that a value of another column stands for; 0 if it is no time."""
        match = self.pattern.fullmatch(without_quotes(text))
        parts = dict(zip(self.kinds, match.groups())) if match else {b'm': 0}
        if b'b' in parts:
            parts[b'm'] = MONTHS.index(parts[b'b']) + 1
        year, month, day, hour, minute, second, fraction = (
            int(parts.get(kind, default)) for kind, default in EPOCH.items())
        if not 1 <= month <= 12:
            return 0
        eras, year = divmod(year, 400)
        days = date(year + 400, month, 1).toordinal() - YEAR_400 + eras * ERA + day - 1 + FIRST_DAY
        seconds = days * 86400 + hour * 3600 + minute * 60 + second
        return signed((seconds * self.second + fraction) // self.unit)


def by_ratio(table, form, rows):
    """The numbers of another column times a ratio, rounded down."""
    number, numerator, denominator = (table.plan.varint() for _ in range(3))
    numerator, places = unzigzag(numerator), min(form.decimals, 6) + 3
    need(-1 << 31 <= numerator < 1 << 31 and denominator, 'a ratio is none')
    for text in map(without_quotes, table.other(number, rows)):
        whole, _, fraction = text.partition(b'.')
        fits = DECIMAL.fullmatch(text) and len(fraction) <= places and abs(int(whole + fraction)) < 1 << 63
        yield (int(whole + fraction) * 10 ** (places - len(fraction)) if fits else 0) * numerator // denominator


def read_values(table, form_of, count, rows):
    """Numbers or times, which are stored as what they are more than predicted."""
    plan = table.plan
    form, kind = form_of(plan, table.version), plan.byte('prediction', 7 + table.version)
    cells = [list(by_ratio(table, form, rows))] if kind == 8 else []
    for _ in range((0, 0, 0, 1, 1, 2, 2, 0, 0)[kind]):
        number, is_next = divmod(plan.varint(what='cell') * (2 if kind == 4 else 1), 2)
        cell = [form.read(value) for value in table.other(number, rows)]
        cells.append(cell[1:] + cell[-1:] if is_next else cell)
    step = unzigzag(plan.varint()) if kind == 7 else 0
    extra = table.stream(count) if form.has_extra else bytes(count)
    above, before, values = 0, 0, []
    for place, rest in enumerate(read_integers(table, count)):
        if kind < 3:
            predicted = (0, above, 2 * above - before)[kind]
        elif kind == 4:
            predicted = above + cells[0][place] - (cells[0][place - 1] if place else 0)
        elif kind == 7:
            predicted = place * step >> 32
        else:
            predicted = (min if kind == 6 else max)([cell[place] for cell in cells])
        above, before = signed(predicted + rest), above
        values.append(form.show(above, extra[place]))
    return values
