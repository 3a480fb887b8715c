"""What the modules share: the error, bounded reading, and the record of what was met."""

MASK64, SIGN64 = (1 << 64) - 1, 1 << 63
covered = set()  # names of the codings, layouts, … that have been met; the tests look at it


class Damaged(Exception):
    """The packed bytes cannot be right. `offset` counts from the start of the packed file."""

    def __init__(self, message, offset=None):
        super().__init__(message if offset is None else f'offset {offset}: {message}')
        self.message, self.offset = message, offset


def signed(number):
    """A number modulo 2^64 as a signed one."""
    return (number + SIGN64 & MASK64) - SIGN64


def unzigzag(number):
    """0, 1, 2, 3, … stand for 0, -1, 1, -2, …"""
    return number >> 1 ^ -(number & 1)


class Reader:
    """Reads a byte string from front to back; errors name it and the place reached."""

    def __init__(self, data, name):
        self.data, self.place, self.name = data, 0, name

    def fail(self, message):
        """Raise the error."""
        raise Damaged(f'{self.name}, byte {self.place}: {message}')

    def take(self, count):
        """The next `count` bytes."""
        if count > len(self.data) - self.place:
            self.fail(f'{count} bytes needed, {len(self.data) - self.place} left')
        self.place += count
        return self.data[self.place - count:self.place]

    def byte(self, limit=256, what='byte', least=0):
        """The next byte, which must be at least `least` and below `limit`."""
        byte = self.take(1)[0]
        return byte if least <= byte < limit else self.fail(f'unknown {what} {byte}')

    def varint(self, limit=MASK64, what='varint'):
        """The next LEB128 number, which must be at most `limit`."""
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 127) << shift
            if number > limit or shift > 63:
                self.fail(f'{what} is more than {limit}')
            if byte < 128:
                return number
            shift += 7

    def string(self):
        """A varint length and as many bytes."""
        return self.take(self.varint())

    def end(self):
        """Everything must have been read."""
        if self.place != len(self.data):
            self.fail(f'{len(self.data) - self.place} bytes are left over')


class Budget:
    """How many values, and bytes of values, a block may still make: crafted files must not fill the memory."""

    def __init__(self, raw_length):
        self.left = 8 * raw_length + 65536  # real files need up to four times the raw length

    def spend(self, amount):
        """Count what is about to be made."""
        self.left -= amount
        if self.left < 0:
            raise Damaged('the columns hold far more than the block')
