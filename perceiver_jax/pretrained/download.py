"""Files by URL, kept in the user's cache directory.

The SHA-256 of a file is recorded beside it when it is first fetched and holds from then on: a
cached copy that changed, or a server that serves something else, is an error.
"""

import hashlib
import os
import pathlib
import tempfile
import urllib.parse

import pooch


def cache_directory() -> pathlib.Path:
    """`$XDG_CACHE_HOME/perceiver_jax`, by default under `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "perceiver_jax"


def fetch(url: str, directory: str | pathlib.Path | None = None) -> pathlib.Path:
    """Returns the local copy of `url`, downloaded if it is not there yet.

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
        _check(pooch.file_hash(path), recorded, path, record)
        return path
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        part = pathlib.Path(temporary) / "part"
        _download(url, part)
        digest = pooch.file_hash(part)
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
        pooch.HTTPDownloader(progressbar=True, timeout=60)(url, path, None)
    except OSError as error:  # what requests raises
        cause = error.args[0] if error.args else None
        incomplete = getattr(cause, "args", ())[1:]
        if incomplete and hasattr(incomplete[0], "partial"):
            done, size = incomplete[0].partial, incomplete[0].partial + incomplete[0].expected
            raise OSError(f"{url} stopped after {done} of {size} bytes: try again") from error
        raise OSError(
            f"cannot fetch {url}: {error}. Without a network, fetch the file elsewhere and give "
            "load() its path"
        ) from error


def _check(digest: str, recorded: str, what, record: pathlib.Path) -> None:
    if digest != recorded:
        raise ValueError(
            f"{what} has SHA-256 {digest}, but {recorded} was recorded when it was first fetched; "
            f"to accept the new content delete {record.with_suffix('')} and {record}"
        )
