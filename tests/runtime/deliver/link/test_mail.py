"""Messages beside the reports: what is kept while nobody listens, and what goes again."""

from __future__ import annotations

from pathlib import Path

from orinspect.runtime.deliver.link.alarm import ALARMS
from orinspect.runtime.deliver.link.mail import Letter, Mail


def _payloads(mail: Mail, most: int = 99) -> list[str]:
    return [letter.payload for _, letter in mail.take(most)]


def test_letters_go_in_the_order_of_posting_and_once_a_connection() -> None:
    mail = Mail()
    for payload in "abc":
        mail.post(Letter("alarm", payload))
    assert _payloads(mail, 2) == ["a", "b"]
    assert _payloads(mail) == ["c"]
    assert _payloads(mail) == []
    assert len(mail) == 3


def test_what_nobody_confirmed_goes_again_over_the_next_connection() -> None:
    mail = Mail()
    for payload in "ab":
        mail.post(Letter("alarm", payload))
    (number, _), _ = mail.take(9)
    assert mail.settle(number) == Letter("alarm", "a")
    assert mail.settle(number) is None
    mail.begin()
    assert _payloads(mail) == ["b"]


def test_a_retained_topic_keeps_its_last_message_and_says_it_on_every_connection() -> None:
    mail = Mail()
    for payload in "abc":
        mail.post(Letter("health", payload, retain=True))
    ((number, letter),) = mail.take(9)
    assert letter.payload == "c"
    mail.settle(number)
    assert len(mail) == 0
    mail.begin()
    assert _payloads(mail) == ["c"]


def test_a_newer_retained_message_replaces_one_on_the_way_whose_answer_then_means_nothing() -> None:
    mail = Mail()
    mail.post(Letter("health", "old", retain=True))
    ((number, _),) = mail.take(9)
    mail.post(Letter("health", "new", retain=True))
    assert mail.settle(number) is None
    assert _payloads(mail) == ["new"]


def test_of_other_topics_a_bounded_number_waits_and_the_oldest_go_first() -> None:
    mail = Mail(most=3)
    for number in range(10):
        mail.post(Letter("alarm", str(number)))
    mail.post(Letter("review", "r"))
    assert _payloads(mail) == ["7", "8", "9", "r"]
    assert mail.dropped == {"alarm": 7, "review": 0}


def test_the_page_on_delivery_lists_every_alarm() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "delivery.md").read_text(encoding="utf-8")
    rows = [f"| `{code}` | {kind.severity} | {kind.remedy} |" for code, kind in ALARMS.items()]
    assert [
        line for line in page.splitlines() if line.startswith("| `") and "." in line.split("`")[1]
    ] == rows
