"""Errors of a server, a file for each subject; base.py draws the tree."""
