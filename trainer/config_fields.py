"""The fields of a Config: what can be set, with defaults, limits and the text that `--help` and the README show.

Every field is a flag of `trainer.task`. A field's `topic` puts it under a heading in the README; `changes_result`
says whether it belongs to the fingerprint: what the weights depend on, and not where and how fast they come about.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WrapValidator
from pydantic.fields import FieldInfo

from trainer.config_values import (
    MOST_BATCH_SIZE,
    auto_or_number,
    checked_class_weights,
    checked_data,
    checked_fault,
    checked_pattern,
    checked_rate_scale,
    comma_separated,
    shown_batch_size,
    split_rate_scales,
    three_parts,
)
from trainer.layout import DEFAULT_LAYOUT, Layout

BUILT_IN_BACKBONE = "convnet"
"""The backbone that needs no download: a small convolutional network, trained from scratch."""

MAX_IMAGE_PIXELS = 100_000_000
"""Pixels of an image that are decoded unless a run asks for more: 300 MB. Cameras with more are rare, and a header can
claim four billion in a hundred bytes."""

Topic = Literal["Where it runs", "Data", "Model", "Optimization", "Run directory", "Interruptions"]
Augmentation = Literal["flip", "crop", "color"]
ExportFormat = Literal["saved_model", "tflite"]


def _field(
    default: Any,
    topic: Topic,
    description: str,
    *,
    changes_result: bool = True,
    **constraints: Any,
) -> Any:
    return Field(
        default=default,
        description=description,
        json_schema_extra={"topic": topic, "changes_result": changes_result},
        **constraints,
    )


class Fields(BaseModel):
    """All that can be set, each value checked by itself. `trainer.config.Config` checks them together."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    strategy: Literal["default", "mirrored", "multi_worker", "tpu"] = _field(
        "default",
        "Where it runs",
        "Where the replicas run. default: the best single device. mirrored: every GPU of this machine, or "
        "--virtual_devices CPU replicas. multi_worker: the machines that TF_CONFIG (or Vertex's CLUSTER_SPEC) lists, "
        "with every GPU of each. tpu: every core of the TPU that --tpu names.",
        changes_result=False,
    )
    virtual_devices: int = _field(
        0,
        "Where it runs",
        "Split the CPU into this many devices, one replica each, to try --strategy=mirrored or the workers of "
        "multi_worker without GPUs. 0: no.",
        changes_result=False,
        ge=0,
        le=64,
    )
    tpu: str = _field(
        "local",
        "Where it runs",
        "With --strategy=tpu: local, for the chips of this machine; the NAME of a Cloud TPU or of a slice; or "
        "grpc://HOST:PORT, for a slice with the HOST:PORT of all its hosts, separated by commas.",
        changes_result=False,
    )
    worker_timeout: float = _field(
        300.0,
        "Where it runs",
        "Seconds that a worker of multi_worker waits at the start for the others.",
        changes_result=False,
        gt=0,
        le=86_400,
    )
    precision: Literal["float32", "float64", "mixed_bfloat16", "mixed_float16"] = _field(
        "float32",
        "Where it runs",
        "Number format of the layers' arithmetic; weights stay float32 in the mixed ones. mixed_float16 scales the "
        "loss. float64 is for comparisons. A Hub module computes as its publisher saved it: the format applies to "
        "the layers that are ours.",
    )
    accumulation_steps: int = _field(
        1,
        "Where it runs",
        "Compute a replica's part of a batch in this many pieces, one after the other, and update once (gradient "
        "accumulation): for batches that do not fit into memory.",
        changes_result=False,
        ge=1,
        le=4096,
    )
    steps_per_loop: int = _field(
        0,
        "Where it runs",
        "Training steps that run in one call without returning to Python. 0: picked so that a call takes about "
        "half a second.",
        changes_result=False,
        ge=0,
    )

    data: Annotated[str, AfterValidator(checked_data)] = _field(
        "digits",
        "Data",
        "The labelled images or texts. digits: 1797 handwritten digits that come with scikit-learn. folder:PATH: one "
        "folder of images a class, local or gs://. tfrecord:PATTERN: records of tf.train.Example in a file, in a "
        "folder, or in the files that a pattern such as /records/train-*.tfrecord fits, local or gs://. "
        "tfds:NAME[/CONFIG][:VERSION]: a data set of TensorFlow Datasets, all its splits together. csv:FILE: texts and "
        "their labels, local or gs://, see --text_column. "
        "synthetic[:CLASSES]: generated images, for speed tests.",
    )
    image_feature: str = _field(
        "",
        "Data",
        "With tfrecord: the feature that holds the encoded image. Empty: image or image/encoded, whichever is there.",
        changes_result=False,  # Which images and labels are used does, and for those stands `Source.fingerprint`.
    )
    label_feature: str = _field(
        "",
        "Data",
        "With tfrecord: the feature that holds the label, a whole number or a class name. Empty: label, "
        "image/class/text or image/class/label, whichever is there.",
        changes_result=False,
    )
    data_dir: str = _field(
        "",
        "Data",
        "With tfds: the folder of prepared data sets, local or gs://. Empty: TFDS_DATA_DIR or ~/tensorflow_datasets.",
        changes_result=False,
    )
    try_gcs: bool = _field(
        False,
        "Data",
        "With tfds: where the data set is not prepared in --data_dir, read it from Google's public bucket of prepared "
        "data sets, if it is there, rather than download and prepare it.",
        changes_result=False,
    )
    classes: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = _field(
        (),
        "Data",
        "Use only these classes, separated by commas. Empty: all.",
    )
    splits: Annotated[tuple[int, int, int], BeforeValidator(three_parts)] = _field(
        (75, 15, 10),
        "Data",
        "Percent of the images for training, validation and test. Which image goes where depends on its name "
        "alone, and of texts on their words: neither the seed nor examples that are added later move it.",
    )
    examples_per_class: int = _field(
        0,
        "Data",
        "Train on at most this many images a class, drawn with --seed; validation and test stay whole. 0: all.",
        ge=0,
    )
    augment: Annotated[tuple[Augmentation, ...], BeforeValidator(comma_separated)] = _field(
        (),
        "Data",
        "Random changes to the training images, separated by commas. flip: left and right. crop: a part of at "
        "least a third of the area. color: brightness, contrast and saturation.",
    )
    randaugment: float = _field(
        0.0,
        "Data",
        "Strength, up to 10, of RandAugment: two operations drawn for each training image from rotations, shears, "
        "shifts and changes of color. 0: off.",
        ge=0,
        le=10,
    )
    mixup: float = _field(
        0.0,
        "Data",
        "Blend each training image and its label with its neighbour in the batch, in shares drawn from "
        "Beta(mixup, mixup). 0: off; 0.2 is common.",
        ge=0,
        le=100,
    )
    cutmix: float = _field(
        0.0,
        "Data",
        "Paste a rectangle of its neighbour in the batch over each training image; areas drawn from "
        "Beta(cutmix, cutmix). With --mixup, each pair gets one or the other. 0: off; 1 is common.",
        ge=0,
        le=100,
    )
    resize: Literal["crop", "squash"] = _field(
        "crop",
        "Data",
        "How a picture becomes square. crop: the square in its middle. squash: all of it, out of proportion, as the "
        "Hub tutorials do.",
    )
    stage_to: str = _field(
        "",
        "Data",
        "Copy the images of --data=folder:gs://… to this local folder first, with checksums, and read them there. What "
        "it holds already is not copied again. Empty: read them from gs:// all the time.",
        changes_result=False,
    )
    cache_decoded: bool = _field(
        False,
        "Data",
        "Decode all images once, before the first step, and keep them in memory at the size that the model takes: for "
        "sets that fit into half of what is free. Not with --augment=crop, which cuts from the originals.",
        changes_result=False,
    )
    on_bad_image: Literal["fail", "skip"] = _field(
        "fail",
        "Data",
        "What to do about a file that cannot be decoded. fail: stop and name it. skip: look through all files "
        "first, leave the bad ones out, and list them in status.json.",
        changes_result=False,  # Which images are used does, and for those stands `Source.fingerprint`.
    )
    max_image_pixels: int = _field(
        MAX_IMAGE_PIXELS,
        "Data",
        "Height x width, over all frames, above which an image is a bad one: it is refused for what its header claims, "
        "before memory is taken for it, in training and by the exported model.",
        changes_result=False,  # As on_bad_image.
        ge=1,
        lt=2**31,
    )
    text_column: str = _field(
        "text",
        "Data",
        "With csv: the name of the column that holds the text. The file is UTF-8, its first row names the columns, and "
        "a text that holds commas or line breaks stands in double quotes.",
        changes_result=False,  # Which texts and labels are used does, and for those stands `Source.fingerprint`.
    )
    label_column: str = _field(
        "label",
        "Data",
        "With csv: the name of the column that holds the class, by its name.",
        changes_result=False,
    )

    backbone: str = _field(
        BUILT_IN_BACKBONE,
        "Model",
        "What turns an image or a text into a feature vector. convnet: a small network of our own for images, trained "
        "from scratch. Otherwise a TensorFlow Hub handle: a folder, gs://, or https://.",
    )
    train_backbone: bool = _field(
        False,
        "Model",
        "Train the Hub module's variables too (fine-tuning), not only the classification head.",
    )
    backbone_statistics: Literal["keep", "update"] = _field(
        "keep",
        "Model",
        "With --train_backbone: keep the module's batch-norm moving statistics as published, or update them "
        "from the batches (averaged over replicas after every step).",
    )
    freeze: Annotated[str, AfterValidator(checked_pattern)] = _field(
        "",
        "Model",
        "Train all but the variables whose path this regular expression is found in, such as "
        "'/block_1[0-4]_' or '^backbone/'. --dry_run lists the paths. Empty: none.",
    )
    image_size: int = _field(
        0,
        "Model",
        "Height and width, in pixels, that images are resized to. 0: what the module expects.",
        ge=0,
        le=4096,
    )
    dropout: float = _field(
        0.0,
        "Model",
        "Fraction of the feature vector that is dropped in training, from 0 to below 1.",
        ge=0,
        lt=1,
    )
    hidden_units: Annotated[tuple[Annotated[int, Field(ge=1, le=2**20)], ...], BeforeValidator(comma_separated)] = (
        _field(
            (),
            "Model",
            "Widths of dense layers with ReLU between the feature vector and the logits, separated by commas, as in "
            "512. Empty: none.",
        )
    )
    feature_cache: str = _field(
        "auto",
        "Model",
        "Where the feature vectors of a frozen Hub module are kept, so that each image goes through it once and not "
        "once an epoch: a folder, local or gs://. auto: ~/.cache/hub-trainer/features. off: computed in every epoch.",
        changes_result=False,
    )
    feature_cache_views: int = _field(
        0,
        "Model",
        "With --augment or --randaugment: draw this many variants of each training image, keep their features, and "
        "go through them in turn, one an epoch. 0: a new variant in every epoch, without a cache.",
        ge=0,
        le=1000,
    )
    init_from: str = _field(
        "",
        "Model",
        "Start from the weights of another run: those of its best checkpoint that this model has too, in the same "
        "shape. Optimizer and step begin anew. A run directory, local or gs://. Empty: no.",
    )
    hub_mirror: str = _field(
        "",
        "Model",
        "Fetch https://tfhub.dev/… handles from this host instead, such as https://hub.tensorflow.google.cn.",
        changes_result=False,
    )
    repair_hub_cache: bool = _field(
        False,
        "Model",
        "If the cached copy of the module is incomplete, delete it and fetch it again.",
        changes_result=False,
    )

    # The limits stand inside: auto is none of the numbers that they are about.
    batch_size: Annotated[
        int, Field(ge=1, le=MOST_BATCH_SIZE), WrapValidator(auto_or_number), PlainSerializer(shown_batch_size)
    ] = _field(
        32,
        "Optimization",
        "Images a training step, over all replicas together (the global batch). auto: the largest of replicas x 1, 2, "
        "4, 8, ... whose step fits into memory, found by trying before the training starts; at most the training "
        "images, and on CPUs at most 256 and half of the free memory.",
    )
    epochs: int = _field(10, "Optimization", "Passes over the training images.", ge=1, le=1_000_000)
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "rmsprop"] = _field(
        "adam",
        "Optimization",
        "The update rule. momentum is SGD with Nesterov momentum 0.9.",
    )
    learning_rate: float = _field(
        0.0,
        "Optimization",
        "Peak learning rate. 0: by what is trained, 8e-3 for a head on a frozen module, 3e-4 for fine-tuning, 1e-3 "
        "for the built-in network.",
        ge=0,
        lt=1e3,
    )
    learning_rate_batch: int = _field(
        0,
        "Optimization",
        "The batch size that the learning rate is meant for: it is multiplied by --batch_size over this (linear "
        "scaling). 0: taken as it is.",
        ge=0,
    )
    lr_scale: Annotated[
        tuple[Annotated[str, AfterValidator(checked_rate_scale)], ...], BeforeValidator(split_rate_scales)
    ] = _field(
        (),
        "Optimization",
        "PATTERN:FACTOR, separated by commas: variables whose path the regular expression is found in learn at this "
        "multiple of the rate, as in backbone:0.1. The first pattern that fits counts.",
    )
    schedule: Literal["constant", "cosine", "linear", "step"] = _field(
        "cosine",
        "Optimization",
        "How the learning rate falls from its peak; cosine and linear end at zero, step falls at --decay_epochs.",
    )
    decay_epochs: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], BeforeValidator(comma_separated)
    ] = _field(
        (),
        "Optimization",
        "With --schedule=step: the epochs, whole or not, after which the rate is multiplied by --decay_factor.",
    )
    decay_factor: float = _field(
        0.1,
        "Optimization",
        "With --schedule=step: what the rate is multiplied by at each of --decay_epochs.",
        gt=0,
        le=1,
    )
    warmup: float = _field(
        0.0,
        "Optimization",
        "Epochs, whole or not, over which the learning rate rises to its peak.",
        ge=0,
    )
    weight_decay: float = _field(
        0.0,
        "Optimization",
        "Pull of the weights towards zero, not applied to biases and norm scales. adamw decays the weights "
        "beside the update; the others add it to the gradient (L2).",
        ge=0,
        lt=1,
    )
    label_smoothing: float = _field(
        0.0,
        "Optimization",
        "Share of each label's probability that is spread over all classes, from 0 to below 1.",
        ge=0,
        lt=1,
    )
    class_weights: Annotated[
        tuple[str, ...], BeforeValidator(comma_separated), AfterValidator(checked_class_weights)
    ] = _field(
        (),
        "Optimization",
        "How much each class counts in the training loss: NAME:WEIGHT, separated by commas (1 for the others), or "
        "balanced, so that all classes count alike however many images they have.",
    )
    ema_decay: float = _field(
        0.0,
        "Optimization",
        "Keep an exponential moving average of the weights with this decay, and evaluate and export it. 0: off; "
        "0.999 is common.",
        ge=0,
        lt=1,
    )
    clip_norm: float = _field(
        0.0,
        "Optimization",
        "Largest global norm of the gradient, taken after the sum over replicas. 0: no limit.",
        ge=0,
        allow_inf_nan=False,
    )
    seed: int = _field(
        0,
        "Optimization",
        "Everything random derives from it: initial weights, order, augmentation, dropout.",
        ge=0,
        lt=2**31,
    )

    run_dir: str = _field(
        "",
        "Run directory",
        "Where the run leaves everything, local or gs://. Empty: on Vertex AI the job's base output directory, "
        "elsewhere a new folder under runs/.",
        changes_result=False,
    )
    run_dir_layout: Layout = _field(
        DEFAULT_LAYOUT,
        "Run directory",
        "What the folders in --run_dir are called. vertex: model/ instead of export/, and logs/ instead of "
        "tensorboard/, where Vertex AI looks for them; that is so by itself in a job's base output directory. A run "
        "that is there keeps its own.",
        changes_result=False,
    )
    resume: str = _field(
        "auto",
        "Run directory",
        "auto: go on where --run_dir stopped, or start. never: start, and refuse a run_dir that holds a run. "
        "PATH: start from the last checkpoint of that run directory, position and optimizer included.",
        changes_result=False,
    )
    export: Annotated[tuple[ExportFormat, ...], BeforeValidator(comma_separated)] = _field(
        ("saved_model",),
        "Run directory",
        "At the end publish the best checkpoint under export/. saved_model: as a SavedModel. tflite, or "
        "saved_model,tflite: as that and, under export/tflite/, as two files for phones, of float16 and int8 weights. "
        "Empty (--export=): not at all. The same command with more, later, adds that to the finished run.",
        changes_result=False,
    )
    report: bool = _field(
        True,
        "Run directory",
        "At the end make report/: a page to look at, its charts as PNG, its numbers as JSON. python -m trainer.report "
        "RUN_DIR makes it at any time.",
        changes_result=False,
    )
    keep_checkpoints: int = _field(
        2,
        "Run directory",
        "How many of the newest checkpoints are kept. The best one is kept too.",
        changes_result=False,
        ge=1,
        le=1_000_000,
    )
    checkpoint_steps: int = _field(
        0,
        "Run directory",
        "Save a checkpoint every so many steps, beside those at the ends of the epochs. 0: not by steps.",
        changes_result=False,
        ge=0,
    )
    checkpoint_minutes: float = _field(
        10.0,
        "Run directory",
        "Save a checkpoint once so many minutes have passed since the last one. 0: not by time.",
        changes_result=False,
        ge=0,
        le=1_000_000,
    )
    min_accuracy: float = _field(
        0.0,
        "Run directory",
        "What is less accurate on the test split (where that is empty, on the validation split), from 0 to 1, is not "
        "published: neither the model, nor a TFLite file that lost too much. The same command with less adds it later.",
        changes_result=False,
        ge=0,
        le=1,
    )

    max_minutes: float = _field(
        0.0,
        "Interruptions",
        "After so many minutes save, and leave with exit code 75; the same command goes on. 0: no limit.",
        changes_result=False,
        ge=0,
        le=1_000_000,
    )
    stop_seconds: float = _field(
        25.0,
        "Interruptions",
        "Within so many seconds of SIGTERM, of the cloud's notice or of Ctrl-C the process has saved and left with "
        "exit code 75; where it could not save, the run goes on from the checkpoint before.",
        changes_result=False,
        gt=0,
        le=86_400,
    )
    stall_minutes: float = _field(
        30.0,
        "Interruptions",
        "If a call of training steps, or a validation, has not come back after so many minutes, show where every "
        "thread hangs and how far every worker is, and end with exit code 1. 0: wait without end.",
        changes_result=False,
        ge=0,
        le=1_000_000,
    )
    inject: Annotated[tuple[Annotated[str, AfterValidator(checked_fault)], ...], BeforeValidator(comma_separated)] = (
        _field(
            (),
            "Interruptions",
            "Rehearse faults, separated by commas: preempt@STEP, kill@STEP, nan@STEP, slow_worker@STEP:SECONDS, each "
            "when the run is started for the first time; gcs_503@P, each request to gs:// fails with probability P.",
            changes_result=False,
        )
    )
    inject_on_tpu: bool = _field(
        False,
        "Interruptions",
        "Allow --inject with --strategy=tpu, where a rehearsal costs what the TPU costs.",
        changes_result=False,
    )


def field_topic(field: FieldInfo) -> Topic:
    """The heading under which the field stands in the README and in `--help`."""
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra["topic"]  # type: ignore[return-value]


def changes_result(field: FieldInfo) -> bool:
    """Whether the weights depend on the field."""
    assert isinstance(field.json_schema_extra, dict)
    return bool(field.json_schema_extra["changes_result"])
