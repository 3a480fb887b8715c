"""The command: python3 -m streampress_unpack IN.spk [-o OUT]"""
import argparse
import os
import sys

from . import Damaged, unpack
from .container import DEFAULT_LIMIT


def main():
    """Unpack one file. OUT appears only when all of it is right; the exit status is 1 if it is not."""
    parser = argparse.ArgumentParser(prog='streampress_unpack', description='Unpacks a packed file.')
    parser.add_argument('input', metavar='IN.spk')
    parser.add_argument('-o', dest='output', metavar='OUT', help='where to write, standard output if left out')
    parser.add_argument('--limit', type=int, default=DEFAULT_LIMIT, metavar='BYTES',
                        help='the largest raw or packed length of a block, %(default)s if left out')
    options = parser.parse_args()
    part = options.output and options.output + '.part'
    try:
        with open(options.input, 'rb') as source, open(part or os.dup(1), 'wb') as target:
            for raw in unpack(source, options.limit):
                target.write(raw)
        if part:
            os.replace(part, options.output)
    except (Damaged, OSError) as error:
        if part and os.path.exists(part):
            os.remove(part)
        sys.exit(f'{options.input}: {error}')


if __name__ == '__main__':
    main()
