"""The text that Prometheus reads, against the parser of its own client library."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from skate.runtime.node.exposition import exposition
from skate.runtime.node.kept_metrics import KeptMetrics, total
from skate.runtime.wire.state import MetricRow


def parsed(rows: list[MetricRow]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(rows))
        for sample in family.samples
    }


# What a tag may be: any text but carriage returns, which the parser takes for the end of a line.
texts = st.text(
    st.characters(
        blacklist_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", blacklist_categories=("Cs",)
    )
)


@given(tag=texts, number=st.floats(allow_nan=False), about=texts)
def test_any_tag_and_any_number_come_through(tag: str, number: float, about: str) -> None:
    found = parsed([MetricRow("level", "gauge", about, {"tag": tag}, number)])
    assert found == {("level", frozenset({("tag", tag)})): number}


def test_counters_end_as_prometheus_wants() -> None:
    rows = [
        MetricRow("a", "counter", "", {}, 3.0),
        MetricRow("b_total", "counter", "", {"x": "y"}, 1e16),
    ]
    assert parsed(rows) == {("a_total", frozenset()): 3, ("b_total", frozenset({("x", "y")})): 1e16}


def test_buckets_are_cumulative() -> None:
    row = MetricRow("t", "histogram", "", {}, 7.5, [1.0, 2.5], [1, 2, 3])
    assert parsed([row]) == {
        ("t_bucket", frozenset({("le", "1")})): 1,
        ("t_bucket", frozenset({("le", "2.5")})): 3,
        ("t_bucket", frozenset({("le", "+Inf")})): 6,
        ("t_sum", frozenset()): 7.5,
        ("t_count", frozenset()): 6,
    }


def test_names_that_would_break_the_text_are_left_out() -> None:
    rows = [
        MetricRow("a b\nc", "gauge", "", {}, 1.0),
        MetricRow("ok", "gauge", "", {"-": "x"}, 1.0),
    ]
    assert exposition(rows).strip() == ""


def test_one_name_for_two_kinds_shows_the_first() -> None:
    rows = [
        MetricRow("x", "gauge", "", {}, 1.0),
        MetricRow("x", "histogram", "", {}, 1.0, [1.0], [1, 0]),
    ]
    assert parsed(rows) == {("x", frozenset()): 1.0}


def test_sums_of_living_and_ended_processes() -> None:
    kept = KeptMetrics()

    def count(amount: float) -> list[MetricRow]:
        return [
            MetricRow("n", "counter", "", {"a": "b"}, amount),
            MetricRow("h", "histogram", "", {}, amount, [1.0], [1, 2]),
            MetricRow("g", "gauge", "", {}, amount),
        ]

    kept.update(b"1", count(1))
    kept.update(b"1", count(2))
    kept.update(b"2", count(10))
    kept.ended(b"1")
    kept.ended(b"1")
    kept.update(b"3", count(100))
    rows = kept.rows()
    assert [row.name for row in rows] == ["g", "g", "h", "n"]
    assert {row.tags["worker_id"]: row.value for row in rows[:2]} == {"32": 10, "33": 100}
    assert (rows[2].value, rows[2].counts) == (112, [3, 6])
    assert total(rows[3:]) == {(("a", "b"),): 112}
    # Reading changes nothing.
    assert kept.rows() == rows
