"""What carries sealed segments from a box to its centre. See DESIGN.md."""
