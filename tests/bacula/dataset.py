"""What the tests back up, and how they tell that it came back."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MARKER = b"This sentence must never be seen on an encrypted volume."
NAME_MARKER = "a-file-name-that-must-not-be-seen"


def create(data: Path, seed: int = 1) -> None:
    """Write about 60 files of 8 MB together: known text, noise, an empty file, a link."""
    noise = random.Random(seed)
    (data / "deep" / "deeper").mkdir(parents=True)
    for number in range(38):
        line = b"%s (%d)\n" % (MARKER, number)
        (data / f"{NAME_MARKER}-{number}.txt").write_bytes(line * 400)
    for number in range(20):
        (data / "deep" / f"noise-{number}.bin").write_bytes(noise.randbytes(350_000 + number))
    (data / "deep" / "deeper" / "empty").touch()
    (data / "deep" / "deeper" / "private").write_bytes(MARKER)
    (data / "deep" / "deeper" / "private").chmod(0o600)
    (data / "link").symlink_to("deep/noise-0.bin")


def contents(tree: Path) -> dict[str, str]:
    """Return a description of every entry below a directory; equal trees have equal ones."""
    return {str(path.relative_to(tree)): describe(path) for path in sorted(tree.rglob("*"))}


def describe(path: Path) -> str:
    """Return an entry's kind, mode and content."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    mode = f"{path.stat().st_mode:o}"
    if path.is_dir():
        return f"{mode} directory"
    return f"{mode} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def shows(volume: Path) -> bool:
    """Return whether a volume lets the data, or the name of a file in it, be seen."""
    stored = volume.read_bytes()
    return MARKER in stored or NAME_MARKER.encode() in stored


def finds(key: bytes, written: dict[str, bytes]) -> list[str]:
    """Return where a key, or half of it, stands in any form."""
    wanted = forms(key)
    return [place for place, text in written.items() if any(form in text for form in wanted)]


def forms(key: bytes) -> set[bytes]:
    """Return what a volume key, or either half of it, could be written as."""
    half = len(key) // 2
    return {form for part in (key, key[:half], key[half:]) for form in spellings(part)}


def spellings(secret: bytes) -> set[bytes]:
    """Return a secret raw and in the usual encodings, without the parts that vary with context."""
    hexadecimal = secret.hex().encode()
    plain, safe = base64.b64encode(secret), base64.urlsafe_b64encode(secret)
    thirty_two = base64.b32encode(secret)
    listed = ", ".join(str(byte) for byte in secret).encode()
    texts = {plain, safe, thirty_two, thirty_two.lower()}
    # The last characters of a base64 or base32 text depend on what follows the secret.
    cut = {text.rstrip(b"=")[:-1] for text in texts}
    return {secret, repr(secret)[2:-1].encode(), listed, hexadecimal, hexadecimal.upper()} | cut
