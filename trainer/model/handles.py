"""Hub handles: from what a user gives, as after `--backbone=`, to a folder that holds a complete SavedModel.

A folder, local or gs://, is taken as it is and never changed. A handle on the web is downloaded once, as an archive,
and its unpacked copy kept where tensorflow_hub would keep it, under its lock (`TFHUB_CACHE_DIR`, by default a folder
among the temporary files, which is why copies get deleted by halves). tensorflow_hub is imported for those alone: it
brings tf_keras along. Wherever a module comes from, it is refused if its graph does more than a module needs.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from contextlib import closing
from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from trainer.errors import UserError
from trainer.model.archives import ArchiveError, unpack
from trainer.model.graph_ops import refused_operation

_TFHUB = "https://tfhub.dev/"
_GOOGLE_CN = "https://hub.tensorflow.google.cn"
_GOOGLE_CN_ARCHIVE = "https://gcs.tensorflow.google.cn/tfhub-modules/{}.tar.gz"
"""Where that mirror has its archives, as tensorflow_hub 0.16.1 knows."""

_SILENCE_TIMEOUT = 60.0
"""Seconds after which a server that sends nothing is given up."""

_SAVED_MODEL, _SAVED_MODEL_TEXT = "saved_model.pb", "saved_model.pbtxt"
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_TF1_VARIABLE_OPS = frozenset({"VarHandleOp", "Variable", "VariableV2"})

_FETCH_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    http.client.HTTPException,
    tarfile.TarError,
    tf.errors.OpError,
)
"""What is raised when a download goes wrong: by urllib, tarfile, gzip, and the file system of the cache."""


class _IncompleteError(Exception):
    """What keeps a folder from being a complete SavedModel, as the end of a sentence."""


def resolve(handle: str, *, mirror: str = "", repair: bool = False, argument: str = "--backbone=") -> str:
    """The folder of the SavedModel that a handle stands for, downloaded if need be.

    Args:
      handle: a local folder ("~" is expanded), a gs:// folder or archive, or an http(s):// address.
      mirror: host, such as "https://hub.tensorflow.google.cn", that https://tfhub.dev/ handles are fetched from.
      repair: if a cached copy is incomplete or damaged, delete it and download it again. It also makes the check
        thorough: every variable is read and its checksum compared.
      argument: what stands before the handle on the command line, for errors; "" where nothing does.

    Returns:
      A local or gs:// path without a trailing slash. It holds all files of the SavedModel.

    Raises:
      UserError: there is no such folder, it is no SavedModel, some of its files are missing or empty, the download
        failed, or its graph has an operation that a module must not have (`refused_operation`). A folder that is not
        a cached copy is never deleted.
    """
    named = f"{argument}{handle}"
    if handle.startswith(("http://", "https://")) or (handle.startswith("gs://") and handle.endswith(_ARCHIVES)):
        folder, saved_model = _resolve_remote(named, _address(handle, mirror), repair)
    else:
        folder, saved_model = _resolve_folder(handle, named, repair)
    refused = refused_operation(saved_model)
    if refused:
        raise UserError(
            f"{named} is refused: its graph has {refused}, and a module needs no files, no Python and no "
            "network. Take another module."
        )
    return folder


def _resolve_folder(handle: str, named: str, repair: bool) -> tuple[str, saved_model_pb2.SavedModel]:
    """The folder, and what is in its main file."""
    path = (handle if "://" in handle else os.path.expanduser(handle)).rstrip("/") or "/"
    try:
        _check_is_folder(named, path)
        return path, _complete_saved_model(path, thorough=repair)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{named}: {path} cannot be read ({_reason(error)}).") from error
    except _IncompleteError as damage:
        raise UserError(
            f"{named}: {path} is no complete SavedModel: {damage}.{saved_model_inside_hint(path)}"
        ) from None


def saved_model_inside_hint(path: str) -> str:
    """A sentence, with a space in front, that names the folders just inside `path` which hold a SavedModel; or ""."""
    try:
        inside = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))
    except (OSError, tf.errors.OpError):
        return ""
    found = [f"{path}/{name}" for name in inside if tf.io.gfile.exists(f"{path}/{name}/saved_model.pb")]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def _address(handle: str, mirror: str) -> str:
    """The address to fetch, in the one spelling that tensorflow_hub's cache knows it by.

    tensorflow_hub adds `tf-hub-format=compressed` itself; left in the handle it would make a second cached copy, and
    an address that the Chinese mirror does not have.
    """
    if mirror and handle.startswith(_TFHUB):
        handle = mirror.rstrip("/") + "/" + handle.removeprefix(_TFHUB)
    parts = urllib.parse.urlsplit(handle)
    query = [pair for pair in urllib.parse.parse_qsl(parts.query) if pair[0] != "tf-hub-format"]
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


def _resolve_remote(named: str, address: str, repair: bool) -> tuple[str, saved_model_pb2.SavedModel]:
    """The folder of the cached copy, and what is in its main file."""
    folder = _fetch(named, address)
    try:
        return folder, _complete_saved_model(folder, thorough=repair)
    except _IncompleteError as damage:
        if not repair:
            raise UserError(
                f"{named}: the cached copy in {folder} is incomplete: {damage}. "
                "--repair_hub_cache deletes it and fetches it again."
            ) from None
    _delete_cached(named, folder)
    folder = _fetch(named, address)
    try:
        return folder, _complete_saved_model(folder, thorough=True)
    except _IncompleteError as damage:
        raise UserError(f"{named}: what {address} serves is no complete SavedModel: {damage}.") from None


def _fetch(named: str, address: str) -> str:
    """The folder of the cache, filled by a download unless it holds something already."""
    try:
        from tensorflow_hub import resolver
    except ImportError as error:
        raise UserError(
            f"{named}: tensorflow_hub cannot be imported ({_reason(error)}). Run pip install "
            "tensorflow-hub tf_keras 'setuptools<81', or download the module and give its folder."
        ) from error
    try:
        folder = resolver.create_local_module_dir(resolver.tfhub_cache_dir(use_temp=True), _cached_name(address))
        return str(resolver.atomic_download(address, _download, folder))
    except ArchiveError as error:
        raise UserError(
            f"{named}: the archive that {address} serves {error}. It is not unpacked: take another module."
        ) from error
    except _FETCH_ERRORS as error:
        if _is_about_the_disk(error):
            raise UserError(
                f"{named}: the download cannot be stored ({_reason(error)}). The environment variable "
                "TFHUB_CACHE_DIR names another folder for it."
            ) from error
        mirror = f"try --hub_mirror={_GOOGLE_CN}, or " if address.startswith(_TFHUB) else ""
        raise UserError(
            f"{named}: {address} cannot be fetched ({_reason(error)}). Check the address and the "
            f"network, {mirror}download the module elsewhere and give its folder."
        ) from error


def _download(address: str, folder: str) -> None:
    """Fetches an archive and unpacks it into an empty folder."""
    with closing(_opened(address)) as archive:
        unpack(archive, folder)


def _opened(address: str) -> Any:
    """The bytes of an archive, to be read and closed."""
    if address.startswith("gs://"):
        return tf.io.gfile.GFile(address, "rb")
    if address.startswith(f"{_GOOGLE_CN}/"):
        address = _GOOGLE_CN_ARCHIVE.format(address.removeprefix(f"{_GOOGLE_CN}/"))
    else:
        parts = urllib.parse.urlsplit(address)
        query = [*urllib.parse.parse_qsl(parts.query), ("tf-hub-format", "compressed")]
        address = urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))
    # Not urlopen: that keeps the proxy that there was when it was called first.
    return urllib.request.build_opener().open(address, timeout=_SILENCE_TIMEOUT)


def _cached_name(address: str) -> str:
    """What tensorflow_hub's cache calls the copy of an address."""
    return hashlib.sha1(address.encode("utf8")).hexdigest()


