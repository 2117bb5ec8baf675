"""Folders of golden tests are in memory (tests/in_memory.py)."""

from tests.in_memory import memory, tmp_path

__all__ = ["memory", "tmp_path"]
