"""Lists class folders in a bucket, page by page, several folders at once: names, sizes, generations and checksums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from trainer.data.listing import Entry, ListedFolder, ListingProgress, sort_out
from trainer.errors import UserError
from trainer.storage_bucket import Bucket, split_address

_FOLDERS_AT_ONCE = 8
"""A page takes the server longer than it takes us."""


class BucketLister:
    """Lists the class folders of one root."""

    def __init__(self, root: str, report: Callable[[str], None], bucket: Bucket | None = None) -> None:
        """Opens the bucket.

        Args:
          root: gs://BUCKET or gs://BUCKET/FOLDER, without a slash at its end.
          report: called with sentences on progress.
          bucket: an open one; by default with this user's credentials.

        Raises:
          UserError: the credentials cannot be used.
        """
        name, folder = split_address(root)
        self._root = root
        self._prefix = f"{folder}/" if folder else ""
        self._bucket = bucket or Bucket(name, "--data")
        self._progress = ListingProgress(root, report)

    def entries(self) -> Iterator[Entry]:
        """What lies directly in the root.

        Raises:
          UserError: nothing does, or it cannot be listed.
        """
        found = False
        for entry in self._entries(self._prefix):
            found = True
            yield entry
        if not found:
            raise UserError(f"There is no folder {self._root}: give an existing one as --data=folder:PATH.")

    def list(self, folders: Sequence[str]) -> list[ListedFolder]:
        """The content of each of these class folders.

        Raises:
          UserError: one cannot be listed.
        """

        def content(folder: str) -> ListedFolder:
            return sort_out(self._progress.counted(self._entries(f"{self._prefix}{folder}/")))

        with ThreadPoolExecutor(_FOLDERS_AT_ONCE, thread_name_prefix="listing") as threads:
            return list(threads.map(content, folders))

    def _entries(self, prefix: str) -> Iterator[Entry]:
        for page in self._bucket.pages(prefix):
            for folder in page.folders:
                yield Entry(folder[len(prefix) : -1], True)
            for listed in page.objects:
                name = listed.name[len(prefix) :]
                if name:  # An object of the folder's own name stands for the folder.
                    yield Entry(name, False, listed.size, listed.generation, listed.crc32c)
