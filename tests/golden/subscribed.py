"""The histories of `v1-subscriptions` and `v1-circuits`: messages, batches and ticks; a downstream that fails."""

from __future__ import annotations

from typing import Final

from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.core.events import (
    BootStarted,
    BootStopped,
    CatalogRegistered,
    ExecutionFinished,
    ExecutionRequested,
)
from edge.core.subscription_events import (
    MessageDeadLettered,
    MessageDeduplicated,
    MessageReceived,
    SubscriptionDeactivated,
    SubscriptionDraining,
    SubscriptionPaused,
    SubscriptionPosition,
    SubscriptionResumed,
    TicksMissed,
)
from tests.golden.entries import BLUEPRINT, DIGEST, PROBLEM, Entry, of, of_box

#: A subscription: messages, batches that completed and failed, its states, a timer's ticks.
SUBSCRIPTIONS: Final[list[list[Entry]]] = [
    [
        of_box(BootStarted("0.3.0", "golden", False)),
        of_box(CatalogRegistered("demo/golden", DIGEST, BLUEPRINT)),
        of(3, CatalogRegistered("in/golden", DIGEST, BLUEPRINT, "subscription")),
    ],
    [
        of(3, MessageReceived("a/ü", 1_767_225_600_000_000_000, b'{"n": 1}', packet=1)),
        of(3, MessageReceived("a/b", 5, None, DIGEST, "text/plain", {"h": "v"}, 2, True, "k", "a/p", "id")),
        of(3, MessageDeduplicated("id", 5)),
    ],
    # 7: a batch that completes; 9: one of the other lane that fails, twice.
    [
        of(
            7,
            ExecutionRequested(
                DIGEST, "subscription:in/golden", form="subscription", batch=[3, 4, 4, 1, None, 1]
            ),
        ),
        of(7, ExecutionFinished("completed")),
        of(
            9,
            ExecutionRequested(
                DIGEST, "subscription:in/golden", form="subscription", batch=[3, 5, 5, 1, "k", 1]
            ),
        ),
        of(9, ExecutionFinished("failed", problem=PROBLEM)),
    ],
    [
        of(3, SubscriptionPaused("cli")),
        of(3, SubscriptionResumed("cli")),
        of(
            13,
            ExecutionRequested(
                DIGEST, "subscription:in/golden", form="subscription", batch=[3, 5, 5, 1, "k", 2]
            ),
        ),
        of(13, ExecutionFinished("failed", problem=PROBLEM)),
        of(3, MessageDeadLettered(5, 5, 1, 2, PROBLEM, "k")),
        of(3, SubscriptionPosition(5, "draining", {"received": 2, "dead": 1}, 15, [7, 8, 9, b"boot"])),
    ],
    [
        of(3, SubscriptionDraining("cli")),
        of(3, SubscriptionDeactivated()),
        of(3, MessageReceived("", 9, tick=[8, 9, 10, b"boot"])),
        of(3, TicksMissed(3)),
        of_box(BootStopped()),
    ],
]


#: A downstream that fails, is tried in vain, and is there again; another that is closed by hand.
CIRCUITS: Final[list[list[Entry]]] = [
    [of_box(BootStarted("0.3.0", "golden", False)), of_box(CircuitOpened("api.example.org:443", 5, 30_000))],
    [of_box(CircuitOpened("api.example.org:443", 6, 30_000)), of_box(CircuitOpened("10.0.0.5:80", 1, 500))],
    [of_box(CircuitClosed("api.example.org:443", "success")), of_box(CircuitClosed("10.0.0.5:80", "reset"))],
    [of_box(BootStopped())],
]
