"""Sealed segments: the log as it is kept, carried and stored outside the box. See DESIGN.md."""
