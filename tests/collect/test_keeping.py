"""Records that are finished while others are waited for say what they would have said at the end."""

from __future__ import annotations

from doctor.keeping import Keeper

INSPECT = b'{"Env":["DB_PASSWORD=%s"]}'


def kept(keeper: Keeper) -> dict[str, str]:
    """Give the records as they may leave."""
    return {name: one.text for name, one in keeper.finished(list(keeper.records.values())).items()}


def test_what_was_finished_ahead_is_not_done_again() -> None:
    """Nothing new was learnt: the same objects, and those that came later with them, in the order asked for."""
    keeper = Keeper()
    keeper.keep("a", "api", "/a", INSPECT % b"Winter-2026-west", "inspect")
    keeper.keep("b", "file", "/b", b"it says Winter-2026-west", "none")
    keeper.finish_ahead(list(keeper.records.values()))
    keeper.keep("c", "file", "/c", b"Winter-2026-west again", "none")
    told = kept(keeper)
    assert list(told) == ["a", "b", "c"]
    assert all("secret 1" in text for text in told.values())
    assert keeper.redactor.removed == {"environment": 1}


def test_a_secret_that_is_learnt_late_is_taken_out_of_all() -> None:
    """A container that came meanwhile brings a secret which a record from before holds."""
    keeper = Keeper()
    keeper.keep("a", "file", "/a", b"it says Winter-2026-west", "none")
    keeper.keep("b", "api", "/b", INSPECT % b"Summer-2025-east", "inspect")
    keeper.finish_ahead(list(keeper.records.values()))
    keeper.keep("c", "api", "/c", INSPECT % b"Winter-2026-west", "inspect")
    told = kept(keeper)
    assert "Winter" not in "".join(told.values())
    assert "secret 1" in told["a"]
    assert "secret 2" in told["b"]
    assert "secret 1" in told["c"]


def test_a_record_that_was_replaced_is_finished_anew() -> None:
    """What a name stands for at the end is what leaves."""
    keeper = Keeper()
    keeper.keep("a", "file", "/a", b"before", "none")
    keeper.finish_ahead(list(keeper.records.values()))
    keeper.keep("a", "file", "/a", b"after", "none")
    assert kept(keeper) == {"a": "after"}
