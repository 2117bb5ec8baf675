"""The language as one declarative table: every block with its keys, what they take, and what is refused by name.

The compiler's readers take their keys from here, and the JSON Schema and the reference page are made of it, so that
the three cannot drift apart. Blocks of tool kinds stand with their kinds (`playbooks.kinds`). Plain data: it must
never read a playbook.
"""

from __future__ import annotations

from typing import Final

from playbooks.model import access, keychain, policy, results, root, subscription, workflow
from playbooks.model.parts import Block

#: Every block of the language but those of the tool kinds, by name, in the order the reference page has them.
BLOCKS: Final[dict[str, Block]] = {
    block.name: block
    for block in (
        root.PLAYBOOK,
        root.METADATA,
        keychain.KEYCHAIN_ENTRY,
        root.EXECUTOR,
        root.REQUIRES,
        root.EXECUTOR_SPEC,
        root.WORKBOOK,
        root.WORKBOOK_ENTRY,
        workflow.STEP,
        policy.SPEC,
        policy.TIMEOUT,
        policy.BREAKER,
        policy.POLICY,
        access.ACCESS,
        access.ACCESS_FILE,
        policy.ADMIT,
        policy.ADMIT_RULE,
        policy.ADMIT_THEN,
        policy.ADMIT_OLDER,
        policy.LIFECYCLE,
        policy.FAILURE_BLOCK,
        workflow.LOOP,
        workflow.LOOP_SPEC,
        workflow.LOOP_POLICY,
        workflow.LOOP_CURSOR,
        workflow.LOOP_FRAME,
        workflow.TOOL,
        workflow.WORKBOOK_TOOL,
        results.OUTPUT,
        results.STORE,
        results.PART,
        results.ACCUMULATE,
        policy.TASK_SPEC,
        policy.TASK_POLICY,
        policy.RULE,
        policy.THEN,
        policy.THEN_OLDER,
        workflow.NEXT,
        workflow.NEXT_SPEC,
        workflow.ARC,
        *subscription.SUBSCRIPTION_BLOCKS,
    )
}

#: What a document's `kind` may be, and the block that is its root.
ROOTS: Final = {"Playbook": root.PLAYBOOK.name, "Subscription": subscription.ROOT.name}
