"""NoETL Edge: the durable core, the runtime, the worker and the command line.

Read `DESIGN.md` beside this file for the map. Nothing is imported here: each daemon loads only what it
needs, and a package that pulled in its subpackages would undo that.
"""

from typing import Final

#: What each boot writes into the log. The same as in `pyproject.toml` (a test holds them together): to read the
#: installed package's own takes 2 MB of a daemon's memory for `importlib.metadata`, measured on Python 3.11.
VERSION: Final = "0.1.0"
