"""The filters of the fake cloud mean what those of Google's services mean."""

from __future__ import annotations

import pytest
from fakes.filters import predicate
from fakes.rest import GoogleError

ENTRY = {
    "logName": "projects/p/logs/ml_job",
    "resource": {"type": "ml_job", "labels": {"job_id": "123", "task_name": "workerpool0-0"}},
    "labels": {"ml.googleapis.com/x": "y"},
    "timestamp": "2026-11-22T17:00:00.123456789Z",
    "severity": "WARNING",
    "jsonPayload": {"message": 'a "b"', "attrs": {"tag": "t"}},
    "tags": ["one", "two"],
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ('resource.type="ml_job" AND resource.labels.job_id="123"', True),
        ('resource.type=ml_job resource.labels.job_id="124"', False),
        ('labels."ml.googleapis.com/x"="y"', True),
        ("labels.ml.googleapis.com/x=y", False),
        ('jsonPayload.message="a \\"b\\"" AND jsonPayload.attrs.tag:*', True),
        ('jsonPayload.message:"B"', True),
        ("jsonPayload.none:*", False),
        ('jsonPayload.none!="a"', True),
        ('timestamp>="2026-11-22T17:00:00.123456Z"', True),
        ('timestamp>"2026-11-22T18:00:00.2+01:00"', False),
        ("severity>=WARNING", True),
        ("severity>WARNING", False),
        ('NOT severity="INFO"', True),
        ('tags="two"', True),
        ('tags="three"', False),
        ('severity=INFO OR severity=WARNING AND tags="none"', False),
        ('severity=INFO OR (severity=WARNING AND tags="one")', True),
        ('tags="none" AND severity=INFO OR severity=WARNING', False),
    ],
)
def test_filters(text: str, fits: bool) -> None:
    assert predicate(text)(ENTRY) is fits


@pytest.mark.parametrize(
    "text",
    [
        "text",
        "a=",
        "a=(b",
        "(a=b",
        "a=b)",
        'a="b',
        "a=b:c",
        "a==b",
        'timestamp>="yesterday"',
        "severity>=LOUD",
        "=b",
        "a AND b",
    ],
)
def test_filters_that_cannot_be_read(text: str) -> None:
    with pytest.raises(GoogleError, match="filter") as caught:
        predicate(text)(ENTRY)
    assert caught.value.status == 400
