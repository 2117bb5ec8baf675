"""The box's own readings as requests: see DESIGN.md."""
