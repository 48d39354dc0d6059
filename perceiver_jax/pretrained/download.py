"""Files by URL, kept in the user's cache directory.

The SHA-256 of a file is recorded beside it when it is first fetched and holds from then on: a
cached copy that changed, or a server that serves something else, is an error.
"""

import hashlib
import os
import pathlib
import tempfile
import urllib.parse
import urllib.request

_CHUNK = 1 << 20


def cache_directory() -> pathlib.Path:
    """`$XDG_CACHE_HOME/perceiver_jax`, by default under `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "perceiver_jax"


def fetch(url: str, directory: str | pathlib.Path | None = None) -> pathlib.Path:
    """The local copy of `url`, downloaded if it is not there yet.

    A download appears under its name only when it is complete.

    Raises:
      ValueError: the file is not the one that was recorded.
      OSError: the download failed or stopped early.
    """
    directory = pathlib.Path(directory) if directory else cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    parts = urllib.parse.urlsplit(url)
    where = hashlib.sha256(url.encode()).hexdigest()[:8]  # equal file names on different servers
    path = directory / f"{where}-{pathlib.PurePosixPath(parts.path).name}"
    record = path.with_name(path.name + ".sha256")
    recorded = record.read_text().strip() if record.exists() else None
    if path.exists() and recorded:
        _check(_digest(path), recorded, path, record)
        return path
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        part = pathlib.Path(temporary) / "part"
        _download(url, part)
        digest = _digest(part)
        if recorded:
            _check(digest, recorded, url, record)
        else:
            new = pathlib.Path(temporary) / "sha256"
            new.write_text(digest + "\n")
            os.replace(new, record)
        os.replace(part, path)
    return path


def _download(url: str, path: pathlib.Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=60) as response, open(path, "wb") as file:
            expected = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK):
                file.write(chunk)
    except OSError as error:
        raise OSError(
            f"cannot fetch {url}: {error}. Where there is no network, fetch the file elsewhere and "
            "give load() its path"
        ) from error
    if expected is not None and path.stat().st_size != int(expected):
        raise OSError(f"{url} stopped after {path.stat().st_size} of {expected} bytes: try again")


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(digest: str, recorded: str, what, record: pathlib.Path) -> None:
    if digest != recorded:
        raise ValueError(
            f"{what} has SHA-256 {digest}, but {recorded} was recorded when it was first fetched; "
            f"to accept the new content delete {record.with_suffix('')} and {record}"
        )
