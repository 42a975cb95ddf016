"""Steps and modules that a TPU takes or does not, each with what preflight must say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modules
import tensorflow as tf

from trainer.preflight.pretend_tpu import pretend_slice
from trainer.preflight.readiness import Rule
from trainer.preflight.replica_program import ReplicaProgram
from trainer.preflight.tracing import trace_replica

IMAGES = tf.TensorSpec([2, 8, 8, 3])
Compute = Callable[[tf.Tensor], Any]


@dataclass(frozen=True)
class Case:
    """A step, or a module that is called as one.

    Attributes:
      compute: from a batch to a tensor.
      rule: that it breaks; "" for none.
      said: part of what is said of it.
      spec: of the batch.
      as_module: whether it is saved and loaded again first.
    """

    compute: Compute
    rule: Rule | str = ""
    said: str = ""
    spec: tf.TensorSpec = field(default=IMAGES)
    as_module: bool = False

    @property
    def name(self) -> str:
        """For pytest."""
        return f"{self.compute.__name__}{' module' if self.as_module else ''}"


def printing(x: tf.Tensor) -> tf.Tensor:
    tf.print("batch", x)
    return x


def called_printing(x: tf.Tensor) -> tf.Tensor:
    return tf.function(printing)(x)


def printing_in_a_branch(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(x) > 0.0, lambda: printing(x), lambda: x)


def calling_python(x: tf.Tensor) -> tf.Tensor:
    return tf.py_function(lambda y: y, [x], tf.float32)


def calling_numpy(x: tf.Tensor) -> tf.Tensor:
    return tf.numpy_function(lambda y: y, [x], tf.float32)


def writing_text(x: tf.Tensor) -> tf.Tensor:
    return tf.strings.as_string(x)


def decoding(x: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(tf.constant(b""))


def resizing_bicubically(x: tf.Tensor) -> tf.Tensor:
    return tf.image.resize(x, [4, 4], "bicubic")


def resizing_with_antialias(x: tf.Tensor) -> tf.Tensor:
    return tf.image.resize(x, [4, 4], antialias=True)


def cropping_and_resizing(x: tf.Tensor) -> tf.Tensor:
    return tf.image.crop_and_resize(x, [[0.0, 0.0, 0.5, 0.5]], [0], [4, 4])


def rotating(x: tf.Tensor) -> tf.Tensor:
    zero = tf.zeros([2, 8])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x, transforms=zero, output_shape=[8, 8], fill_value=0.0, interpolation="BILINEAR", fill_mode="REFLECT"
    )


def asking_the_host(x: tf.Tensor) -> tf.Tensor:
    return tf.compat.v1.tpu.outside_compilation(tf.negative, x)


def telling_the_time(x: tf.Tensor) -> tf.Tensor:
    return x + tf.cast(tf.timestamp(), tf.float32)


def masking(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.boolean_mask(x, x > 0.0))


def finding_places(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.where(x > 0.0))


def finding_the_different(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.unique(tf.reshape(x, [-1])).y)


def counting_by_data(x: tf.Tensor) -> tf.Tensor:
    return tf.range(tf.cast(x[0, 0, 0, 0], tf.int32))


def complex_in_double(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.math.real(tf.cast(x, tf.complex128) * 1j), tf.float32)


def in_double(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.exp(tf.cast(x, tf.float64)), tf.float32)


def handing_on(x: tf.Tensor) -> tf.Tensor:
    return tf.identity(x)


def counting_classes(x: tf.Tensor) -> tf.Tensor:
    return tf.math.bincount(tf.cast(tf.reshape(x, [-1]), tf.int32), minlength=4, maxlength=4)


def asserting(x: tf.Tensor) -> tf.Tensor:
    """XLA leaves assertions out, text and all."""
    tf.debugging.Assert(tf.reduce_all(x > 0.0), ["not above zero:", x])
    return x


def complex_in_single(x: tf.Tensor) -> tf.Tensor:
    return tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64)))


def resizing_bilinearly(x: tf.Tensor) -> tf.Tensor:
    return tf.image.resize(x, [4, 4])


def convolving(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, tf.ones([3, 3, 3, 4]), 1, "SAME")


def sorting(x: tf.Tensor) -> tf.Tensor:
    return tf.math.top_k(tf.sort(x), 2).values


def branching(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(x) > 0.0, lambda: x, lambda: -x)


def looping_by_data(x: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda y: tf.reduce_sum(y) < 100.0, lambda y: [y * 2.0 + 1.0], [x])[0]


def drawing(x: tf.Tensor) -> tf.Tensor:
    return x + tf.random.stateless_normal(x.shape, [1, 2])


def in_bfloat16(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.nn.softmax(tf.cast(x, tf.bfloat16)), tf.float32)


def replacing(x: tf.Tensor) -> tf.Tensor:
    """What stands for a mask."""
    return tf.reduce_sum(tf.where(x > 0.0, x, 0.0))


CASES = (
    Case(printing, "host", "tf.print"),
    Case(called_printing, "host", "tf.print"),
    Case(printing_in_a_branch, "host", "tf.print"),
    Case(calling_python, "host", "tf.py_function"),
    Case(calling_numpy, "host", "tf.numpy_function"),
    Case(writing_text, "host", "AsString"),
    Case(decoding, "host", "tf.io.decode_jpeg"),
    Case(resizing_bicubically, "host", "ResizeBicubic"),
    Case(resizing_with_antialias, "host", "ScaleAndTranslate"),
    Case(cropping_and_resizing, "host", "CropAndResize"),
    Case(rotating, "host", "ImageProjectiveTransformV3"),
    Case(asking_the_host, "host", "marked for the host"),
    Case(telling_the_time, "host", "Timestamp"),
    Case(masking, "dynamic", "boolean_mask"),
    Case(finding_places, "dynamic", "Where"),
    Case(finding_the_different, "dynamic", "Unique"),
    Case(counting_by_data, "lowering", "compile-time constant"),
    Case(counting_classes, "lowering", "bincount"),
    Case(complex_in_double, "type", "c128"),
    Case(in_double, "emulated", "float64"),
    Case(handing_on, "shape", "drop_remainder", tf.TensorSpec([None, 4])),
    Case(handing_on, "type", "text", tf.TensorSpec([4], tf.string)),
    Case(printing, "host", "tf.print", as_module=True),
    Case(resizing_bicubically, "host", "ResizeBicubic", as_module=True),
    Case(masking, "dynamic", "boolean_mask", as_module=True),
    Case(complex_in_double, "type", "c128", as_module=True),
    Case(asserting),
    Case(complex_in_single),
    Case(resizing_bilinearly),
    Case(convolving),
    Case(sorting),
    Case(branching),
    Case(looping_by_data),
    Case(drawing),
    Case(in_bfloat16),
    Case(replacing),
    Case(convolving, as_module=True),
    Case(branching, as_module=True),
)


def program_of(case: Case, folder: Path, replicas: int = 2) -> ReplicaProgram:
    """A replica's program of a step that does nothing but the case; `folder` takes what is saved."""
    strategy, compute = pretend_slice(replicas), case.compute
    if case.as_module:
        saved = modules.computing(folder / "module", case.spec, case.compute)
        with strategy.scope():
            compute = tf.saved_model.load(str(saved))

    def step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"y": compute(batch["x"])}

    return trace_replica(strategy, step, {"x": case.spec})
