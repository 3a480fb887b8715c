"""Unpacks files of the hybrid format, versions 1 and 2, as FORMAT.md describes them."""
from .common import Damaged, covered
from .container import unpack

__all__ = ['Damaged', 'covered', 'unpack']
