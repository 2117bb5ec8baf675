"""Rows that vouch for each other: a table like any other, and no change behind its back is ever an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import lmdb
import pytest

from edge.core.errors import LogDamaged
from edge.store.joined_rows import FIRST, Rows

TABLE = "requests"


@contextmanager
def table(folder: Path) -> Iterator[Rows]:
    """The rows of one table in a write transaction."""
    with lmdb.open(str(folder), max_dbs=4, map_size=2**24) as env:
        db = {TABLE: env.open_db(TABLE.encode())}
        with env.begin(write=True) as txn:
            rows = Rows(txn, db)
            if txn.get(FIRST, db=db[TABLE]) is None:
                rows.begin()
            yield rows
            rows.close()


def key(number: int) -> bytes:
    return number.to_bytes(8, "big")


@pytest.mark.parametrize("seed", range(6))
def test_it_is_a_table_like_any_other(seed: int, tmp_path: Path) -> None:
    """Put, put again, delete, get, scan both ways: the same as a dictionary, in key order, whatever came before."""
    chance, model = Random(seed), dict[bytes, bytes]()
    with table(tmp_path) as rows:
        for _ in range(150):
            some = {
                key(chance.randrange(60)): chance.randbytes(chance.randrange(9))
                for _ in range(chance.choice([1, 9]))
            }
            if chance.random() < 0.5:
                rows.put_all(TABLE, some)
                model |= some
            else:
                for each in some:
                    assert rows.delete(TABLE, each) == (model.pop(each, None) is not None)
            asked = key(chance.randrange(62))
            assert rows.get(TABLE, asked) == model.get(asked)
            assert list(rows.scan(TABLE, asked)) == sorted(pair for pair in model.items() if pair[0] >= asked)
            below = sorted((pair for pair in model.items() if pair[0] < asked), reverse=True)
            assert list(rows.scan_back(TABLE, asked)) == below
        assert list(rows.scan(TABLE)) == sorted(model.items())


@pytest.mark.parametrize("what", ["value changed", "row gone", "row added", "key changed", "all gone"])
def test_a_change_behind_its_back_is_never_an_answer(what: str, tmp_path: Path) -> None:
    """Whatever happens to one row: asking for it, for what is not there beside it, or for all of them is damage."""
    numbers = range(10, 100, 10)
    for at in numbers:
        folder = tmp_path / str(at)
        with table(folder) as rows:
            rows.put_all(TABLE, {key(number): b"value" for number in numbers})
        with table(folder) as rows:
            db = rows.db[TABLE]
            stored = rows.txn.get(key(at), db=db)
            if what == "value changed":
                rows.txn.put(key(at), b"V" + stored[1:], db=db)
            elif what == "row added":
                rows.txn.put(key(at + 1), stored, db=db)
            elif what == "all gone":
                rows.txn.drop(db, delete=False)
            else:
                rows.txn.delete(key(at), db=db)
                if what == "key changed":
                    rows.txn.put(key(at + 2), stored, db=db)
        with table(folder) as rows:
            if what == "all gone":
                rows.txn.drop(rows.db[TABLE], delete=False)
            asked = key(at + 1) if what == "row added" else key(at)
            with pytest.raises(LogDamaged):
                rows.get(TABLE, asked)
            with pytest.raises(LogDamaged):
                list(rows.scan(TABLE, asked))
            with pytest.raises(LogDamaged):
                rows.put(TABLE, asked, b"over it")
            with pytest.raises(LogDamaged):
                list(rows.scan_back(TABLE, key(1_000)))


def test_neighbours_cost_one_look_up(tmp_path: Path) -> None:
    """A thousand rows behind the last change one row that is there, and are put in one go."""
    with table(tmp_path) as rows:
        rows.put(TABLE, key(1), b"")
        before = {each: bytes(value) for each, value in rows.txn.cursor(db=rows.db[TABLE])}
        rows.put_all(TABLE, {key(number): b"" for number in range(2, 1_002)})
        after = {each: bytes(value) for each, value in rows.txn.cursor(db=rows.db[TABLE])}
    assert [each for each in before if before[each] != after[each]] == [key(1)]
    assert len(after) == 1_002
