"""What Cloud Storage answers to a request: the parts of its JSON and XML APIs that a run needs.

Behaviour as documented at cloud.google.com/storage/docs and as TensorFlow 2.21 and google-cloud-storage 3 use it,
2026-11. Nothing here knows of connections or faults (`fakes.gcs`).
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, unquote

from fakes.gcs_objects import GeneratedObjects, StoredObjects, encoded_crc32c, page
from fakes.server import Answer, Request

NO_BUCKET = "The specified bucket does not exist."

LOCATION = "US-CENTRAL1"
"""Where buckets are unless they are said to be elsewhere."""


class RefusalError(Exception):
    """The server will not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def answer(self) -> Answer:
        """As the server words it."""
        return Answer(self.status, _json({"error": {"code": self.status, "message": str(self)}}).body)


@dataclass
class Upload:
    """A resumable upload that is under way, or done.

    Attributes:
      bucket, name: what is written.
      query: of the request that began it, with its preconditions.
      received: the bytes so far.
      done: what was answered at its end.
    """

    bucket: str
    name: str
    query: dict[str, str]
    received: bytes = b""
    done: Answer | None = None


class Api:
    """The service.

    Attributes:
      buckets: their objects by the bucket's name.
      locations: of buckets that are not in `LOCATION`, in capitals, by the bucket's name.
      denied: permissions that the caller does not have, such as "storage.objects.create", as far as he asks for them.
      uploads: resumable uploads by their id.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, StoredObjects | GeneratedObjects] = {}
        self.locations: dict[str, str] = {}
        self.denied: set[str] = set()
        self.uploads: dict[str, Upload] = {}

    def bucket(self, name: str) -> StoredObjects:
        """The objects of a bucket, which is made if need be."""
        return cast(StoredObjects, self.buckets.setdefault(name, StoredObjects()))

    def refusal(self, status: int, request: Request) -> Answer:
        """What is answered where a fault of that status happens, instead of carrying the request out."""
        if status == 410:
            self.uploads.pop(request.query.get("upload_id", ""), None)
        messages = {
            403: f"you@example.com does not have {_permission(request)} access to the Google Cloud Storage object.",
            404: NO_BUCKET,
        }
        return RefusalError(status, messages.get(status, "injected")).answer()

    def answer(self, request: Request) -> Answer:
        """Carries a request out."""
        routes = (
            (r"/upload/storage/v1/b/([^/]+)/o", self._upload),
            (r"/storage/v1/b/([^/]+)/o/([^/]+)/(?:copyTo|rewriteTo)/b/([^/]+)/o/([^/]+)", self._copy),
            (r"/storage/v1/b/([^/]+)/storageLayout", self._layout),
            (r"/storage/v1/b/([^/]+)/iam/testPermissions", self._test_permissions),
            (r"/storage/v1/b/([^/]+)/o", self._list),
            (r"/storage/v1/b/([^/]+)", self._describe_bucket),
            (r"/storage/v1/b/([^/]+)/o/([^/]+)", self._object),
            (r"/download/storage/v1/b/([^/]+)/o/([^/]+)", self._content),
            (r"/([^/]+)/(.+)", self._content),  # The XML API, which TensorFlow reads content with.
        )
        try:
            for pattern, carry_out in routes:
                match = re.fullmatch(pattern, request.path)
                if match:
                    return carry_out(request, *(unquote(part) for part in match.groups()))
            raise RefusalError(404, f"The fake has no {request.method} {request.path}")
        except RefusalError as refusal:
            return refusal.answer()

    def _objects(self, bucket: str) -> StoredObjects | GeneratedObjects:
        if bucket not in self.buckets:
            raise RefusalError(404, NO_BUCKET)
        return self.buckets[bucket]

    def _writable(self, bucket: str) -> StoredObjects:
        objects = self._objects(bucket)
        if not isinstance(objects, StoredObjects):
            raise RefusalError(403, f"gs://{bucket} is for reading")
        return objects

    def _list(self, request: Request, bucket: str) -> Answer:
        return _json(page(self._objects(bucket), request.query))

    def _describe_bucket(self, _: Request, bucket: str) -> Answer:
        self._objects(bucket)
        facts = {"kind": "storage#bucket", "id": bucket, "name": bucket, "metageneration": "1"}
        location = self.locations.get(bucket, LOCATION)
        kind = "multi-region" if location in ("US", "EU", "ASIA") else "region"
        return _json({**facts, "location": location, "locationType": kind, "storageClass": "STANDARD"})

    def _test_permissions(self, request: Request, bucket: str) -> Answer:
        """Tells which of the permissions that are asked for the caller has."""
        self._objects(bucket)
        asked = request.queries.get("permissions", [])
        if not asked or not all(re.fullmatch(r"storage\.\w+\.\w+", permission) for permission in asked):
            raise RefusalError(400, "Invalid argument.")
        granted = [permission for permission in asked if permission not in self.denied]
        return _json({"kind": "storage#testIamPermissionsResponse", **({"permissions": granted} if granted else {})})

    def _layout(self, _: Request, bucket: str) -> Answer:
        """TensorFlow asks before it renames a folder."""
        self._objects(bucket)
        return _json({"kind": "storage#storageLayout", "hierarchicalNamespace": {"enabled": False}})

    def _object(self, request: Request, bucket: str, name: str) -> Answer:
        if request.query.get("alt") == "media":
            return self._content(request, bucket, name)
        objects = self._objects(bucket)
        if objects.content(name, request.query.get("generation")) is None:
            raise RefusalError(404, f"No such object: {bucket}/{name}")
        _check_preconditions(objects, name, request)
        if request.method == "DELETE":
            self._writable(bucket).delete(name)
            return Answer(204)
        return _json(objects.item(name))

    def _content(self, request: Request, bucket: str, name: str) -> Answer:
        objects = self._objects(bucket)
        content = objects.content(name, request.query.get("generation"))
        if content is None:
            raise RefusalError(404, f"No such object: {bucket}/{name}")
        _check_preconditions(objects, name, request)
        facts = objects.item(name)
        headers = {"X-Goog-Generation": facts["generation"], "X-Goog-Hash": f"crc32c={facts['crc32c']}"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
        if span is None:
            return Answer(200, content, headers, is_content=True)
        start, end = int(span[1]), int(span[2] or len(content)) + 1
        if start >= len(content):
            return Answer(416)
        part = content[start:end]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        return Answer(206, part, headers, is_content=True)

    def _copy(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Answer:
        content = self._objects(bucket).content(name)
        if content is None:
            raise RefusalError(404, f"No such object: {bucket}/{name}")
        written = self._put(to_bucket, to_name, content, request)
        if "/copyTo/" in request.path:
            return written
        size = str(len(content))
        facts = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
        return _json({**facts, "resource": json.loads(written.body)})

    def _upload(self, request: Request, bucket: str) -> Answer:
        kind = request.query.get("uploadType", "resumable")
        if kind == "media":
            return self._put(bucket, request.query["name"], request.body, request)
        if kind == "multipart":
            facts, content = _parts(request)
            if "crc32c" in facts and facts["crc32c"] != encoded_crc32c(content):
                raise RefusalError(400, f"The checksum of {facts['name']} is another")
            return self._put(bucket, facts.get("name") or request.query["name"], content, request)
        if request.method == "POST":
            return self._begin_upload(request, bucket)
        return self._continue_upload(request)

    def _begin_upload(self, request: Request, bucket: str) -> Answer:
        name = request.query.get("name") or json.loads(request.body)["name"]
        _check_preconditions(self._writable(bucket), name, request)
        number = secrets.token_hex(8)
        self.uploads[number] = Upload(bucket, name, request.query)
        target = f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={number}"
        return Answer(200, headers={"Location": request.origin + target, "X-GUploader-UploadID": number})

    def _continue_upload(self, request: Request) -> Answer:
        """Takes the next part of a resumable upload, or tells how much has come (`Content-Range: bytes */SIZE`)."""
        upload = self.uploads.get(request.query["upload_id"])
        if upload is None:
            raise RefusalError(404, "No such upload")
        if upload.done:
            return upload.done
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("Content-Range") or "bytes 0-0/*")
        if span is None:
            raise RefusalError(400, f"Content-Range: {request.headers['Content-Range']}")
        if span[1]:
            if int(span[1]) > len(upload.received):
                raise RefusalError(400, f"{len(upload.received)} bytes have come, and this begins at {span[1]}")
            upload.received = upload.received[: int(span[1])] + request.body
        whole = "Content-Range" not in request.headers or span[2] == str(len(upload.received))
        if not whole:
            last = len(upload.received) - 1
            return Answer(308, headers={"Range": f"bytes=0-{last}"} if last >= 0 else {})
        upload.done = self._put(upload.bucket, upload.name, upload.received, request, upload.query)
        return upload.done

    def _put(
        self, bucket: str, name: str, content: bytes, request: Request, query: dict[str, str] | None = None
    ) -> Answer:
        objects = self._writable(bucket)
        _check_preconditions(objects, name, request, query)
        objects.put(name, content)
        return _json({"bucket": bucket, **objects.item(name)})


def _check_preconditions(
    objects: StoredObjects | GeneratedObjects, name: str, request: Request, query: dict[str, str] | None = None
) -> None:
    """Refuses where an object is another than the client thinks.

    Args:
      objects: of the bucket.
      name: of the object, which need not be there: its generation is 0 then.
      request: what is to be done.
      query: with the preconditions, where it is not the request's own.
    """
    query = request.query if query is None else query
    generation = objects.item(name)["generation"] if objects.content(name) is not None else "0"
    wanted = query.get("ifGenerationMatch") or request.headers.get("x-goog-if-generation-match")
    if wanted and wanted != generation:
        raise RefusalError(412, "At least one of the pre-conditions you specified did not hold.")
    if query.get("ifGenerationNotMatch") == generation:
        raise RefusalError(304, "Not modified")


def _permission(request: Request) -> str:
    """What a request needs."""
    if request.method == "DELETE":
        return "storage.objects.delete"
    if request.method in ("POST", "PUT"):
        return "storage.objects.create"
    return "storage.objects.list" if request.path.endswith("/o") else "storage.objects.get"


def _parts(request: Request) -> tuple[dict[str, Any], bytes]:
    """The two parts of a multipart upload: facts and content."""
    boundary = re.search(r"""boundary=["']?([^"';]+)""", request.headers["Content-Type"])
    assert boundary is not None
    _, facts, content, _ = request.body.split(b"--" + boundary[1].encode())
    end = b"\r\n" if facts.startswith(b"\r\n") else b"\n"  # gcloud's lines end as Unix's do, and Google takes them.
    return json.loads(facts.split(end * 2, 1)[1]), content.split(end * 2, 1)[1].removesuffix(end)


def _json(value: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps(value).encode())
