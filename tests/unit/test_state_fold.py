"""The fold: what each event does to an execution, and which histories are refused."""

from __future__ import annotations

import pytest

from edge.core.errors import LogDamaged
from edge.core.events import (
    AttemptLost,
    Body,
    BootStarted,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    StepDone,
    StepFailed,
    StepStarted,
)
from edge.core.state import COMPLETED, FAILED, RUNNING, Execution, StepState, Token, fold

REQUEST = ExecutionRequested(b"d" * 32, "alice")


def history(*entries: Body | tuple[Body, str] | tuple[Body, str, int, int]) -> list[Event]:
    """Events 10, 11, … of execution 10, the request in front."""
    events = [Event(10, REQUEST, execution=10)]
    for seq, entry in enumerate(entries, 11):
        body, *rest = entry if isinstance(entry, tuple) else (entry,)
        step, visit, attempt = (*rest, None, 0, 1)[:3] if len(rest) != 1 else (rest[0], 0, 1)
        events.append(Event(seq, body, 10, step, visit, (), attempt))  # type: ignore[arg-type]
    return events


def test_a_request_alone_is_running() -> None:
    """After the request the execution runs and nothing else is known."""
    assert fold(history()) == Execution(10, REQUEST)


def test_a_pure_step_settles() -> None:
    """An outcome settles its step, remembers the arc, applies the patches and counts the visit."""
    done = StepDone(b"\x01", arc=1, ctx={"k": 2})
    state = fold(history((done, "a")))
    assert state.steps == {"a": StepState(0, "done", 1, done, None, 11)}
    assert (state.last_step, state.tokens, state.ctx, state.visits) == (
        "a",
        (Token(None, "a", 1),),
        {"k": 2},
        1,
    )


def test_later_patches_win() -> None:
    """A later patch of a name replaces the value, other names stay."""
    state = fold(
        history((StepDone(ctx={"a": 1, "b": 1}), "x"), (StepDone(ctx={"b": 2}), "y"), (StepDone(), "z"))
    )
    assert state.ctx == {"a": 1, "b": 2}


def test_an_intent_shows_as_started() -> None:
    """A write's intent is remembered with its attempt until the outcome comes."""
    state = fold(history((StepStarted(), "a", 0, 1), (StepStarted(), "a", 0, 2)))
    assert state.steps["a"] == StepState(0, "started", 2, None, None, 12, intended=0)
    assert fold(history((StepStarted(), "a"), (StepDone(b"\x01"), "a"))).steps["a"].status == "done"


def test_a_lost_attempt_keeps_what_was_known() -> None:
    """A lost attempt leaves an intent standing, and says how it was lost."""
    state = fold(history((StepStarted(), "a"), (AttemptLost("it died"), "a")))
    assert state.steps["a"] == StepState(
        0, "started", 1, None, {"code": "worker_lost", "message": "it died"}, 12, intended=0
    )
    assert fold(history((AttemptLost("x"), "a"))).steps["a"].status == "ready"


def test_a_failed_step_makes_a_problem_that_names_it() -> None:
    """A failed step is the execution's problem, with the step's name in it."""
    state = fold(history((StepFailed({"code": "x", "message": "y"}), "a", 0, 3)))
    assert state.problem == {"code": "x", "message": "y", "step": "a"}
    assert (state.status, state.last_step, state.tokens, state.visits) == (RUNNING, "a", (), 1)
    assert state.steps["a"].attempts == 3


def test_resumes_count_until_progress() -> None:
    """Restarts are counted, and an outcome starts the count over."""
    assert fold(history(ExecutionResumed(), ExecutionResumed())).resumes == 2
    assert fold(history(ExecutionResumed(), (StepDone(), "a"), ExecutionResumed())).resumes == 1


def test_a_second_visit_starts_afresh() -> None:
    """A step visited again has its own attempts and outcome."""
    first, second = StepDone(b"\x01", arc=0), StepDone(b"\x02")
    state = fold(history((first, "a", 0, 1), (AttemptLost("x"), "a", 1, 1), (second, "a", 1, 2)))
    assert state.steps["a"] == StepState(1, "done", 2, second, None, 13)
    assert state.visits == 2


@pytest.mark.parametrize("status", [COMPLETED, FAILED])
def test_the_end_is_kept_with_its_number(status: str) -> None:
    """The end brings status, problem and the event that said so."""
    end = ExecutionFinished(status, problem=None if status == COMPLETED else {"code": "x", "message": "y"})
    state = fold(history((StepDone(), "a"), end))
    assert (state.status, state.finished, state.finished_seq, state.problem) == (status, end, 12, end.problem)


@pytest.mark.parametrize("second", [StepDone(), StepFailed({}), StepStarted(), AttemptLost("x")])
@pytest.mark.parametrize("first", [StepDone(), StepFailed({"code": "x"})])
def test_one_visit_has_one_outcome(first: Body, second: Body) -> None:
    """Nothing may follow a visit's outcome but the next visit."""
    with pytest.raises(LogDamaged, match=r"Step a \(visit 0\) has two outcomes, again at 12"):
        fold(history((first, "a"), (second, "a")))


@pytest.mark.parametrize(
    "body",
    [StepDone(), StepFailed({}), StepStarted(), AttemptLost("x"), ExecutionResumed(), ExecutionFinished()],
)
def test_nothing_follows_the_end(body: Body) -> None:
    """An event after the end is refused, naming it."""
    with pytest.raises(LogDamaged, match=r"Event 12 .* comes after its execution finished"):
        fold(history(ExecutionFinished(), (body, "a")))


def test_a_second_request_is_refused() -> None:
    """One execution is requested once."""
    with pytest.raises(LogDamaged, match="requested twice"):
        fold(history(REQUEST))


def test_an_event_without_a_request_is_refused() -> None:
    """A history begins with its request."""
    with pytest.raises(LogDamaged, match="belongs to no request"):
        fold(history((StepDone(), "a"))[1:])


def test_an_empty_history_is_refused() -> None:
    """No events are no execution."""
    with pytest.raises(LogDamaged, match="no event of this execution"):
        fold([])


def test_an_event_of_the_box_is_refused() -> None:
    """An event that belongs to no execution cannot be folded into one."""
    with pytest.raises(LogDamaged, match="does not belong to an execution"):
        fold(history(BootStarted("0", "box")))


def test_visits_never_go_back() -> None:
    """An outcome of an earlier visit after a later one is a second outcome, and refused."""
    with pytest.raises(LogDamaged):
        fold(history((StepDone(arc=0), "a", 0, 1), (StepDone(arc=0), "a", 1, 1), (StepDone(), "a", 0, 1)))


def test_of_a_lost_history_only_request_and_end_count() -> None:
    """An execution that `edge log salvage` ended folds without what is left in between."""
    left = history((StepDone(arc=0), "a", 0, 1), (StepDone(), "a", 0, 1))
    with pytest.raises(LogDamaged):
        fold(left)
    lost = ExecutionFinished("failed", problem={"code": "history_lost", "message": "m"})
    state = fold([*left, Event(13, lost, 10)])
    assert (state.status, state.steps) == (FAILED, {})