def _delete_cached(named: str, folder: str) -> None:
    """Deletes a cached copy and the note beside it, and nothing else."""
    if os.path.islink(folder):
        raise UserError(
            f"{named}: {folder} is incomplete, and it is a link to something that nobody downloaded, so "
            "it is not deleted. Delete it yourself and start again."
        )
    tf.io.gfile.rmtree(folder)
    note = f"{folder}.descriptor.txt"
    if tf.io.gfile.exists(note):
        tf.io.gfile.remove(note)


def _check_is_folder(named: str, path: str) -> None:
    if tf.io.gfile.isdir(path):
        return
    if not tf.io.gfile.exists(path):
        built_in = "convnet, " if named.startswith("--backbone=") else ""
        raise UserError(
            f"{named}: there is no folder {path}. Give {built_in}a folder, gs://…, or a handle that "
            "begins with https://."
        )
    what = "an archive: unpack it and give the folder" if path.endswith(_ARCHIVES) else "a file: give its folder"
    raise UserError(f"{named} is {what}.")


def _complete_saved_model(folder: str, *, thorough: bool) -> saved_model_pb2.SavedModel:
    """What TensorFlow will load from a folder, all of whose files are there.

    Args:
      folder: local or gs://.
      thorough: also read all variables, which compares their checksums.

    Raises:
      _IncompleteError: something is missing, empty or damaged.
    """
    saved_model = _read_saved_model(folder)
    for meta_graph in saved_model.meta_graphs:
        for asset in meta_graph.asset_file_def:
            if not tf.io.gfile.exists(f"{folder}/assets/{asset.filename}"):
                raise _IncompleteError(f"assets/{asset.filename} is missing")
    if tf.io.gfile.isdir(f"{folder}/variables"):
        _check_variables(folder, thorough)
    elif _has_variables(saved_model):
        raise _IncompleteError("the folder variables is missing")
    return saved_model


