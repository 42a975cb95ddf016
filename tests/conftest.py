"""One TensorFlow for all tests: four logical CPU devices, and the real data where it is present."""

from __future__ import annotations

import gc
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
if "PYTEST_XDIST_WORKER" in os.environ:  # Two pytest processes share the cores: more threads each would wait.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import pytest

VIRTUAL_DEVICES = 4

STARTED_FIRST = (
    "test_vertex_to_the_end.py",
    "test_workers.py",
    "test_equivalence.py",
    "test_kills.py",
    "test_evaluation.py",
    "test_mixing.py",
    "test_real_module.py",
)
"""Files of few tests that take long: begun last, they would leave one of two processes without work."""


def pytest_configure(config: pytest.Config) -> None:
    """Imports TensorFlow where tests run: not in the process that only hands them out to others."""
    if config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        return
    from trainer.startup import import_tensorflow_quietly

    import_tensorflow_quietly()
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * VIRTUAL_DEVICES
    )


def pytest_collection_finish() -> None:
    """Leaves the test modules out of every later search for garbage."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps what runs cache out of the home of whoever runs the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache_home"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real modules and photos; a test that needs it is skipped where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("TRAINER_TEST_DATA", default))
    if not (folder / "SHA256SUMS").is_file():
        pytest.skip(f"real modules and photos are not at {folder}; TRAINER_TEST_DATA names their folder")
    return folder


def _unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def flower_photos(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3670 photos in five class folders."""
    return _unpack(test_data / "flower_photos_224.tar", tmp_path_factory.mktemp("flowers")) / "flower_photos"


@pytest.fixture(scope="session")
def hub_module(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpacks a real module by the stem of its archive and gives its folder; once a session."""
    unpacked: dict[str, Path] = {}

    def module(stem: str) -> Path:
        if stem not in unpacked:
            unpacked[stem] = _unpack(test_data / f"{stem}.tar.gz", tmp_path_factory.mktemp(stem))
        return unpacked[stem]

    return module


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the export out, which has its own tests and takes most of a tiny run's time."""
    from runs import pretend_to_export

    monkeypatch.setattr("trainer.export.publish.export_model", pretend_to_export)


@pytest.fixture(autouse=True)
def _no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the page out of whole runs, where it takes two seconds each; tests that are marked `report` make it."""
    if not request.node.get_closest_marker("report"):
        monkeypatch.setattr("trainer.run.make_report", lambda run, console: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first; the order within a file stays."""
    items.sort(key=lambda item: item.path.name not in STARTED_FIRST)
