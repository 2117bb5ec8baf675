"""Loops under way: what they run over, frames of items out, results in."""
