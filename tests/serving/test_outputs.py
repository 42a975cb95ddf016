"""Names of what a module gives."""

from __future__ import annotations

import tensorflow as tf

from trainer.serving.outputs import named_outputs

ONE = tf.constant(1)


def test_outputs_are_named_by_where_they_are_and_sorted() -> None:
    assert list(named_outputs({"b": ONE, "a": [ONE, (ONE, ONE)]})) == ["a/0", "a/1/0", "a/1/1", "b"]


def test_one_output_has_the_name_that_it_was_given_or_none() -> None:
    assert list(named_outputs([[ONE]])) == list(named_outputs(ONE)) == ["output"]
    assert list(named_outputs({"image": [ONE]})) == ["image"]
