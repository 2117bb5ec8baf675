"""Every bound of the box, in one place, each with its reason; relations are asserted at import.

Read by all layers. Must never import anything of ours, so that anything may import it.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# ---- Requests -------------------------------------------------------------------------------------
#: A request larger than this is refused at the gateway: 16 of them held at once stay inside a 512 MB box.
PAYLOAD_BYTES_MAX = 8 * MIB
#: JSON and CBOR are held decoded in the runtime; tables are not.
VALUE_PAYLOAD_BYTES_MAX = 1 * MIB
#: MQTT's own bound on a topic, in bytes of UTF-8 (MQTT 5 §1.5.4).
TOPIC_BYTES_MAX = 65_535
#: Request ids are kept for days in an index; UUIDs and ULIDs are under 40 bytes.
REQUEST_ID_BYTES_MAX = 128
#: Correlation data is echoed and stored with the request event.
CORRELATION_BYTES_MAX = 256
#: Principal names are a topic level pinned by the broker's access list.
PRINCIPAL_BYTES_MAX = 64
PLAYBOOK_PATH_BYTES_MAX = 200
#: Executions open at once; above it requests are refused with `queue_full`, never dropped.
EXECUTIONS_OPEN_MAX = 2_048
#: Executions open at once with those that others began: each request's own find room beside as many more.
CHILDREN_OPEN_MAX = 2 * EXECUTIONS_OPEN_MAX
#: Playbooks below one request: a circle of them ends here. NoETL's published ones stay under 4.
CHILD_DEPTH_MAX = 8
#: Executions that only wait and are out of memory: a number and a moment each.
EXECUTIONS_PARKED_MAX = 131_072
#: The gateway's Receive Maximum: unacknowledged requests the broker may have in flight to us (design §7).
RECEIVE_MAX = 1_024
#: Deliveries remembered for what a broker sends again. mosquitto overruns our Receive Maximum by up to its backlog,
#: by default 1,000 messages, and one delivery forgotten too early doubles all that come again behind it.
DELIVERIES_MAX = 2 * RECEIVE_MAX
#: Refusals recorded one by one in the log before they are only counted: a flood must not wear the drive.
REFUSALS_PER_S = 10
REFUSALS_BURST = 100
#: Lines of one kind in the gateway's own log, in so many seconds, about what others did wrong: ten tell a person all,
#: and whoever publishes a million wrong messages must not fill the journal of the machine.
COMPLAINTS_MAX = 10
COMPLAINTS_S = 60
#: Requests at QoS 0 that a gateway keeps while its runtime is away. The broker keeps those at QoS 1 for us, all but
#: RECEIVE_MAX of them; of these nobody else has a copy, and nobody holds their senders back.
HELD_UNASKED_MAX = RECEIVE_MAX

# ---- Values ---------------------------------------------------------------------------------------
#: A pure step's output up to this size stands in its event (design §4).
INLINE_PURE_BYTES_MAX = 1 * KIB
#: Above this a value is not carried in frames or events: cache block or blob. Crossover of mmap against
#: a pipe was measured at 64–100 KB.
INLINE_BYTES_MAX = 64 * KIB
#: A plain value as a block of the cache or a blob. Decoded it takes some ten times as much, in one process at a time;
#: what is larger belongs into a table.
VALUE_BYTES_MAX = 8 * MIB
#: The beginning of a large value that stands beside its reference, for people.
PREVIEW_BYTES = 256
PREVIEW_BYTES_MAX = 2 * KIB
#: Parts of a large value that its playbook keeps at hand, together; they stand in the step's event.
SELECTED_BYTES_MAX = 16 * KIB
SELECTED_MAX = 32
#: What a pipeline may accumulate over its invocations (`output.accumulate`).
ACCUMULATED_BYTES_MAX = 8 * MIB
#: What one run of a pipeline may record of its tasks in values: they go together in a frame, there and back.
PIPELINE_BYTES_MAX = 8 * MIB
#: Once the outcomes of one claim have so many bytes in values, the rest of its steps or items is claimed anew: one
#: more, the largest pipeline, still fits into their frame.
REPLY_BYTES = 512 * KIB
#: Depth of nested lists and maps accepted from outside; deeper is refused before it is built.
VALUE_DEPTH_MAX = 32

# ---- Frames between processes ---------------------------------------------------------------------
#: One frame on a local socket: a full payload with its envelope fits.
FRAME_BYTES_MAX = PAYLOAD_BYTES_MAX + 1 * MIB

# ---- Playbooks ------------------------------------------------------------------------------------
#: Source file of a playbook; NoETL's published ones are under 40 KB.
PLAYBOOK_BYTES_MAX = 256 * KIB
PLAYBOOK_DEPTH_MAX = 24
PLAYBOOK_STEPS_MAX = 256
#: Compiled form; it is stored in the log once per version.
BLUEPRINT_BYTES_MAX = 512 * KIB
#: Tokens and nesting of one expression, checked before Jinja2's parser sees it: it recurses.
EXPRESSION_BYTES_MAX = 4 * KIB
EXPRESSION_TOKENS_MAX = 400
EXPRESSION_DEPTH_MAX = 24
#: A template with statements is a page, not a program.
TEMPLATE_BYTES_MAX = 32 * KIB
TEMPLATE_TOKENS_MAX = 3_000
#: Evaluation steps and bytes of made strings for one expression; measured to end within 100 ms.
EVALUATION_STEPS_MAX = 20_000
EVALUATION_BYTES_MAX = 256 * KIB

# ---- Steps ----------------------------------------------------------------------------------------
#: A worker slot is held for seconds, not minutes; a longer wait is a callback.
STEP_TIMEOUT_MS = 30_000
STEP_TIMEOUT_MS_MAX = 300_000
#: What a call outside takes at most where nothing is said: its own limit comes before the step's, so that it ends
#: with its own error and is not killed, which would leave a write unknown.
CALL_TIMEOUT_MS = 25_000
#: From a call's end to the step's: reading, writing down, releasing.
CALL_MARGIN_MS = 2_000
#: Private memory a block may add to the worker it runs in.
STEP_MEMORY_MB = 64
STEP_MEMORY_MB_MAX = 2_048
STEP_MEMORY_MB_MIN = 8
#: What a step with SQL may add where it says nothing: DuckDB itself takes some 45 MB of it (edge/tools/DESIGN.md).
SQL_MEMORY_MB = 128
#: Below this the engine has no room to work in.
SQL_WORK_MB_MIN = 16
#: Tools in one step's pipeline, and how often they may run in one go: jumps back end somewhere.
STEP_TASKS_MAX = 64
TASK_RUNS_MAX = 10_000
#: Items of one loop, and how many one claim may carry at most; a claim is meant to take LOOP_CLAIM_US.
LOOP_ITEMS_MAX = 100_000
LOOP_CLAIM_ITEMS_MAX = 128
LOOP_CLAIM_US = 20_000
#: Items of a parallel loop under way at once where the playbook does not say; those that pause hold no worker.
LOOP_IN_FLIGHT = 64
#: Rows of a table that a loop takes as one frame where the playbook does not say, and at most.
LOOP_FRAME_ROWS = 4_096
LOOP_FRAME_ROWS_MAX = 10_000_000
#: The collected results of a loop: what a claim may carry beside them is as much again.
LOOP_RESULT_BYTES_MAX = 2 * MIB
#: Attempts a policy may ask for; NoETL's published playbooks stay under 20.
RETRY_ATTEMPTS_MAX = 100
#: A policy's pause between two attempts.
RETRY_DELAY_S_MAX = 3_600
#: Attempts at one step before it fails, whatever killed the earlier ones (issue: "three at most").
ATTEMPTS_MAX = 3
#: Restarts of the runtime an execution survives without progress before it fails: no boot loops.
RESUMES_MAX = 3
#: Steps an execution may run in all: back arcs end somewhere.
VISITS_MAX = 10_000
#: Grants of one kind (hosts, files, …) a step may have, and the length of one: a name or path of the system's.
ACCESS_ENTRIES_MAX = 64
ACCESS_ENTRY_BYTES_MAX = 255
#: Aliases of the keychain. A secret shorter than the least could not be told from ordinary text where it is taken
#: out of results; one longer than the most is a file's content.
KEYCHAIN_ENTRIES_MAX = 256
SECRET_BYTES_MIN = 8
SECRET_BYTES_MAX = 16 * KIB
#: What a block prints is kept only as a tail in its failure.
PRINTED_BYTES_MAX = 1 * KIB

# ---- Waiting --------------------------------------------------------------------------------------
#: The longest wait of one task: beyond a month a new request says what is wanted by then.
WAIT_S_MAX = 31 * 86_400
#: After a power cut, how long timers of an earlier boot wait for the wall clock to be set before they are decided
#: without it: systemd-timesyncd needs seconds once the network is there, a mobile link a minute or two.
CLOCK_GRACE_S = 300
# ---- Subscriptions --------------------------------------------------------------------------------
#: Each has a session of its own at the broker: a connection, some 100 KB in the gateway and as much in the runtime.
SUBSCRIPTIONS_MAX = 64
SUBSCRIPTION_TOPICS_MAX = 64
SUBSCRIPTION_COLUMNS_MAX = 256
#: Messages accepted and not yet carried out, of one subscription; some 150 bytes of memory each. Above it the gateway
#: acknowledges no more of them: they stay with the broker.
SUBSCRIPTION_BACKLOG = 10_000
SUBSCRIPTION_BACKLOG_MAX = 100_000
SUBSCRIPTION_IN_FLIGHT_MAX = 256
#: One batch: its messages travel to a worker in one frame and become one table there.
BATCH_ROWS_MAX = 10_000
BATCH_BYTES = 256 * KIB
BATCH_BYTES_MAX = 4 * MIB
BATCH_WAIT_MS_MAX = 600_000
#: Ids compared for repetition: 10,000 of 40 bytes are 2 MB of memory, read again after a restart in under a second.
DEDUP_KEYS_MAX = 10_000
DEDUP_WINDOW_S_MAX = 86_400
#: User properties and keys of one message, in the log with it.
HEADERS_BYTES_MAX = 4 * KIB
LANE_BYTES_MAX = 256
#: Settled messages after which a subscription's position is noted: what a restart has to read again.
POSITION_MESSAGES = 2_000
TIMER_EVERY_MS_MIN = 100
TIMER_EVERY_MS_MAX = 366 * 86_400_000
#: Ticks made up for after an absence under `missed: all`; more are named and skipped.
MISSED_TICKS_MAX = 1_000

#: How long a callback is waited for where the playbook does not say: whoever acts for us is a person or a machine
#: that answers within a day or never.
CALLBACK_TIMEOUT_S = 86_400
#: A callback's payload: JSON may be longer than the value it says, which is kept up to INLINE_BYTES_MAX.
CALLBACK_BYTES_MAX = 2 * INLINE_BYTES_MAX
#: A token has some 45; whatever is longer is none of ours and is not looked at.
CALLBACK_TOKEN_CHARS_MAX = 128

# ---- Programs -----------------------------------------------------------------------------------------
#: What a program may say on each of its two streams; more belongs into a granted file.
PROGRAM_OUTPUT_BYTES_MAX = 1 * MIB
PROGRAM_INPUT_BYTES_MAX = 1 * MIB
#: Arguments, and names of the environment.
PROGRAM_ARGUMENTS_MAX = 256

# ---- Circuit breakers ---------------------------------------------------------------------------------
#: Downstreams with failures that are remembered; a box talks to few.
CIRCUITS_MAX = 256
CIRCUIT_TRIP_AFTER_MAX = 1_000
CIRCUIT_PROBE_AFTER_S_MAX = 86_400
#: NoETL's defaults: five failures in a row, thirty seconds until one call may try again.
CIRCUIT_TRIP_AFTER = 5
CIRCUIT_PROBE_AFTER_MS = 30_000

# ---- MQTT from playbooks --------------------------------------------------------------------------------
#: User properties of one message.
MQTT_PROPERTIES_MAX = 32

# ---- HTTP ---------------------------------------------------------------------------------------------
#: A body sent or read whole: in the worker's memory twice while it is decoded.
HTTP_REQUEST_BYTES_MAX = PAYLOAD_BYTES_MAX
HTTP_RESPONSE_BYTES_MAX = PAYLOAD_BYTES_MAX
#: Of a body that came with an error status: what explains it; it stands in the event of the failure.
HTTP_ERROR_BODY_BYTES_MAX = 4 * KIB
HTTP_HEADERS_MAX = 64
#: Browsers follow 20; a machine's endpoint that needs more than this is lost.
HTTP_REDIRECTS_MAX = 5

# ---- Journal and event log ------------------------------------------------------------------------
#: One journal file, zero-filled ahead. Small enough to recycle soon, large enough to seldom change.
SEGMENT_BYTES = 8 * MIB
#: One flush carries at most this much: bounds the latency behind it and the memory to re-read it.
GROUP_BYTES_MAX = 1 * MIB
GROUP_EVENTS_MAX = 1_024
#: A sealed segment is cut after so many events: in 1,000 one costs 10 bytes all in, in 96 it costs 18.
SEALED_EVENTS = 1_000
#: Its last group may go beyond.
SEALED_EVENTS_MAX = SEALED_EVENTS + GROUP_EVENTS_MAX
#: It is cut earlier where its groups are large, so that one lost upload is little; its last group may go beyond.
SEALED_BYTES = 1 * MIB
#: What a receiver makes of a body at most: the above, a whole group more, and what columns need beside.
SEALED_UNPACKED_BYTES_MAX = 2 * (SEALED_BYTES + GROUP_BYTES_MAX) + 4 * MIB
#: What is not a segment's worth by then is sealed all the same: one event of a quarter of an hour costs 14 bytes.
SEAL_AFTER_S = 900.0
#: A backlog of a month takes a slow box some minutes.
SEAL_PATIENCE_S = 900.0
#: A manifest takes some 300 bytes; blueprints and losses are named in it one by one.
MANIFEST_BYTES_MAX = 64 * KIB
#: A sealed segment's file: no codec makes a body longer than what is packed, but for some bytes.
SEGMENT_FILE_BYTES_MAX = SEALED_UNPACKED_BYTES_MAX + MANIFEST_BYTES_MAX + 64 * KIB
#: A centre's tables, `edge.central.compaction`. Shards by box: files of a day stay large in a small fleet, and the
#: days of a large one can be worked on apart.
TABLE_SHARDS = 4
#: Rows worked on at once, some 250 bytes each with a body of a hundred: the compactor stays under a few hundred MB.
TABLE_BATCH_EVENTS = 250_000
TABLE_BATCH_BYTES = 128 * MIB
#: A file that would grow beyond is left as it is; 16 bytes an event in it.
TABLE_FILE_EVENTS = 1_000_000
#: A row group is what a lookup reads: 4 to 6 ms. Smaller ones cost bytes (10.3 B an event against 8.8 with 65,536, 13
#: with 8,192) and slow down whoever reads all.
TABLE_GROUP_EVENTS = 12_288
#: What one question to them may take; DuckDB itself needs some 40 MB before it looks at a row.
QUERY_MEMORY_MB = 512
QUERY_MEMORY_MB_MIN = 64
#: LMDB is committed every so many events (design §4): a commit costs 29 KB of wear whatever it holds.
INDEX_EVENTS_PER_COMMIT = 1_000
#: Sequence numbers left out after a life that did not end in order: a full minute at the highest rate measured
#: (16,000 events/s). A kernel writes back what is 30 s old, and a drive that lies about flushes holds less.
NUMBERS_SKIPPED_MIN = 1_000_000
#: A mirror of the journal that hangs longer than this is left behind: a card that tidies up takes a second or two.
MIRROR_PATIENCE_S = 5.0
#: Address space reserved for LMDB; takes no disk. 64-bit only. Halved, down to the least, where a process may not
#: have that much: a limit of its address space, a kernel with few address bits, an emulated processor.
INDEX_MAP_BYTES = 64 * 1024 * MIB
INDEX_MAP_BYTES_MIN = 1024 * MIB
#: Free space below which new requests are refused with `storage_full`.
RESERVE_BYTES = 64 * MIB
#: The least a log may be held to: two journal files, the next one, and an index for them.
RETAIN_MB_MIN = 48
#: Days of box-on time for which a request id gives the answer it gave before (design §7).
REMEMBER_DAYS = 7
#: Events taken out of the index in one transaction: each costs the drive its pages, and holds up commits meanwhile.
PRUNE_EVENTS_PER_COMMIT = 2_000

#: A drive that flushes 8 KiB in less most likely ignores it: a card takes thousands of microseconds, good NVMe drives
#: without a battery 50 and more.
FLUSH_HONEST_US = 20
#: A receipt waits for one flush; clients that wait longer than this begin to ask again.
FLUSH_SLOW_US = 100_000

# ---- Upstream -------------------------------------------------------------------------------------
#: One upload at the centre, whole: a parcel of segments or one large value. A broken one is kept to go on with.
UPLOAD_BYTES_MAX = 16 * MIB
UPLOAD_SEGMENTS_MAX = 1_024
#: Broken uploads kept for one box: more than this many and the oldest goes.
UPLOADS_KEPT_MAX = 16
#: How far a box's clock may be from the centre's in a signed request; beyond, the centre's answer sets it right.
TOKEN_SKEW_NS = 300 * 1_000_000_000
#: Parcels that wait for their verdicts at the centre; above it boxes are asked to come back.
INGESTS_WAITING_MAX = 32
#: An upload of which nothing came for so long is over: the box will go on where it broke off.
UPLOAD_IDLE_S = 60.0
#: Kept free on the centre's drive: below it uploads are refused, so that the ledger still has room to be written.
CENTRE_RESERVE_BYTES = 64 * MIB
#: A request's body that is no upload: a token, or the digests of large values.
CENTRE_QUESTION_BYTES_MAX = 256 * KIB
#: One upload: 21 of them carry a month (research: 87,000 events/s over 100 ms of delay, 9,000 one by one).
BUNDLE_BYTES = 256 * KIB
#: What a rate saves up while nothing goes: the next uploads go at once when the centre took long over the last one.
#: Half of it was not enough at 1 Mbit/s beside a centre on a busy machine: 19 % of the budget were lost.
BURST_BYTES = 4 * BUNDLE_BYTES
#: Segments of a quiet box have 400 bytes each; a verdict for each comes back.
BUNDLE_SEGMENTS_MAX = 256
#: After a failure the next attempt is somewhere in a span that begins with this and doubles up to that: a network
#: that comes back is used within minutes, and one that is away for days costs some 600 attempts a day.
BACKOFF_S = 1.0
BACKOFF_S_MAX = 300.0
#: What an upload costs beside its segments: headers both ways, verdicts, TLS. What a connection costs to make: keys,
#: certificates.
UPLOAD_BYTES = 2 * KIB
CONNECT_BYTES = 6 * KIB
#: What an attempt costs that meets nobody: some packets to ask for a name and to knock.
ATTEMPT_BYTES = 512
#: Uploads with a segment in them that failed while the centre answered otherwise, until it goes alone, and until it
#: goes last: one that makes its receiver fall must not hold up the others.
STUMBLES_ALONE = 3
STUMBLES_LAST = 6
#: What the centre has is asked again after so long even where nothing new is sealed: it may have lost something.
STATE_AGE_S = 6 * 3_600.0
#: How often the folder of sealed segments is looked at: what is urgent waits no longer.
SYNC_LOOK_S = 2.0
#: Without a turn, a wait that was meant or a byte for so long, sync is told to be stuck: a call to the outside has
#: 60 s at the most.
PROGRESS_PATIENCE_S = 120.0
#: One part in so many of a day's or month's budget is kept for what is urgent, and as much is written down as spent
#: ahead: a kill forgets no more of it, and a card sees no more writes in a day than this.
BUDGET_SHARE = 64

# ---- Cache ----------------------------------------------------------------------------------------
CACHE_BUDGET_BYTES = 64 * MIB

# ---- Processes ------------------------------------------------------------------------------------
WORKERS = 2
#: Gateway, runtime, zygote and two workers together, PSS, without what blocks add (`scripts/bench --quick`: 99.8).
BOX_MEMORY_MB = 105
#: Python recursion inside author code; deep recursion must raise, not overflow the C stack.
WORKER_STACK_BYTES = 16 * MIB
WORKER_OPEN_FILES_MAX = 64
#: The largest file a block may write (its own cache block included).
WORKER_FILE_BYTES_MAX = 512 * MIB

assert INLINE_PURE_BYTES_MAX < INLINE_BYTES_MAX < PAYLOAD_BYTES_MAX < FRAME_BYTES_MAX
assert PREVIEW_BYTES <= PREVIEW_BYTES_MAX < SELECTED_BYTES_MAX < INLINE_BYTES_MAX < VALUE_BYTES_MAX
# A group always fits a fresh segment beside its header, even one event with the largest inline values.
assert GROUP_BYTES_MAX + 4 * INLINE_BYTES_MAX + 64 * KIB < SEGMENT_BYTES
assert STEP_MEMORY_MB_MIN <= STEP_MEMORY_MB <= STEP_MEMORY_MB_MAX
assert STEP_MEMORY_MB < SQL_MEMORY_MB < STEP_MEMORY_MB_MAX
assert CALL_TIMEOUT_MS + CALL_MARGIN_MS <= STEP_TIMEOUT_MS <= STEP_TIMEOUT_MS_MAX
assert RECEIVE_MAX <= EXECUTIONS_OPEN_MAX
assert REPLY_BYTES + PIPELINE_BYTES_MAX + 4 * INLINE_BYTES_MAX < FRAME_BYTES_MAX
assert PIPELINE_BYTES_MAX < FRAME_BYTES_MAX - BLUEPRINT_BYTES_MAX - 4 * INLINE_BYTES_MAX
assert BATCH_BYTES <= BATCH_BYTES_MAX < FRAME_BYTES_MAX - BLUEPRINT_BYTES_MAX - 4 * INLINE_BYTES_MAX
assert SUBSCRIPTION_BACKLOG <= SUBSCRIPTION_BACKLOG_MAX
