"""The python kind: forms, inputs, results, and failures an author can act on."""

import sys
import threading
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from edge.core.errors import CacheMiss, EdgeError, ToolFailed
from edge.core.limits import PRINTED_BYTES_MAX
from edge.core.values import TableRef
from edge.tools.registry import tool

PYTHON = tool("python")
REF = TableRef("t", b"", 0, 2, ("x",))
TABLE = pa.table({"x": [1, 2]})


class Lent:
    execution_id = step = idempotency_key = "e"

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        raise AssertionError("the python kind renders nothing")

    def table(self, ref: TableRef) -> pa.Table:
        if ref is not REF:
            raise CacheMiss
        return TABLE


def run(code: str, form: str = "result", inputs: dict[str, Any] | None = None, **config: Any) -> Any:
    return PYTHON.run({"code": code, "form": form, **config}, inputs or {}, Lent())


def failure(
    code: str, form: str = "result", inputs: dict[str, Any] | None = None, **config: Any
) -> ToolFailed:
    with pytest.raises(ToolFailed) as caught:
        run(code, form, inputs, line=10, file="heat.yaml", **config)
    return caught.value


GOOD: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "result assigned": ("result = {'mean': a / 2}", "result", {"a": 3}, {"mean": 1.5}),
    "result never assigned": ("x = 1", "result", {}, None),
    "args": ("result = args['a']", "result", {"a": 3}, 3),
    "input_data": ("result = input_data['a']", "result", {"a": 3}, 3),
    "functions see inputs": ("def f(): return a\nresult = f()", "result", {"a": 3}, 3),
    "main by name": ("def main(b, a): return [a, b]", "main", {"a": 1, "b": 2}, [1, 2]),
    "main with defaults": ("def main(a, b=5): return a + b", "main", {"a": 1}, 6),
    "main takes only its own": ("def main(a): return a", "main", {"a": 1, "z": 2}, 1),
    "main with kwargs": ("def main(a, **rest): return rest", "main", {"a": 1, "z": 2}, {"z": 2}),
    "main with star": ("def main(*a): return list(a)", "main", {"a": 1}, []),
    "main positional only": ("def main(a, /, b): return a - b", "main", {"a": 5, "b": 2}, 3),
    "main keyword only": ("def main(*, a): return a", "main", {"a": 5}, 5),
    "main of everything": ("def main(input_data): return input_data", "main", {"a": 5}, {"a": 5}),
    "return": ("y = a + 1\nreturn y", "return", {"a": 1}, 2),
    "return early": ("if a > 1:\n    return 'big'\nreturn 'small'", "return", {"a": 2}, "big"),
    "return rebinds an input": ("a = a + 1\nreturn a", "return", {"a": 1}, 2),
    "return with a global": ("global a\na = a + 1\nreturn a", "return", {"a": 1}, 2),
    "return without value": ("x = 1", "return", {}, None),
    "return in a comprehension's scope": ("return [a * x for x in range(3)]", "return", {"a": 2}, [0, 2, 4]),
    "return after a future import": ("from __future__ import annotations\nreturn a", "return", {"a": 2}, 2),
    "libraries": ("result = m.floor(2.5)", "result", {}, 2),
    "tuples": ("result = (1, (2, 'x'))", "result", {}, [1, [2, "x"]]),
    "subclasses": ("import collections\nresult = collections.OrderedDict(a=1)", "result", {}, {"a": 1}),
    "bytes": ("result = bytearray(b'x')", "result", {}, b"x"),
    "printing": ("print('x' * 10_000_000)\nresult = 1", "result", {}, 1),
    "names that are no names": ("result = args['a-b']", "result", {"a-b": 3}, 3),
}


@pytest.mark.parametrize("name", GOOD)
def test_forms(name: str) -> None:
    """Each form NoETL's authors write gives what it gives there."""
    code, form, inputs, expected = GOOD[name]
    found = run(code, form, inputs, libs={"m": "math"})
    assert found == expected
    assert type(found) is type(expected)


def test_tables_come_in_and_go_out() -> None:
    """A reference among the inputs is a table to the block, at any depth; a table or batch may be answered."""
    assert run("result = t.num_rows + nested[0].num_rows", inputs={"t": REF, "nested": [REF]}) == 4
    assert run("result = t", inputs={"t": REF}) is TABLE
    made = run("import pyarrow as pa\nresult = pa.record_batch({'x': [1]})")
    assert isinstance(made, pa.Table)
    with pytest.raises(CacheMiss):
        run("result = 1", inputs={"t": TableRef("other", b"", 0, 0, ())})


