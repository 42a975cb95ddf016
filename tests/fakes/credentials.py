"""A service account of the fake cloud: its key, and the tokens that it gets for it."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fakes.rest import GoogleError
from fakes.server import Answer, Request

PROJECT = "fake-project"
EMAIL = f"launcher@{PROJECT}.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@functools.cache
def _private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def write_key(folder: Path, address: str) -> Path:
    """Writes a service account's key, and gives its path.

    Args:
      folder: for the file.
      address: of the fake that gives tokens, such as "http://127.0.0.1:1234".
    """
    private_key = _private_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {
        "type": "service_account",
        "project_id": PROJECT,
        "client_email": EMAIL,
        "private_key_id": "1",
        "private_key": private_key.decode(),
        "token_uri": f"{address}/token",
    }
    path = folder / "service-account.json"
    path.write_text(json.dumps(key), encoding="utf-8")
    return path


class Tokens:
    """Those that were given, and what is made of them.

    Attributes:
      are_checked: whether the APIs want one.
      issued: how many there have been.
      lifetime: how long a client may use one, in seconds, as it is told.
    """

    def __init__(self) -> None:
        self.are_checked = False
        self.issued = 0
        self.lifetime = 3600
        self._valid: set[str] = set()
        self._numbers = itertools.count(1)

    def revoke(self) -> None:
        """Ends all tokens that have been given; clients learn it by a 401."""
        self._valid.clear()

    def answer(self, request: Request) -> Answer:
        """Gives a token for a signed assertion of the service account, as oauth2.googleapis.com/token does."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        try:
            claims = self._claims(form)
        except ValueError as error:
            refused = {"error": "invalid_grant", "error_description": str(error)}
            return Answer(400, json.dumps(refused).encode())
        self.issued += 1
        token = f"token-{next(self._numbers)}"
        if SCOPE in claims.get("scope", "").split():
            self._valid.add(token)  # One of another scope is given too, and serves for nothing here.
        given = {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}
        return Answer(200, json.dumps(given).encode())

    def check(self, request: Request) -> None:
        """Refuses a request without a token that holds, where tokens are checked."""
        given = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.are_checked and given not in self._valid:
            message = "Request had invalid authentication credentials. Expected OAuth 2 access token."
            raise GoogleError(401, message)

    def _claims(self, form: dict[str, str]) -> Any:
        from google.auth import jwt

        if form.get("grant_type") != _GRANT:
            raise ValueError(f"grant_type is {form.get('grant_type')}")
        public_key = _private_key().public_key()
        public = public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        claims = jwt.decode(form.get("assertion", ""), certs=public)
        if claims["iss"] != EMAIL:
            raise ValueError(f"{claims['iss']} is not known")
        return claims
