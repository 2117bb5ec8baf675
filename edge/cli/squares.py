"""A picture of squares (QR code) for a terminal. Called by `edge receipt show --qr`; the only door to segno.

It must be readable for a camera: dark on light whatever colours the terminal has, with its quiet border.
"""

from __future__ import annotations

from typing import Final

#: Modules that stay light around it; the standard asks for four.
BORDER: Final = 4
_HALVES: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
_BLACK_ON_WHITE: Final = "\x1b[30;107m"
_RESET: Final = "\x1b[0m"


def rows(text: str) -> list[list[int]]:
    """The modules, 1 for dark, with the border around them. Text of capitals and digits takes the fewest."""
    import segno  # 0.2 s on a slow card: only where somebody wants a picture

    made = segno.make(text, micro=False, error="l")
    return [[int(dark) for dark in row] for row in made.matrix_iter(border=BORDER)]


def drawn(modules: list[list[int]], *, coloured: bool, blocks: bool) -> str:
    """Lines for a terminal. With `blocks` two rows stand in one line of half blocks, else a module is `##`.

    `coloured` asks the terminal for black on white; without it a dark terminal shows the picture inverted.
    """
    if not blocks:
        lines = ["".join("##" if dark else "  " for dark in row) for row in modules]
    else:
        below = [*modules[1:], [0] * len(modules[0])]
        pairs = list(zip(modules, below, strict=True))[::2]
        lines = ["".join(_HALVES[pair] for pair in zip(*two, strict=True)) for two in pairs]
    if coloured:
        lines = [f"{_BLACK_ON_WHITE}{line}{_RESET}" for line in lines]
    return "\n".join(lines)