REFUSED: dict[str, tuple[str, str]] = {
    "not a number": ("result = [1.0, float('nan')]", "result[1] is nan"),
    "infinity": ("result = {'a': float('inf')}", "result.a is inf"),
    "a long integer": ("result = 2**70", "64 bits"),
    "a time": ("import datetime\nresult = datetime.datetime(2024, 1, 1)", "isoformat"),
    "a decimal": ("import decimal\nresult = decimal.Decimal('1.5')", "float(...)"),
    "a set": ("result = {1, 2}", "sorted"),
    "a number as key": ("result = {1: 2}", "key of type int"),
    "a generator": ("result = (x for x in [1])", "list(...)"),
    "a function": ("def result(): pass", "type function"),
    "half a character": ("result = '\\ud800'", "Unicode"),
    "itself": ("result = []\nresult.append(result)", "nested deeper"),
    "a table in a map": (
        "import pyarrow as pa\nresult = {'t': pa.table({'a': [1]})}",
        "Return the table alone",
    ),
    "an arrow scalar": ("import pyarrow as pa\nresult = pa.scalar(1)", "as_py"),
    "an arrow array": ("import pyarrow as pa\nresult = pa.array([1])", "to_pylist"),
    "one column name twice": (
        "import pyarrow as pa\nresult = pa.table([[1], [2]], names=['a', 'a'])",
        "Rename",
    ),
    "a numpy number": ("class float64(float):\n    dtype = 'f8'\nresult = float64(1.5)", "item()"),
    "a numpy array": ("class ndarray:\n    dtype, shape = 'f8', (3,)\nresult = ndarray()", "tolist()"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_results_that_cannot_be_kept(name: str) -> None:
    """What is not a plain value or one table is refused, with what to write instead."""
    code, hint = REFUSED[name]
    problem = failure(code)
    assert problem.problem_code == "result_invalid"
    assert hint in str(problem)


def test_a_table_that_would_crash_its_reader() -> None:
    """A table built to point outside its own memory is refused before anybody reads it."""
    code = """
import pyarrow as pa
offsets = pa.array([0, 2_000_000_000, 3], pa.int32()).buffers()[1]
array = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abc")])
result = pa.table({"x": array})
"""
    assert "does not hold together" in failure(code).message


RAISED: dict[str, tuple[str, str, str, str]] = {
    "an exception": (
        "x = 1\n\n1 / 0",
        "result",
        "python_raised",
        "ZeroDivisionError: division by zero (line 3",
    ),
    "its file's line": ("x = 1\n\n1 / 0", "result", "python_raised", "line 12 of heat.yaml"),
    "in a function": (
        "def f():\n    raise KeyError('k')\nf()",
        "result",
        "python_raised",
        "line 2 of the block",
    ),
    "in main": ("def main():\n    return [][0]", "main", "python_raised", "IndexError"),
    "in return": ("x = 1\nreturn x.y", "return", "python_raised", "line 2 of the block"),
    "without text": ("raise ValueError", "result", "python_raised", "ValueError (line 1"),
    "exit": ("import sys\nsys.exit(3)", "result", "python_raised", "called exit (line 2"),
    "interrupt": ("raise KeyboardInterrupt", "result", "python_raised", "KeyboardInterrupt"),
    "recursion": ("def f(): f()\nf()", "result", "python_raised", "RecursionError"),
    "memory": ("x = bytearray(1 << 60)", "result", "memory_exceeded", "more memory"),
    "arrow's memory": (
        "import pyarrow as pa\npa.allocate_buffer(1 << 60)",
        "result",
        "memory_exceeded",
        "memory",
    ),
    "memory, unsaid": (
        "raise SystemError('error return without exception set')",
        "result",
        "memory_exceeded",
        "more memory",
    ),
    "a base exception": ("class E(BaseException): pass\nraise E('x')", "result", "python_raised", "E: x"),
    "text that fails": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
        "result",
        "python_raised",
        "its text cannot be read",
    ),
    "in the result": (
        "class D(dict):\n    def items(self): raise OSError('no')\nresult = D(a=1)",
        "result",
        "python_raised",
        "OSError: no",
    ),
    "our own errors": (
        "from edge.core.errors import CacheMiss\nraise CacheMiss('again')",
        "result",
        "python_raised",
        "CacheMiss: again",
    ),
    "denied": ("raise PermissionError(1, 'no')", "result", "sandbox_denied", "PermissionError"),
    "denied behind": (
        "try:\n    raise PermissionError(13, 'no')\nexcept OSError as e:\n    raise RuntimeError('lib') from e",
        "result",
        "sandbox_denied",
        "Behind it: PermissionError",
    ),
    "denied but handled": (
        "try:\n    raise PermissionError(13, 'no')\nexcept OSError:\n    pass\nraise ValueError('mine')",
        "result",
        "python_raised",
        "ValueError: mine",
    ),
    "missing input": ("def main(a, b): return 1", "main", "input_missing", "'b', which is not among"),
    "no main": ("x = 1", "main", "python_invalid", "no function `main`"),
    "async main": ("async def main(): return 1", "main", "python_invalid", "async def"),
    "syntax": ("x = 1\nx = = 2", "result", "python_invalid", "line 2 of the block"),
    "a null byte": ("x = '\0'", "result", "python_invalid", "null byte"),
}


@pytest.mark.parametrize("name", RAISED)
def test_failures(name: str) -> None:
    """Whatever a block raises leaves as one failure that names the author's own line."""
    code, form, expected, text = RAISED[name]
    problem = failure(code, form, {"a": 1})
    assert problem.problem_code == expected
    assert text in str(problem)
    if expected != "python_invalid":
        # Nothing holds on to the block's frames and what they held.
        assert problem.__cause__ is None
        assert problem.__context__ is None


def test_libraries_that_are_not_there() -> None:
    """A missing library is named with its alias."""
    problem = failure("result = 1", libs={"np": "no_such_library"})
    assert problem.problem_code == "library_missing"
    assert "'no_such_library' (as 'np')" in problem.message


def test_what_was_printed_last_is_told() -> None:
    """Of ten megabytes of print the failure carries the last kilobyte, and the streams are back."""
    before = sys.stdout, sys.stderr
    code = "import sys\nprint('x' * 10_000_000)\nprint('the end', file=sys.stderr)\n1 / 0"
    problem = failure(code)
    assert (sys.stdout, sys.stderr) == before
    assert problem.message.endswith("the end")
    assert len(problem.message) < PRINTED_BYTES_MAX + 200


def test_the_tail_spans_writes() -> None:
    """What is kept is the end of everything, not of the last write."""
    problem = failure("import sys\nprint('x' * 5000, flush=True)\nprint('y' * 10)\n1 / 0")
    assert problem.message.endswith("x\n" + "y" * 10)


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.stdout.close()\n1 / 0",
        "import sys\nsys.stdout.detach()\n1 / 0",
        "import sys\nsys.stdout = None\n1 / 0",
        "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')\n1 / 0",
        "import sys\nsys.stdout.fileno()",
    ],
)
def test_streams_survive_their_abuse(code: str) -> None:
    """A block may do to its streams what it likes; its failure is still told."""
    before = sys.stdout, sys.stderr
    assert failure(code).problem_code == "python_raised"
    assert (sys.stdout, sys.stderr) == before


