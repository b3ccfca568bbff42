"""Readers of the fields' own formats."""
