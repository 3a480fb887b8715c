"""What the modules share: the error and bounded reading."""


class Damaged(Exception):
    """The packed bytes cannot be right. `offset` counts from the start of the packed file."""

    def __init__(self, message, offset=None):
        super().__init__(message if offset is None else f'offset {offset}: {message}')
        self.message, self.offset = message, offset


def need(is_right, message):
    """Stop if something is not as it must be."""
    if not is_right:
        raise Damaged(message)


def signed(number):
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)  # modulo 2^64


def unzigzag(number):
    """0, 1, 2, 3, … stand for 0, -1, 1, -2, …"""
    return number >> 1 ^ -(number & 1)


def decimal(text, limit):
    """A number as decimal text, which must be below `limit`."""
    digits = text.removeprefix(b'+')
    number = int(b'0' + digits.lstrip(b'0')[:20]) if digits.isdigit() else limit
    need(number < limit, f'a column has {text[:20]!r} instead of a number below {limit}')
    return number


class Reader:
    """Reads a byte string from front to back; errors name it and the place reached."""

    def __init__(self, data, name):
        self.data, self.place, self.name = data, 0, name

    def need(self, is_right, message):
        if not is_right:
            raise Damaged(f'{self.name}, place {self.place}: {message}')

    def take(self, count):
        start, stop = self.place, self.place + count
        if stop > len(self.data):
            self.need(False, f'{count} are needed, {len(self.data) - start} are left')
        self.place = stop
        return self.data[start:stop]

    def byte(self, what='byte', limit=256, least=0):
        """The next byte, which must be at least `least` and below `limit`."""
        byte = self.take(1)[0]
        self.need(least <= byte < limit, f'unknown {what} {byte}')
        return byte

    def varint(self, limit=(1 << 64) - 1, what='varint'):
        """The next LEB128 number, which must be at most `limit`."""
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if number > limit or shift > 63:
                self.need(False, f'{what} is more than {limit}')
            if byte < 128:
                return number
            shift += 7

    def string(self, limit=1 << 32):
        return self.take(self.varint(limit, 'length'))

    def line(self):
        stop = self.data.find(b'\n', self.place)
        self.need(stop >= 0, 'there are too few lines')
        return self.take(stop + 1 - self.place)[:-1]

    def end(self):
        self.need(self.place == len(self.data), f'{len(self.data) - self.place} are left over')


class Bits(Reader):
    """Reads the bits of a byte string as a text of '0' and '1', the highest of each byte first."""

    def __init__(self, data, name):
        super().__init__(f'{int.from_bytes(data, "big"):0{8 * len(data)}b}', name)

    def number(self, count):
        return int('0' + self.take(count), 2)
