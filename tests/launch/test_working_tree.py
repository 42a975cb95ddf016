"""Packages of a working tree: what git keeps, nothing secret, nothing from outside; the same bytes for the same."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.packaging import source_files, working_tree
from launch.packaging.secret_files import find_secret
from launch.packaging.working_tree import Package, package
from trainer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

Tree = Callable[[dict[str, str]], Path]


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Tree:
    """Makes a repository of one commit."""

    def make(files: dict[str, str]) -> Path:
        root = tmp_path / "tree"
        write(root, files)
        git(root, "init", "--quiet")
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message=first")
        return root

    return make


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def members(packaged: Package) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(packaged.content), mode="r:gz") as archive:
        return {member.name: member for member in archive.getmembers()}


def test_it_holds_what_git_would_keep(repository: Tree) -> None:
    root = repository({"a.py": "1", "sub/b.py": "2", ".gitignore": "*.log\nout/\n", "gone.py": "3"})
    write(root, {"new.py": "4", "x.log": "5", "out/big.bin": "6"})
    (root / "gone.py").unlink()
    packaged = package(root)
    assert list(members(packaged)) == [".gitignore", "a.py", "new.py", "sub/b.py"]
    assert packaged.files == 4
    assert packaged.size == len("*.log\nout/\n") + 3


def test_a_folder_within_a_repository_is_packaged_alone(repository: Tree) -> None:
    root = repository({"a.py": "1", "sub/b.py": "2"})
    write(root, {"c.py": "3"})  # Beside the folder, which is as it was committed.
    packaged = package(root / "sub")
    assert list(members(packaged)) == ["b.py"]
    assert packaged.state.clean


def test_it_says_which_commit_it_is_and_whether_that_is_all(repository: Tree) -> None:
    root = repository({"a.py": "1"})
    commit = git(root, "rev-parse", "HEAD")
    clean = package(root)
    assert (clean.state.commit, clean.state.clean, clean.tag) == (commit, True, commit[:7])
    write(root, {"a.py": "2"})
    changed = package(root)
    assert (changed.state.commit, changed.state.clean) == (commit, False)
    assert changed.tag == f"{commit[:7]}-dirty-{changed.sha256[:12]}"
    git(root, "checkout", "--quiet", "a.py")
    write(root, {"b.py": ""})
    assert package(root).state.clean is False


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "1"})
    git(tmp_path, "init", "--quiet")
    packaged = package(tmp_path)
    assert (packaged.state.commit, packaged.state.clean) == ("", None)
    assert packaged.tag == f"tree-{packaged.sha256[:12]}"


def test_without_git_it_leaves_out_what_tools_leave_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind = ("__pycache__/a.pyc", ".venv-3/x", "b/d.egg-info/P", "runs/m")
    write(tmp_path, {"a.py": "1", "b/c.py": "2", **dict.fromkeys(left_behind, "")})
    (tmp_path / "link").symlink_to("b")
    monkeypatch.setattr(source_files.shutil, "which", lambda name: None)
    packaged = package(tmp_path)
    assert list(members(packaged)) == ["a.py", "b/c.py", "link"]
    assert (packaged.state.commit, packaged.state.clean) == ("", None)


def test_what_git_refuses_to_read_is_said(repository: Tree) -> None:
    root = repository({"a.py": "1"})
    (root / ".git" / "HEAD").write_text("nonsense")
    with pytest.raises(UserError, match="git cannot read .*not a git repository"):
        package(root)


def test_the_same_tree_is_the_same_package_whenever_and_wherever(tmp_path: Path) -> None:
    trees = [tmp_path / "one", tmp_path / "two"]
    for root, names in zip(trees, (["b.py", "a.py", "ü/c.sh"], ["ü/c.sh", "a.py", "b.py"])):
        write(root, {name: name for name in names})
        (root / "ü" / "c.sh").chmod(0o700 if root is trees[0] else 0o755)
    os.utime(trees[1] / "a.py", (1, 1))
    (trees[1] / "b.py").chmod(0o600)
    first, second = package(trees[0]), package(trees[1])
    assert first.content == second.content
    assert first.content[3:8] == bytes(5)  # No flags and no time in the head (RFC 1952).
    assert first.sha256 == hashlib.sha256(first.content).hexdigest()
    member = members(first)
    assert [info.mode for info in member.values()] == [0o644, 0o644, 0o755]
    assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in member.values()} == {
        (0, 0, "", "", 946_684_800)
    }


def test_a_link_within_the_tree_stays_one(tmp_path: Path) -> None:
    write(tmp_path, {"a/b.py": "1"})
    (tmp_path / "a" / "c.py").symlink_to("../a/b.py")
    (tmp_path / "d").symlink_to("nowhere")
    found = members(package(tmp_path))
    assert (found["a/c.py"].issym(), found["a/c.py"].linkname, found["d"].linkname) == (True, "../a/b.py", "nowhere")


@pytest.mark.parametrize(
    "target", ["/etc/hostname", "../outside", "b/../../outside", "detour/secret", "../tree/b/x", "{root}/b/x"]
)
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    """Also one that comes back in by the tree's own name, which it has here alone."""
    root = tmp_path / "tree"
    write(tmp_path, {"outside": "", "elsewhere/secret": "", "tree/b/x": ""})
    (root / ".venv-hidden").symlink_to("../elsewhere")  # Is not packaged, and so not refused itself.
    (root / "link").symlink_to(target.format(root=root).replace("detour", ".venv-hidden"))
    with pytest.raises(UserError, match="link is a link to .* out of the working tree"):
        package(root)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(UserError, match="s is neither a file nor a link"):
            package(tmp_path)