def test_nothing_stays_between_runs() -> None:
    """Each run has fresh globals and its own view of the builtins, though the code object is kept."""
    code = "result = 'seen' in globals(), len([1]) \nseen = 1\n__builtins__['len'] = lambda x: 99"
    assert run(code) == [False, 1]
    assert run(code) == [False, 1]


def test_inputs_are_the_blocks_own() -> None:
    """A block that changes its inputs changes nothing of the worker's."""
    inputs = {"a": [1]}
    assert run("a.append(2)\nargs['b'] = 1\nresult = a", inputs=inputs) == [1, 2]
    assert inputs == {"a": [1]}


def test_runs_on_any_thread() -> None:
    """The kind holds no thread-bound state."""
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(run("result = 1")))
    thread.start()
    thread.join()
    assert seen == [1]


def test_failures_are_of_our_tree() -> None:
    """Whatever comes out of a run is an error of ours, so nobody above has to guess."""
    assert isinstance(failure("1 / 0"), EdgeError)
    assert set(failure("1 / 0").problem()) <= {"code", "message", "mend"}


def test_an_exceptions_text_that_is_no_text() -> None:
    """Half a surrogate pair in an exception's text is shown escaped; it does not break the outcome."""
    with pytest.raises(ToolFailed) as failed:
        run("raise ValueError('\\ud800')\nresult = 1")
    assert "\\ud800" in failed.value.message
    failed.value.message.encode()