def _read_saved_model(folder: str) -> saved_model_pb2.SavedModel:
    """Reads a SavedModel's main file as TensorFlow's loader does."""
    name = next((name for name in (_SAVED_MODEL, _SAVED_MODEL_TEXT) if _has_content(f"{folder}/{name}")), None)
    if name is None:
        raise _IncompleteError(f"{_SAVED_MODEL} is missing or empty")
    with tf.io.gfile.GFile(f"{folder}/{name}", "rb") as file:
        content: bytes = file.read()
    try:
        if name == _SAVED_MODEL:
            return saved_model_pb2.SavedModel.FromString(content)
        return text_format.Parse(content.decode(), saved_model_pb2.SavedModel())
    except (DecodeError, text_format.ParseError, UnicodeDecodeError, RecursionError):
        raise _IncompleteError(f"{name} is damaged") from None


def _check_variables(folder: str, thorough: bool) -> None:
    if not _has_content(f"{folder}/variables/variables.index"):
        raise _IncompleteError("variables/variables.index is missing or empty")
    names = [name for name in tf.io.gfile.listdir(f"{folder}/variables") if name.startswith("variables.data-")]
    counts = {int(match[1]) for name in names if (match := re.fullmatch(r"variables\.data-\d{5}-of-(\d{5})", name))}
    if not counts:
        raise _IncompleteError("variables/variables.data-00000-of-00001 is missing")
    count = max(counts)
    for shard in range(count):
        name = f"variables/variables.data-{shard:05}-of-{count:05}"
        if not _has_content(f"{folder}/{name}"):
            raise _IncompleteError(f"{name} is missing or empty")
    if thorough:
        try:
            reader = tf.train.load_checkpoint(f"{folder}/variables/variables")
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
            raise _IncompleteError(f"its variables are damaged ({_reason(error)})") from None


def _has_variables(saved_model: saved_model_pb2.SavedModel) -> bool:
    return any(
        any(node.HasField("variable") for node in meta_graph.object_graph_def.nodes)
        or any(node.op in _TF1_VARIABLE_OPS for node in meta_graph.graph_def.node)
        for meta_graph in saved_model.meta_graphs
    )


def _has_content(path: str) -> bool:
    return tf.io.gfile.exists(path) and tf.io.gfile.stat(path).length > 0


def _is_about_the_disk(error: BaseException) -> bool:
    if isinstance(error, (tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError)):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def _reason(error: BaseException) -> str:
    """The first line of an error, without the noise around it."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, tf.errors.OpError):
        return error.message.strip().splitlines()[0] if error.message else type(error).__name__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
