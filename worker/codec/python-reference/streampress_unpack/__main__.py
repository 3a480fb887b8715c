"""The command: python3 -m streampress_unpack IN.spk [-o OUT]"""
import argparse
import os
import sys

from . import Damaged, unpack

parser = argparse.ArgumentParser('streampress_unpack', description='Unpacks a packed file.')
parser.add_argument('input', metavar='IN.spk')
parser.add_argument('-o', dest='output', metavar='OUT', help='default: standard output')
parser.add_argument('--limit', type=int, default=64 << 20, metavar='BYTES', help='of a block')
options = parser.parse_args()
try:
    with open(options.input, 'rb') as source:
        blocks = list(unpack(source, options.limit))  # OUT appears only when all of it is right
    with open(options.output or os.dup(1), 'wb') as target:
        target.writelines(blocks)
except (Damaged, OSError) as error:
    sys.exit(f'{options.input}: {error}')
