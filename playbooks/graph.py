"""The shape of a workflow: which arcs close circles, and which steps lead to which by the others.

Worked out when a blueprint is read; the scheduler's fan-in barrier rests on it. An arc closes a circle where a
depth-first walk from the entry, arcs in the playbook's order, meets a step it is still inside of. Without those arcs
the graph has no circles, so steps that wait for each other cannot exist.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Targets of each step's arcs, in order.
Targets = Sequence[Sequence[int]]


def back_arcs(targets: Targets, entry: int) -> frozenset[tuple[int, int]]:
    """`(step, arc number)` of every arc that closes a circle."""
    found: set[tuple[int, int]] = set()
    inside, seen = set[int](), set[int]()
    for root in (entry, *range(len(targets))):
        if root in seen:
            continue
        seen.add(root)
        inside.add(root)
        walk = [(root, iter(enumerate(targets[root])))]
        while walk:
            step, arcs = walk[-1]
            for number, target in arcs:
                if target in inside:
                    found.add((step, number))
                elif target not in seen:
                    seen.add(target)
                    inside.add(target)
                    walk.append((target, iter(enumerate(targets[target]))))
                    break
            else:
                inside.discard(step)
                walk.pop()
    return frozenset(found)


def reached(targets: Targets, back: frozenset[tuple[int, int]]) -> tuple[int, ...]:
    """For each step the set of steps it leads to by arcs leading forward, as a bit mask."""
    masks: list[int | None] = [None] * len(targets)
    for root in range(len(targets)):
        walk = [root]
        while walk:
            step = walk[-1]
            forward = [target for number, target in enumerate(targets[step]) if (step, number) not in back]
            missing = [target for target in forward if masks[target] is None]
            if missing:
                walk.extend(missing)
                continue
            mask = 0
            for target in forward:
                mask |= (masks[target] or 0) | 1 << target
            masks[step] = mask
            walk.pop()
    return tuple(mask or 0 for mask in masks)
