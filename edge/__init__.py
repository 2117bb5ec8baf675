"""NoETL Edge: the durable core, the runtime, the worker and the command line.

Read `DESIGN.md` beside this file for the map. Nothing is imported here: each daemon loads only what it
needs, and a package that pulled in its subpackages would undo that.
"""
