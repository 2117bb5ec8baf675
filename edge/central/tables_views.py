"""What the central tables mean, in SQL: the views over the rows of events. Text only; run by `edge.central.tables`.

`events` is every event, `executions` and `steps` are what they say of each execution and of each visit to a step,
`executions_at(n)` the same of executions as of event n of each log, and `segments_left_out` what could not be read.
"""

from __future__ import annotations

from typing import Final

#: By execution: aggregates over rows of one log that name the same request.
_EXECUTIONS: Final = """
SELECT
    any_value(box) AS box, log_id, execution, log_id || '-' || execution AS execution_id,
    coalesce(max(status), CASE WHEN bool_or(type = 'playbook.execution.requested') THEN 'running' ELSE 'partial' END)
        AS status,
    max(code) FILTER (type = 'playbook.execution.finished') AS code,
    max(digest) FILTER (type = 'playbook.execution.requested') AS playbook_digest,
    min(at_utc) FILTER (type = 'playbook.execution.requested') AS began_utc,
    max(at_utc) FILTER (type = 'playbook.execution.finished') AS ended_utc,
    sum(duration_us)::BIGINT AS busy_us,
    count(*) AS events, count(*) FILTER (type IN ('step.done', 'step.failed')) AS steps,
    max(attempt) AS attempts, max(seq) AS last_seq,
    bool_and(linked) AS linked
FROM events
WHERE execution IS NOT NULL AND NOT starts_with(type, 'subscription.') AND type <> 'catalog.registered' {where}
GROUP BY log_id, execution
"""

#: The playbook's path is looked up in a map, not joined: where nobody asks for it, nothing of it is worked out.
_NAMED: Final = """
SELECT * EXCLUDE (playbook_digest),
    (SELECT map(list(playbook_digest), list(playbook)) FROM playbooks)[playbook_digest] AS playbook, playbook_digest
FROM ({inner})
"""

_STEPS: Final = """
SELECT
    box, log_id, execution, log_id || '-' || execution AS execution_id, step, visit, iteration,
    CASE
        WHEN bool_or(type = 'step.done') THEN 'done'
        WHEN bool_or(type = 'step.failed') THEN 'failed'
        WHEN bool_or(type = 'step.waiting') THEN 'waiting'
        WHEN bool_or(type = 'loop.started') THEN 'looping'
        WHEN bool_or(type = 'step.started') THEN 'started'
        ELSE 'ready'
    END AS status,
    max(code) FILTER (type = 'step.failed') AS code,
    max(attempt) AS attempts,
    max(duration_us) FILTER (type IN ('step.done', 'step.failed')) AS duration_us,
    max(at_utc) FILTER (type IN ('step.done', 'step.failed')) AS ended_utc,
    max(body->'$.value') FILTER (type = 'step.done') AS value,
    max(seq) AS last_seq, bool_and(linked) AS linked
FROM events
WHERE step IS NOT NULL
GROUP BY box, log_id, execution, step, visit, iteration
"""

_PLAYBOOKS: Final = """
SELECT digest AS playbook_digest, max(body->>'$.path') AS playbook FROM events
WHERE type = 'catalog.registered' GROUP BY digest
"""

#: In the order in which they need each other; each statement makes one name.
VIEWS: Final = (
    f"CREATE VIEW playbooks AS {_PLAYBOOKS}",
    f"CREATE VIEW executions AS {_NAMED.format(inner=_EXECUTIONS.format(where=''))}",
    f"CREATE MACRO executions_at(n) AS TABLE {_NAMED.format(inner=_EXECUTIONS.format(where='AND seq <= n'))}",
    f"CREATE VIEW steps AS {_STEPS}",
)
#: What a person may ask for, with what it is; shown by the command line.
NAMES: Final = {
    "events": "every event of every log",
    "executions": "one row for each execution",
    "executions_at(n)": "the same as they stood at event n of each log",
    "steps": "one row for each visit to a step, or an item of its loop",
    "playbooks": "the paths of the digests by which executions name their playbooks",
}
