"""Finds what must not leave this machine in a package of sources: keys, tokens, passwords. By name and by content.

It finds what looks like a secret of the kinds below, no others: it is a net below the rope that .gitignore is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAMES = (
    (r"\.env(?!\.(?:example|sample|template)$)(?:\..+)?", "a file of environment secrets"),
    (r"(?:.*[-_.])?credentials?(?:[-_.].*)?\.(?:json|ya?ml|toml|ini|csv|txt)", "a file of credentials"),
    (r"service[-_]?account.*\.json", "a service account's key"),
    (r"client_secret.*\.json", "an OAuth client's secret"),
    (r"secrets?\.(?:json|ya?ml|toml|ini|env)", "a file of secrets"),
    (r"id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?", "an SSH key"),
    (r"\.netrc|_netrc|\.pgpass|\.git-credentials|\.pypirc|\.boto|kaggle\.json", "a file of passwords"),
    (r".*\.(?:p12|pfx|jks|keystore|kdbx)", "a key store"),
)
"""Patterns of whole names of files, in lower case, and what such a file is: the names under which Google's, Git's,
Python's and Kaggle's own tools keep them, and those of SSH and of key stores (their documentation, 2026-11)."""

_CONTENTS = (
    ("private_key", rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----", "a private key"),
    ("refresh_token", rb"\"refresh_token\"\s*:\s*\"[^\"\s]{16,}\"", "a refresh token"),
    ("google_key", rb"\bAIza[0-9A-Za-z_-]{35}\b", "a Google API key"),
    ("google_token", rb"\bya29\.[0-9A-Za-z_-]{20,}", "a Google access token"),
    ("google_secret", rb"\bGOCSPX-[0-9A-Za-z_-]{28}", "an OAuth client's secret"),
    ("aws", rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", "an AWS access key"),
    ("github", rb"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{22})", "a GitHub token"),
    ("gitlab", rb"\bglpat-[0-9A-Za-z_-]{20}", "a GitLab token"),
    ("slack", rb"\bxox[abprs]-[0-9A-Za-z-]{10,}", "a Slack token"),
    ("hugging_face", rb"\bhf_[0-9A-Za-z]{34}\b", "a Hugging Face token"),
    ("pypi", rb"\bpypi-[0-9A-Za-z_-]{50,}", "a PyPI token"),
)
"""A name, a pattern and what it stands for: the forms in which their issuers publish them for scanners (2026-11)."""

_NAME_PATTERNS = tuple((re.compile(pattern), what) for pattern, what in _NAMES)
_CONTENT_PATTERN = re.compile(b"|".join(b"(?P<%s>%s)" % (name.encode(), pattern) for name, pattern, _ in _CONTENTS))
_CONTENT_MEANINGS = {name: what for name, _, what in _CONTENTS}


@dataclass(frozen=True)
class Finding:
    """Something that looks like a secret. What it is about is never part of it.

    Attributes:
      path: of the file, as it was given.
      line: where it stands, from 1; 0 where the file's name alone says it.
      what: in a few words, as in "a private key".
    """

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        """As in "keys/robot.json:5 looks like a private key"."""
        return f"{self.path}{f':{self.line}' if self.line else ''} looks like {self.what}"


def find_secret(path: str, content: bytes) -> Finding | None:
    """The first thing in a file that looks like a secret.

    Args:
      path: of the file, its parts joined by "/".
      content: all of it.
    """
    match = _CONTENT_PATTERN.search(content)
    if match:
        line = content.count(b"\n", 0, match.start()) + 1
        return Finding(path, line, _CONTENT_MEANINGS[match.lastgroup or ""])
    name = path.rsplit("/", 1)[-1].lower()
    for pattern, what in _NAME_PATTERNS:
        if pattern.fullmatch(name):
            return Finding(path, 0, what)
    return None
