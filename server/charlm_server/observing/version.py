"""Which charlm this is."""

from importlib.metadata import version

VERSION = version("charlm")
