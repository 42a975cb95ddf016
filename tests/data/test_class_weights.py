"""How much each class counts."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import Config
from trainer.data.class_weights import class_weights
from trainer.errors import UserError
from trainer.training.step import TrainingLoss, cross_entropy

NAMES = ("daisy", "rose", "tulip")
LABELS = np.array([0, 0, 0, 1], np.int32)


def test_balanced_classes_count_alike_and_add_up_to_the_images() -> None:
    weights = class_weights(Config(class_weights=("balanced",)), NAMES, LABELS)
    assert weights is not None
    np.testing.assert_allclose(weights, [4 / 9, 4 / 3, 0.0], rtol=1e-6)


def test_named_classes_get_their_weights_and_the_others_one() -> None:
    weights = class_weights(Config.parse({"class_weights": "rose:2,tulip:0.5"}), NAMES, LABELS)
    assert weights is not None
    assert weights.tolist() == [1.0, 2.0, 0.5]
    assert class_weights(Config(), NAMES, LABELS) is None


def test_a_class_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="names orchid, but the classes are daisy, rose, tulip"):
        class_weights(Config.parse({"class_weights": "orchid:2"}), NAMES, LABELS)


def test_the_loss_weighs_each_label_by_its_own_class() -> None:
    logits = tf.constant([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    labels, partners, share = tf.constant([0, 2]), tf.constant([1, 1]), tf.constant([0.75, 1.0])
    loss = TrainingLoss(0.0, np.array([1.0, 2.0, 0.5], np.float32))
    own, other = cross_entropy(logits, labels), cross_entropy(logits, partners)
    np.testing.assert_allclose(loss(logits, labels), own * [1.0, 0.5], rtol=1e-6)
    expected = [0.75 * own[0] + 0.25 * 2.0 * other[0], 0.5 * own[1]]
    np.testing.assert_allclose(loss(logits, labels, partners, share), expected, rtol=1e-6)
