"""Tool kinds a step may name: one file each, one registry."""
