"""Playbooks rehearsed: the real engine and workers on virtual time, with the outside answered from a case."""
