"""Run directories on a disk and on TensorFlow's in-memory file system, which stands in for gs://."""

import builtins
import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.storage import RunDirectory, reading_or_writing

SENTENCE_OF_FULL_DISK = "is full: free some space or give another --run_dir; what was saved before is untouched"

LOG_IN = (
    "Log in with an account that has it (the role Storage Object User has all that a run needs), or give another "
    "--run_dir."
)

START_AGAIN = "what was saved before is untouched; start again when it does."


@pytest.fixture
def local(tmp_path: Path) -> RunDirectory:
    return RunDirectory(str(tmp_path / "räume und bilder" / "run"))


class InMemory(RunDirectory):
    """Believes to be on gs:// and is on TensorFlow's in-memory file system.

    Unlike gs://, that has no folders unless made, and goes on at the end of a file that is opened for writing.
    """

    def __init__(self) -> None:
        super().__init__("gs://bucket/run")
        self.path = f"ram://{uuid.uuid4().hex}/run"
        tf.io.gfile.makedirs(self.path)

    def write_text(self, name: str, text: str) -> None:
        self.delete_tree(name)
        tf.io.gfile.makedirs(os.path.dirname(self.join(name)))
        super().write_text(name, text)

    def append_text(self, name: str, text: str) -> None:
        tf.io.gfile.makedirs(os.path.dirname(self.join(name)))
        super().append_text(name, text)


@pytest.fixture
def remote() -> RunDirectory:
    return InMemory()


@pytest.fixture(params=["local", "remote"])
def run(request: pytest.FixtureRequest) -> RunDirectory:
    run: RunDirectory = request.getfixturevalue(request.param)
    return run


def as_root() -> bool:
    return os.geteuid() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not as_root() or not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space left"), open(folder / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


