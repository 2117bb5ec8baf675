"""The process that rehearses cases, from outside: started on a scratch folder that is removed afterwards.

Called by `edge.cli.playbook_test` and `playbook_record`. What happens in it is `edge.rehearsal`.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from edge.cli.scratch import scratch
from edge.core.codec import decode, encode
from edge.core.errors import Unavailable

if TYPE_CHECKING:
    from playbooks.cases import Case


def rehearse(cases: list[tuple[bytes, Case]]) -> list[dict[str, Any]]:
    """What became of each case, `(blueprint, case)` each. Raises Unavailable where the rehearsal broke."""
    asked = encode(
        [
            {
                "blueprint": data,
                **{key: getattr(case, key) for key in ("input", "table", "keychain", "effects")},
            }
            for data, case in cases
        ]
    )
    with scratch("edge-test-") as made:
        process = made.start("edge.rehearsal", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answered, _ = process.communicate(asked)
    if process.returncode != 0:
        raise Unavailable("The rehearsal did not come to its end.", mend="Its last words are above.")
    runs: list[dict[str, Any]] = decode(answered)
    return runs
