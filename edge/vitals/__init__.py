"""The box's own readings, sampled and packed as requests. See DESIGN.md."""