class TestPaths:
    def test_home_and_relative_paths_become_absolute(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        assert RunDirectory("~/a b").path == str(tmp_path / "a b")
        assert RunDirectory("runs/1/").path == str(tmp_path / "runs" / "1")
        assert RunDirectory("gs://bucket/a b/").join("checkpoints", "x") == "gs://bucket/a b/checkpoints/x"

    @pytest.mark.parametrize("path", ["", "s3://bucket/run", "gs://", "gs:///run"])
    def test_other_places_are_refused(self, path: str) -> None:
        with pytest.raises(UserError, match=r"--run_dir.*gs://"):
            RunDirectory(path)


class TestFiles:
    def test_text_comes_back_and_is_replaced(self, run: RunDirectory) -> None:
        assert not run.exists("a", "größe.json")
        run.write_text("a/größe.json", "erst ✓\r\n")
        run.write_text("a/größe.json", "dann")
        assert run.read_text("a", "größe.json") == "dann"
        assert run.exists("a") and run.exists("a/größe.json")
        assert run.list("a") == ["größe.json"]

    def test_append_makes_the_file_and_adds(self, run: RunDirectory) -> None:
        run.append_text("m/lines.jsonl", "ä\n")
        run.append_text("m/lines.jsonl", "b\n")
        assert run.read_text("m/lines.jsonl") == "ä\nb\n"

    def test_list_gives_sorted_names_of_files_and_folders_and_nothing_for_a_missing_folder(
        self, run: RunDirectory
    ) -> None:
        for name in ("b", "a", "c/d"):
            run.write_text(f"x/{name}", "")
        assert run.list("x") == ["a", "b", "c"]
        assert run.list("y") == []

    def test_delete_tree_takes_files_folders_and_nothing(self, run: RunDirectory) -> None:
        run.write_text("a/b/c", "x")
        run.write_text("f", "x")
        for name in ("a", "f", "missing"):
            run.delete_tree(name)
            assert not run.exists(name)

    def test_a_missing_file_is_named(self, local: RunDirectory) -> None:
        with pytest.raises(UserError, match=r"There is no .*räume und bilder/run/a/b: check the name"):
            local.read_text("a", "b")

    def test_a_stop_halfway_leaves_the_old_text(self, local: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
        local.write_text("status.json", "old")

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            local.write_text("status.json", "new")
        assert local.read_text("status.json") == "old"
        assert local.list() == ["status.json"]

    def test_a_file_is_on_disk_before_it_takes_its_place(
        self, local: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []

        def noting(name: str, function: Callable[..., None]) -> Callable[..., None]:
            return lambda *arguments: (calls.append(name), function(*arguments))[1]  # type: ignore[func-returns-value]

        monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync))
        monkeypatch.setattr(os, "replace", noting("replace", os.replace))
        local.write_text("a", "x")
        assert calls == ["fsync", "replace", "fsync"]


class TestTrees:
    def test_publish_replaces_the_tree_and_removes_staging(self, run: RunDirectory) -> None:
        run.write_text("export/old.txt", "old")
        staging = run.staging("export")
        with tf.io.gfile.GFile(f"{staging}/new.txt", "w") as file:
            file.write("new")
        tf.io.gfile.makedirs(f"{staging}/variables")
        with tf.io.gfile.GFile(f"{staging}/variables/data", "w") as file:
            file.write("7")
        run.publish_tree(staging, "export")
        assert run.list("export") == ["new.txt", "variables"]
        assert run.read_text("export/variables/data") == "7"
        assert run.list() == ["export"]

    def test_what_was_not_found_for_once_is_deleted_all_the_same(
        self, remote: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """TensorFlow says so too of a folder on gs:// whose server did not answer."""
        remote.write_text("a/b", "x")
        rmtree, calls = tf.io.gfile.rmtree, []

        def not_found_at_first(path: str) -> None:
            calls.append(path)
            if len(calls) == 1:
                raise tf.errors.NotFoundError(None, None, f"{path} doesn't exist or not a directory.")
            rmtree(path)

        monkeypatch.setattr(tf.io.gfile, "rmtree", not_found_at_first)
        remote.delete_tree("a")
        assert not remote.exists("a") and len(calls) == 2

    def test_what_is_never_found_ends_with_the_error(
        self, remote: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never_found(path: str) -> None:
            raise tf.errors.NotFoundError(None, None, "x")

        remote.write_text("a/b", "x")
        monkeypatch.setattr(tf.io.gfile, "rmtree", never_found)
        with pytest.raises(tf.errors.NotFoundError):
            remote.delete_tree("a")

    def test_local_staging_can_be_published_to_a_remote_place(self, remote: RunDirectory, tmp_path: Path) -> None:
        (tmp_path / "s" / "deep").mkdir(parents=True)
        (tmp_path / "s" / "deep" / "a").write_text("x")
        remote.publish_tree(str(tmp_path / "s"), "export")
        assert remote.read_text("export", "deep", "a") == "x"
        assert not (tmp_path / "s").exists()

    def test_staging_is_a_hidden_sibling_and_fresh(self, local: RunDirectory) -> None:
        first, second = local.staging("checkpoints", "step-1"), local.staging("checkpoints/step-1")
        assert first != second
        for path in (first, second):
            assert os.path.dirname(path) == local.join("checkpoints")
            assert os.path.basename(path).startswith(".step-1.tmp-")
            assert os.listdir(path) == []

    def test_leftovers_of_killed_runs_go_and_nothing_else(self, run: RunDirectory) -> None:
        for name in (".export.tmp-0123abcd/x", ".export.old-0123abcd/x", ".hidden", "a.tmp-0123abcd", "export/x"):
            run.write_text(name, "x")
        run.delete_leftovers()
        assert run.list() == [".hidden", "a.tmp-0123abcd", "export"]

    def test_what_stood_there_comes_back_if_the_new_tree_cannot_be_moved(
        self, local: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local.write_text("export/old", "old")
        staging = local.staging("export")
        rename: Callable[..., None] = os.rename

        def failing(source: str, target: str) -> None:
            if source == staging:
                raise OSError(errno.EIO, "Input/output error")
            rename(source, target)

        monkeypatch.setattr(os, "rename", failing)
        with pytest.raises(OSError, match="Input/output"):
            local.publish_tree(staging, "export")
        assert local.read_text("export/old") == "old"


class TestFullDisk:
    def test_write_keeps_the_old_text(self, small_disk: Path) -> None:
        run = RunDirectory(str(small_disk))
        run.write_text("status.json", "old")
        fill(small_disk)
        with pytest.raises(UserError, match=f"The disk of {small_disk} {SENTENCE_OF_FULL_DISK}"):
            run.write_text("status.json", "x" * 100_000)
        assert run.read_text("status.json") == "old"
        assert leftovers(small_disk) == []

    def test_append_adds_all_or_nothing(self, small_disk: Path) -> None:
        run = RunDirectory(str(small_disk))
        run.append_text("metrics.jsonl", "old\n")
        with pytest.raises(UserError, match=SENTENCE_OF_FULL_DISK):
            run.append_text("metrics.jsonl", "x" * 2_000_000)
        assert run.read_text("metrics.jsonl") == "old\n"

    def test_what_tensorflow_says_of_it_is_understood(self, small_disk: Path) -> None:
        weights = tf.Variable(tf.random.stateless_normal([600, 600], seed=[0, 0]))
        run = RunDirectory(str(small_disk / "run"))
        module = tf.Module()
        module.weights = weights

        def write_file() -> None:
            with tf.io.gfile.GFile(run.join("file"), "w") as file:
                file.write("x" * 2_000_000)

        def write_events() -> None:
            file = tf.io.TFRecordWriter(run.join("events"))
            file.write(b"x" * 2_000_000)
            file.close()

        writes: dict[str, Callable[[], Any]] = {
            "checkpoint": lambda: tf.train.Checkpoint(weights=weights).write(run.join("variables")),
            "saved model": lambda: tf.saved_model.save(module, run.join("export")),
            "file": write_file,
            "events": write_events,
        }
        for write in writes.values():
            run.make_folder()
            with (
                pytest.raises(UserError, match=f"The disk of {run.path} {SENTENCE_OF_FULL_DISK}"),
                reading_or_writing(run.path),
            ):
                write()
            run.delete_tree()

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_anywhere(self, local: RunDirectory, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        """The same without a small disk: the operating system refuses to write."""
        local.write_text("status.json", "old")

        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match=r"The disk .*räume und bilder/run .*free some space or give another"):
            local.write_text("status.json", "new")
        assert local.read_text("status.json") == "old"

    def test_another_disk_is_named(self) -> None:
        with (
            pytest.raises(UserError, match=r"^The disk of /elsewhere/x is full: free some space there\.$"),
            reading_or_writing("/data/run"),
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/x")


class TestSentences:
    def test_a_file_where_a_folder_is_needed(self, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        run = RunDirectory(str(tmp_path / "taken" / "run"))
        for write in (lambda: run.write_text("a", ""), run.make_folder, lambda: tf.io.gfile.makedirs(run.path)):
            with (
                pytest.raises(UserError, match=f"^{tmp_path}/taken is a file where a folder is needed"),
                reading_or_writing(run.path),
            ):
                write()
        assert not run.exists("a") and run.list() == []

    def test_a_folder_where_a_file_is_needed(self, local: RunDirectory) -> None:
        local.make_folder("status.json")
        for use in (lambda: local.read_text("status.json"), lambda: local.write_text("status.json", "")):
            with pytest.raises(UserError, match=r"/status\.json is a folder where a file is needed"):
                use()

    def test_a_name_that_is_too_long(self, local: RunDirectory) -> None:
        with pytest.raises(UserError, match="is too long for this file system"):
            local.write_text("x" * 300, "")
        with pytest.raises(UserError, match="is too long for this file system"), reading_or_writing(local.path):
            tf.io.gfile.makedirs(local.join("x" * 300))

    @pytest.mark.skipif(as_root(), reason="root may write everywhere")
    def test_no_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match=f"^No permission for {tmp_path}: change its permissions or give another"):
            RunDirectory(str(tmp_path / "run")).write_text("a", "")
        tmp_path.chmod(0o700)

    def test_no_permission_for_a_temporary_file_names_the_folder(
        self, local: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local.make_folder()

        def refuse(path: str, *_: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr(builtins, "open", refuse)
        with pytest.raises(UserError, match=r"^No permission for .*/räume und bilder/run: change its permissions"):
            local.write_text("status.json", "")

    def test_a_place_that_may_not_be_looked_at_is_not_taken_for_empty(
        self, local: RunDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        local.write_text("checkpoints/step-1", "")

        look_at = os.stat

        def refuse(path: str, *arguments: Any, **options: Any) -> os.stat_result:
            if path == local.join("checkpoints"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return look_at(path, *arguments, **options)

        monkeypatch.setattr(os, "stat", refuse)
        for look in (local.exists, local.list):
            with pytest.raises(UserError, match="No permission"):
                look("checkpoints")

    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (
                tf.errors.PermissionDeniedError(None, None, "/data; Read-only file system"),
                "/data/run is on a read-only file system: give another --run_dir.",
            ),
            (
                tf.errors.ResourceExhaustedError(
                    None, None, "{{function_node f}} /data/run/a; No space left on device [Op:SaveV2]"
                ),
                f"The disk of /data/run {SENTENCE_OF_FULL_DISK}.",
            ),
            (
                tf.errors.NotFoundError(None, None, "Could not find directory /data/run/a"),
                "There is no /data/run/a: check the name or give another --run_dir.",
            ),
        ],
    )
    def test_tensorflow_errors(self, error: Exception, sentence: str) -> None:
        with pytest.raises(UserError) as raised, reading_or_writing("/data/run"):
            raise error
        assert str(raised.value) == sentence
        assert raised.value.__cause__ is error

    @pytest.mark.parametrize(
        ("message", "sentence"),
        [
            (
                'Error executing an HTTP request: HTTP response code 404 with body \'{"error": {"message": '
                '"The specified bucket does not exist."}}\'\n\t when initiating an upload to gs://bucket/run/a',
                "There is no bucket gs://bucket: create it or give another --run_dir.",
            ),
            (
                "Error executing an HTTP request: HTTP response code 403 with body 'no'\n\t when reading metadata of "
                "gs://bucket/run/a",
                "No permission for gs://bucket/run: storage.objects.get or storage.objects.list is missing for "
                f"gs://bucket. {LOG_IN}",
            ),
            (
                "Error executing an HTTP request: HTTP response code 403 with body 'me@example.com does not have "
                "storage.objects.create access.'\n\t when initiating an upload to gs://bucket/run/a",
                f"No permission for gs://bucket/run: storage.objects.create is missing for gs://bucket. {LOG_IN}",
            ),
            (
                "Error executing an HTTP request: HTTP response code 403\n\t when deleting gs://bucket/run/a",
                f"No permission for gs://bucket/run: storage.objects.delete is missing for gs://bucket. {LOG_IN}",
            ),
            (
                "Error executing an HTTP request: HTTP response code 401\n\t when uploading gs://bucket/run/a",
                "The credentials for gs://bucket were refused (HTTP 401), as they are missing or have expired: log in "
                "anew, as with gcloud auth application-default login, and start again; what was saved before is "
                "untouched.",
            ),
            (
                "All 6 retry attempts failed. The last failure: Error executing an HTTP request: HTTP response code "
                "503 with body 'x'\n\t when uploading gs://bucket/run/a",
                f"gs://bucket does not answer (HTTP 503): {START_AGAIN}",
            ),
            (
                "All 6 retry attempts failed. The last failure: Error executing an HTTP request: libcurl code 52 "
                "meaning 'Server returned nothing (no headers, no data)', error details: Empty\n\t when reading "
                "gs://bucket/run/a",
                f"gs://bucket does not answer (Server returned nothing (no headers, no data)): {START_AGAIN}",
            ),
            (
                "Error executing an HTTP request: libcurl code 42 meaning 'Operation was aborted by an application "
                "callback', error details: Callback aborted\n\t when reading gs://bucket/run/a",
                f"gs://bucket does not answer (nothing came for too long): {START_AGAIN}",
            ),
            (
                "not an sstable (bad magic number) [Op:MergeV2Checkpoints]",
                "What came from gs://bucket/run is damaged (not an sstable (bad magic number) [Op:MergeV2Checkpoints]"
                "): start again and, if that does not help, delete it to go on from what was saved before.",
            ),
            (
                "gs://bucket/run/a doesn't exist or not a directory.",
                "gs://bucket/run/a cannot be deleted: it is gone, or gs://bucket does not answer; what was saved "
                "before is untouched; start again.",
            ),
            (
                "The specified path gs://bucket/run/a was not found.",
                "There is no gs://bucket/run/a: check the name or give another --run_dir.",
            ),
        ],
    )
    def test_what_a_bucket_answers(self, message: str, sentence: str) -> None:
        """The messages are those of TensorFlow's own gs:// file system."""
        with pytest.raises(UserError) as raised, reading_or_writing("gs://bucket/run"):
            raise tf.errors.NotFoundError(None, None, message)
        assert str(raised.value) == sentence

    def test_an_error_while_cleaning_up_does_not_hide_what_went_wrong(self) -> None:
        with pytest.raises(UserError, match=r"does not answer \(HTTP 503\)"), reading_or_writing("gs://bucket/run"):
            try:
                raise tf.errors.AbortedError(None, None, "HTTP response code 503 when uploading gs://bucket/run/a")
            finally:
                raise tf.errors.NotFoundError(None, None, "gs://bucket/run/a doesn't exist or not a directory.")

    def test_full_temporary_folder_below_gs(self) -> None:
        with pytest.raises(UserError, match="let TMPDIR name another folder"), reading_or_writing("gs://bucket/run"):
            raise tf.errors.InternalError(None, None, "Could not write to the internal temporary file.")

    def test_the_flag_that_chose_the_place_is_named(self) -> None:
        with (
            pytest.raises(UserError, match=r"There is no /photos: check the name or give another --data\."),
            reading_or_writing("/photos", flag="--data"),
        ):
            raise FileNotFoundError(errno.ENOENT, "no", "/photos")

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.EIO, os.strerror(errno.EIO), "/data/run/a"),
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/elsewhere/a"),
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9,9]"),
            tf.errors.NotFoundError(None, None, "/elsewhere/a; No such file or directory"),
            tf.errors.AbortedError(None, None, "All 10 retry attempts failed. HTTP response code 503"),
            ValueError("x"),
        ],
    )
    def test_everything_else_passes_as_it_is(self, error: Exception) -> None:
        with pytest.raises(type(error)) as raised, reading_or_writing("/data/run"):
            raise error
        assert raised.value is error
