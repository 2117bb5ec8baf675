"""The firmware bridge joins microcontrollers over serial links. Nothing in it yet but its place."""
