"""The version of charlm."""

from importlib.metadata import version

VERSION = version("charlm")
