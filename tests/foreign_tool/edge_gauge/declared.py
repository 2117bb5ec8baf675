"""What the compiler learns of `gauge`: plain data, nothing loaded."""

from edge.core.declared import DeclaredKind

GAUGE = DeclaredKind(
    "Writes a reading with its unit.",
    {"value": "The reading.", "unit": "Its unit: bar, °C or rpm."},
    required=("unit",),
    effects=("pure", "read"),
)
BROKEN = DeclaredKind("Declares what no kind may.", {"kind": "Not its own."})