def test_a_repository_within_is_refused(repository: Tree) -> None:
    root = repository({"a.py": "1"})
    write(root, {"inner/b.py": ""})
    git(root / "inner", "init", "--quiet")
    with pytest.raises(UserError, match="inner is a git repository of its own"):
        package(root)


def test_too_much_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"small.py": "1"})
    with (tmp_path / "model.bin").open("wb") as stream:
        stream.truncate(working_tree.LARGEST_PACKAGE)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"50 MiB in 2 files.*the largest is model\.bin with 50\.0 MiB"):
        package(tmp_path)


# Put together here, so that no file of this repository looks like one that holds them.
PRIVATE_KEY = "-----BEGIN " + "PRIVATE KEY-----\nMIIE"
SECRETS = {
    "a private key": PRIVATE_KEY,
    "a refresh token": '{"refresh_token": "' + "1//0abcdefghijklmnop" + '"}',
    "a Google API key": "key = AIza" + "x" * 35,
    "a Google access token": "ya29." + "a0" * 20,
    "an OAuth client's secret": "GOCSPX-" + "k" * 28,
    "an AWS access key": "AKIA" + "Q" * 16,
    "a GitHub token": "ghp_" + "z" * 36,
    "a GitLab token": "glpat-" + "z" * 20,
    "a Slack token": "xoxb-" + "1234567890-abc",
    "a Hugging Face token": "hf_" + "Q" * 34,
    "a PyPI token": "pypi-" + "A" * 60,
}


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_found_by_its_content_and_not_repeated(tmp_path: Path, what: str) -> None:
    write(tmp_path, {"a.py": "1", "b/settings.txt": f"one\ntwo\n{SECRETS[what]}\n"})
    with pytest.raises(UserError) as error:
        package(tmp_path)
    assert f"b/settings.txt:3 looks like {what}: nothing was sent" in str(error.value)
    assert "--allow_file=b/settings.txt" in str(error.value)
    assert SECRETS[what] not in str(error.value)


def test_a_service_accounts_key_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    key = '{\n  "type": "service_account",\n  "private_key": "' + PRIVATE_KEY.replace("\n", "\\n") + '"\n}'
    write(tmp_path, {"robot.json": key})
    with pytest.raises(UserError, match="robot.json:3 looks like a private key"):
        package(tmp_path)


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", "credentials.json", "my-credentials.yaml", "application_default_credentials.json",
     "service-account-prod.json", "client_secret_12.json", "secrets.toml", "id_ed25519", ".netrc", "kaggle.json",
     "a.P12"],
)  # fmt: skip
def test_a_secret_is_found_by_its_name(name: str) -> None:
    finding = find_secret(f"a/{name}", b"")
    assert finding is not None and finding.line == 0
    assert str(finding).startswith(f"a/{name} looks like ")


@pytest.mark.parametrize(
    "name", ["env.py", ".env.example", "credentials.py", "test_credentials.py", "secrets.py", "id_rsa.pub", "token.py"]
)
def test_sources_of_such_names_are_no_secrets(name: str) -> None:
    assert find_secret(f"credentials/{name}", b"password = os.environ['PASSWORD']") is None


def test_others_are_counted_and_one_can_be_allowed(tmp_path: Path) -> None:
    write(tmp_path, {".env": "A=1", "x/id_rsa": "", "c.py": "1"})
    with pytest.raises(UserError, match=r"^\.env looks like a .* secrets \(and 1 more\): nothing was sent"):
        package(tmp_path)
    with pytest.raises(UserError, match=r"^x/id_rsa looks like an SSH key: "):
        package(tmp_path, allowed=[".env"])
    assert package(tmp_path, allowed=[".env", "x/id_rsa"]).files == 3
    with pytest.raises(UserError, match="--allow_file=id_rsa: is no file that would be packaged"):
        package(tmp_path, allowed=["id_rsa"])


def test_this_repository_can_be_packaged() -> None:
    needed = {"setup.py", "cloudbuild.yaml", "launch/images/Dockerfile", "launch/images/cpu.txt", ".dockerignore"}
    assert needed <= set(members(package(ROOT)))
