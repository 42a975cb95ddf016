"""Broken and hostile configurations, by what is to become of them."""

from __future__ import annotations

from mutations import cuts, flips, named

from trainer.config import Config

WHOLE = Config(data="folder:/photos", epochs=3, augment=("flip",)).to_json().encode()

REFUSED: dict[str, bytes] = {
    "empty": b"",
    "spaces": b" \n\t ",
    "null": b"null",
    "a number": b"3",
    "a text": b'"epochs"',
    "an array": b'["epochs", 3]',
    "array bomb": b"[" * 200_000,
    "object bomb": b'{"a":' * 200_000,
    "balanced bomb": b'{"epochs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "Latin-1": '{"data": "folder:/f\xfcr"}'.encode("latin-1"),
    "NUL bytes": bytes(100),
    "trailing comma": b'{"epochs": 3,}',
    "single quotes": b"{'epochs': 3}",
    "comment": b'{"epochs": 3} // three',
    "two objects": b'{"epochs": 3}{"epochs": 4}',
    "YAML": b"epochs: 3\n",
    "same field twice": b'{"epochs": 3, "epochs": 4}',
    "same field twice, one escaped": b'{"epochs": 3, "epoch\\u0073": 4}',
    "unknown field": b'{"epoch": 3}',
    "field of Python": b'{"__class__": "Config"}',
    "field with control codes": b'{"\\u001b[31mepochs": 3}',
    "field that is no text": b"{3: 4}",
    "lone surrogate": b'{"data": "folder:/\\ud800"}',
    "NUL in a path": b'{"run_dir": "a\\u0000b"}',
    "epochs NaN": b'{"epochs": NaN}',
    "epochs infinite": b'{"epochs": Infinity}',
    "epochs a fraction": b'{"epochs": 2.5}',
    "epochs of 5000 digits": b'{"epochs": ' + b"9" * 5000 + b"}",
    "epochs of 400 digits": b'{"epochs": ' + b"9" * 400 + b"}",
    "epochs negative": b'{"epochs": -1}',
    "epochs an object": b'{"epochs": {"a": 1}}',
    "epochs an array": b'{"epochs": [3]}',
    "epochs null": b'{"epochs": null}',
    "rate NaN": b'{"learning_rate": NaN}',
    "rate infinite": b'{"learning_rate": Infinity}',
    "rate 1e999": b'{"learning_rate": 1e999}',
    "rate negative": b'{"learning_rate": -1e-3}',
    "rate a text": b'{"learning_rate": "fast"}',
    "dropout NaN": b'{"dropout": NaN}',
    "mixup NaN": b'{"mixup": NaN}',
    "warmup NaN": b'{"warmup": NaN}',
    "warmup infinite": b'{"warmup": Infinity}',
    "clip infinite": b'{"clip_norm": Infinity}',
    "clip NaN": b'{"clip_norm": NaN}',
    "decay epochs NaN": b'{"schedule": "step", "decay_epochs": [NaN]}',
    "decay epochs infinite": b'{"schedule": "step", "decay_epochs": [Infinity]}',
    "splits of two": b'{"splits": [50, 50]}',
    "splits nested": b'{"splits": [[50], [25], [25]]}',
    "splits negative": b'{"splits": [200, -50, -50]}',
    "classes a number": b'{"classes": 3}',
    "classes of numbers": b'{"classes": [1, 2]}',
    "data a folder": b'{"data": ["folder:/a"]}',
    "data with a word": b'{"data": "../../etc/passwd"}',
    "data on the web": b'{"data": "https://example.org/photos"}',
    "seed too large": b'{"seed": 4294967296}',
    "pixels 0": b'{"max_image_pixels": 0}',
    "pixels endless": b'{"max_image_pixels": 1e30}',
    "pattern open": b'{"freeze": "(["}',
    "strategy of Python": b'{"strategy": "__import__(\'os\')"}',
    "mirror a file": b'{"hub_mirror": "file:///etc"}',
    **named("config.json", cuts(WHOLE.rstrip(b"\n"), 12)),
}
"""Refused with a sentence that names the file."""

CHANGED: dict[str, bytes] = named("config.json", flips(WHOLE, 24))
"""Refused, or a configuration that says what the text now says."""

COUNT = len(REFUSED) + len(CHANGED)
