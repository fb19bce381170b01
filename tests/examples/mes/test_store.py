"""The consumer's tables, on SQLite and PostgreSQL: once each, never overwritten, everything accounted for."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from orinspect.examples.mes.contract import Contract
from orinspect.examples.mes.database import Database, DownError
from orinspect.examples.mes.reconcile import reconciliation, text_from, yields
from orinspect.examples.mes.store import CONTRADICTION, COPY, INVALID, NEW, Message, Store
from orinspect.tests.examples.mes.messages import AT, STATION, message, payload, range_payload, result_id
from orinspect.tests.report_cases import BOOT, KINDS, SCHEMA

CONTRACT = Contract(SCHEMA.parent)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database(url, create=True) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database, CONTRACT)


def _outcomes(store: Store, *payloads: bytes) -> list[str]:
    return [stored.outcome for stored in store.take([message(content) for content in payloads])]


def _one(database: Database, query: str) -> object:
    ((value,),) = database.execute(query)
    return value


def test_a_result_is_stored_once_and_its_copies_are_counted(store: Store, database: Database) -> None:
    one, two = payload(1), payload(2)
    respaced = json.dumps(dict(reversed(json.loads(one).items())), indent=1).encode()
    assert _outcomes(store, one, two, one) == [NEW, NEW, COPY]
    assert _outcomes(store, respaced) == [COPY]
    assert database.execute("SELECT sequence, received, payload FROM result ORDER BY sequence") == [
        (1, 3, one.decode()),
        (2, 1, two.decode()),
    ]
    assert reconciliation(database)["is_complete"]


def test_one_id_with_two_contents_is_kept_and_flagged_and_never_overwritten(
    store: Store, database: Database
) -> None:
    first, second = payload(1), payload(1, "reject")
    assert _outcomes(store, first, second, second, first) == [NEW, CONTRADICTION, CONTRADICTION, COPY]
    assert _one(database, "SELECT payload FROM result") == first.decode()
    assert database.execute("SELECT payload, received FROM contradiction") == [(second.decode(), 2)]
    found = reconciliation(database)
    assert found["contradictions"] == [{"station": STATION, "result_id": result_id(1), "contents": 2}]
    assert not found["is_complete"]
    assert f"CONTRADICTION {STATION}: {result_id(1)} came with 2 contents" in text_from(found)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_report_is_taken(store: Store, kind: str) -> None:
    assert _outcomes(store, payload(1, kind)) == [NEW]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{}", "not JSON in UTF-8"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "schema is None"),
        (payload(1).replace(b"report/1.0", b"report/2.0"), "schema is 'orinspect.report/2.0'"),
        (payload(1).replace(b'"sequence":1', b'"sequence":0'), "$.sequence: 0 is less than"),
        (payload(1).replace(b'"confidence":', b'"confidence":NaN,"x":'), "NaN is not JSON"),
        (payload(1).replace(b'"sequence":1', b'"sequence":1,"sequence":1'), "occurs twice"),
        (payload(1).replace(b'"job-9"', b'"job\\u0000"'), "null character"),
        (payload(1).replace(b'"job-9"', b'"job\\ud800"'), "half a character"),
        (payload(1).replace(b'"revision":0', b'"revision":' + b"9" * 40), "the database refuses it"),
        (b'{"a": "' + b"x" * 4_000_000 + b'"}', "4000009 bytes"),
        (range_payload(9, 7), "first_sequence is behind"),
        (range_payload(7, 9, reason_code="failed.engine"), "$.reason_code"),
    ],
    ids=range(15),
)
def test_what_is_invalid_goes_to_quarantine_as_it_came(
    store: Store, database: Database, content: bytes, reason: str
) -> None:
    assert _outcomes(store, payload(5), content, payload(6)) == [NEW, INVALID, NEW]
    assert _outcomes(store, content) == [INVALID]
    ((topic, kept, why, received),) = database.execute(
        "SELECT topic, payload, reason, received FROM quarantine"
    )
    assert (topic, bytes(kept), received) == (f"{STATION}/result", content, 2)
    assert reason in why
    assert len(why) <= 600
    assert set(store.unacknowledged(10)[STATION]) == {result_id(5), result_id(6)}
    assert reconciliation(database)["quarantined"] == 1


def test_a_newer_minor_version_is_stored_whole(store: Store, database: Database) -> None:
    newer = json.dumps({**json.loads(payload(1)), "schema": "orinspect.report/1.7", "humidity": 0.4})
    assert _outcomes(store, newer.encode()) == [NEW]
    assert _one(database, "SELECT payload FROM result") == newer


def test_gaps_are_found_between_and_before_what_came(store: Store, database: Database) -> None:
    """Order of arrival is of no meaning, and a range that the station reports is no gap."""
    other = {"boot_id": "a-later-boot"}
    _outcomes(store, payload(12), range_payload(4, 5, sequence=1), payload(7), payload(3))
    _outcomes(store, payload(2, "aborted"))
    _outcomes(store, payload(1, result_id=result_id(99), root_result_id=result_id(99), **other))
    found = reconciliation(database)
    spans = [(gap["boot_id"], gap["first_sequence"], gap["last_sequence"]) for gap in found["missing"]]
    assert spans == [(BOOT, 1, 1), (BOOT, 6, 6), (BOOT, 8, 11)]
    assert [entry["reason_code"] for entry in found["not_inspected"]] == ["not_inspected.outbox_full"]
    text = text_from(found)
    assert f"MISSING {STATION}, boot {BOOT}: sequences 8 to 11 (4)" in text
    assert f"not inspected: {STATION}, boot {BOOT}: sequences 4 to 5 (2): not_inspected.outbox_full" in text
    assert text.endswith("NOT COMPLETE")
    _outcomes(store, payload(1), payload(6), range_payload(6, 13, sequence=2))
    assert reconciliation(database)["is_complete"]


def test_two_parts_under_one_sequence_are_a_clash_and_a_revision_is_none(
    store: Store, database: Database
) -> None:
    revision = {"result_id": result_id(50), "root_result_id": result_id(1), "supersedes": result_id(1)}
    _outcomes(store, payload(1, "review"), payload(1, "reject", revision=1, **revision))
    assert reconciliation(database)["clashes"] == []
    _outcomes(store, payload(1, result_id=result_id(51), root_result_id=result_id(51)))
    (clash,) = reconciliation(database)["clashes"]
    assert (clash["sequence"], clash["parts"]) == (1, 2)
    assert f"CLASH {STATION}, boot {BOOT}: sequence 1 is 2 parts" in text_from(reconciliation(database))


def test_yield_counts_real_parts_by_their_last_revision(store: Store, database: Database) -> None:
    """The correction comes before what it corrects: the last revision counts all the same."""
    late = {"captured_at": "2026-01-01T15:59:59.999Z"}
    revision = {"result_id": result_id(50), "root_result_id": result_id(3), "supersedes": result_id(3)}
    _outcomes(
        store,
        payload(3, "pass", revision=1, **revision, **late),
        payload(1, "pass", **late),
        payload(2, "reject", **late),
        payload(3, "review", **late),
        payload(4, "aborted", **late),
        payload(5, "failed", **late),
        payload(6, "pass", captured_at="2026-01-01T22:00:00.000Z"),
        payload(7, "reject", is_simulated=True, **late),
    )
    rows = yields(database)
    assert [(row["shift"], row["day"]) for row in rows] == [("late", "2026-01-01"), ("night", "2026-01-01")]
    assert {name: rows[0][name] for name in list(rows[0])[3:]} == {
        "results": 5,
        "inspected": 4,
        "not_inspected": 1,
        "passed": 2,
        "rejected": 1,
        "in_review": 1,
        "first_passed": 1,
        "first_pass_yield": 0.25,
    }
    assert reconciliation(database)["boots"][0]["simulated"] == 1


def test_an_ack_is_due_until_the_broker_has_it_and_again_for_a_copy(store: Store) -> None:
    _outcomes(store, payload(1), payload(2), range_payload(3, 4), b"nonsense")
    ranged = result_id(1_000_003)
    assert {key: set(ids) for key, ids in store.unacknowledged(10).items()} == {
        STATION: {result_id(1), result_id(2), ranged}
    }
    store.mark_acknowledged([result_id(1), ranged, "stranger"], AT)
    assert store.unacknowledged(10) == {STATION: [result_id(2)]}
    _outcomes(store, payload(1), range_payload(3, 4))
    assert set(store.unacknowledged(10)[STATION]) == {result_id(1), result_id(2), ranged}
    assert len(store.unacknowledged(2)[STATION]) == 2


def test_a_transaction_that_breaks_leaves_nothing(store: Store, database: Database) -> None:
    class Broken(Contract):
        def checked(self, content: bytes) -> dict[str, object]:
            if content == b"break":
                raise KeyboardInterrupt
            return CONTRACT.checked(content)

    broken = Store(database, Broken(SCHEMA.parent))
    with pytest.raises(KeyboardInterrupt):
        broken.take([message(payload(1)), message(b"break")])
    assert _one(database, "SELECT COUNT(*) FROM result") == 0
    assert _outcomes(store, payload(1)) == [NEW]


def test_any_order_with_copies_ends_in_the_same_rows(url: str) -> None:
    random_source = random.Random(5)
    sent = [payload(n, random_source.choice(KINDS)) for n in range(1, 30)]
    sent += [random_source.choice(sent) for _ in range(40)] + [range_payload(30, 35, sequence=1), b"nonsense"]
    random_source.shuffle(sent)
    with Database(url, create=True) as database:
        store = Store(database, CONTRACT)
        while sent:
            count = random_source.randint(1, 9)
            store.take([Message(f"{STATION}/result", content, AT) for content in sent[:count]])
            del sent[:count]
        assert _one(database, "SELECT COUNT(*) FROM result") == 29
        assert _one(database, "SELECT SUM(received) FROM result") == 69
        found = reconciliation(database)
        assert (found["missing"], found["clashes"], found["contradictions"]) == ([], [], [])
        assert [json.loads(text)["sequence"] for text in store.payloads()] == list(range(1, 30))
    with Database(url) as again:
        assert _one(again, "SELECT COUNT(*) FROM result") == 29


def test_a_database_without_our_tables_is_refused_by_name(url: str) -> None:
    with pytest.raises(DownError, match=r"none of our tables|does not exist"):
        Database(url)
    with Database(url, create=True) as made:
        made.execute("UPDATE layout SET version = 9")
    with pytest.raises(DownError, match="layout 9, this consumer writes 1"):
        Database(url)


def test_a_wrong_url_says_what_to_give() -> None:
    with pytest.raises(DownError, match="give sqlite:PATH or postgresql://"):
        Database("mysql://x")
