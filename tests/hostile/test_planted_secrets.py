"""Secrets that are planted where a run could find them, and looked for in everything that it prints and leaves."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import image_folders
import pytest
from runs import run_task

from trainer import task
from trainer.config import Config
from trainer.config_values import credentials_problem
from trainer.data import convert
from trainer.errors import EXIT_DONE, EXIT_USER, UserError

SECRET = "Gr8-planted-S3cret"


@pytest.fixture(autouse=True)
def tensorflow_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps `main` from changing log levels for all tests."""
    monkeypatch.setattr(task, "import_tensorflow_quietly", lambda **_: None)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual places of credentials, each with the secret in it."""
    for name in ("GOOGLE_AUTH_TOKEN_FOR_TESTING", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "KAGGLE_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    account = {"type": "service_account", "private_key": SECRET, "client_email": "a@example.org"}
    (tmp_path / "account.json").write_text(json.dumps(account), encoding="utf-8")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("https_proxy", f"http://user:{SECRET}@127.0.0.1:9")


def leaks(data: bytes) -> bool:
    """Whether the secret is in some bytes, plain or as HTTP encodes it."""
    encoded = base64.b64encode(f"user:{SECRET}".encode())
    return SECRET.encode() in data or encoded in data


def test_the_search_finds_what_it_looks_for() -> None:
    assert leaks(f"x{SECRET}x".encode()) and leaks(base64.b64encode(f"user:{SECRET}".encode()))
    assert not leaks(b"nothing")


def test_a_run_prints_and_leaves_no_secret(
    planted: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "left" / "cache"))
    photos = image_folders.write_classes(tmp_path / "photos", {"cat": 6, "dog": 6})
    flags = [f"--data=folder:{photos}", "--image_size=8", "--batch_size=4", "--epochs=1"]
    assert run_task(*flags, f"--run_dir={tmp_path / 'left' / 'run'}") == EXIT_DONE
    files = [path for path in (tmp_path / "left").rglob("*") if path.is_file()]
    assert {"config.json", "status.json", "metrics.jsonl", "saved_model.pb"} <= {path.name for path in files}
    assert any("tensorboard" in path.parts for path in files)
    assert [path for path in files if leaks(path.read_bytes())] == []
    printed = capfd.readouterr()
    assert "accuracy" in printed.out and not leaks((printed.out + printed.err).encode())


def test_what_goes_wrong_on_the_way_tells_no_secret(
    planted: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    run_dir = tmp_path / "run"
    flags = ["--data=synthetic:2", f"--run_dir={run_dir}", "--backbone=https://hub.invalid/m/1"]
    assert run_task(*flags) == EXIT_USER
    printed = capfd.readouterr()
    assert "cannot be fetched" in printed.err and not leaks((printed.out + printed.err).encode())
    assert not run_dir.exists()


ADDRESSES = (
    f"https://user:{SECRET}@example.org/m/1",
    f"https://{SECRET}@example.org/m/1",
    f"http://user:{SECRET}@[::1]:80/m",
    f"https://example.org/m?token={SECRET}",
    f"https://example.org/m?a=b&access_token={SECRET}",
    f"https://storage.googleapis.com/b/m.tar.gz?X-Goog-Signature={SECRET}",
    f"https://b.s3.amazonaws.com/m?X-Amz-Credential={SECRET}",
    f"https://example.org/m?sv=1&sig={SECRET}",
    f"https://example.org/m?api_key={SECRET}",
    f"https://example.org/m?key={SECRET}",
    f"https://example.org/m#password={SECRET}",
    f"https://example.org/m?tf-hub-format=compressed&secret={SECRET}",
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("flag", ["backbone", "hub_mirror", "data", "run_dir", "resume", "feature_cache", "config"])
def test_an_address_with_a_secret_in_it_is_refused_without_repeating_it(
    flag: str, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_task(f"--{flag}={'folder:' if flag == 'data' else ''}{address}") == EXIT_USER
    printed = capfd.readouterr()
    assert f"error: --{flag} holds an address with a" in printed.err
    assert "gs://" in printed.err and "give its folder" in printed.err
    assert not leaks((printed.out + printed.err).encode())


def test_a_config_file_with_a_secret_in_it_is_refused_without_repeating_it() -> None:
    for field in ("backbone", "classes", "no_such_field"):
        value = [ADDRESSES[0]] if field == "classes" else ADDRESSES[0]
        with pytest.raises(UserError) as refused:
            Config.from_json(json.dumps({field: value, "epochs": "many"}))
        assert f"--{field} holds an address" in str(refused.value) and not leaks(str(refused.value).encode())


@pytest.mark.parametrize("arguments", [(ADDRESSES[0], "out"), ("photos", ADDRESSES[0])])
def test_the_converter_refuses_it_too(arguments: tuple[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    assert convert.main(arguments) == EXIT_USER
    printed = capfd.readouterr()
    assert "holds an address with a" in printed.err and not leaks((printed.out + printed.err).encode())


@pytest.mark.parametrize(
    "address",
    [
        "https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/5",
        "https://example.org/m?tf-hub-format=compressed",
        "https://example.org/monkey?version=3",
        "gs://bucket/a@b/photos",
        "/photos/user:name@home",
        "folder:/token=1",
        "grpc://10.0.0.2:8470",
    ],
)
def test_other_addresses_are_none_of_its_business(address: str) -> None:
    assert credentials_problem(address) == ""
