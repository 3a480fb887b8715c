"""Unpacks files of the hybrid format, versions 1 and 2, as FORMAT.md describes them."""
from .common import Damaged
from .container import unpack

__all__ = ['Damaged', 'unpack']
