"""Published files of weights, downloaded into the cache: checked by size and hash before they get their name."""

import contextlib
import hashlib
import http.client
import importlib
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from engine.errors import InputError, Say, problem
from engine.host.storage import cache_directory, check_regular, replaced
from engine.importers.catalogue import Published
from engine.text import one_line

CONNECT_SECONDS = 5.0  # without an answer, of a connection and of each part that is read
SCHEME = "https://"
MOST_BYTES = 2 * 2**30
PIECE_BYTES = 2**20


def hash_of(path: Path, algorithm: str = "sha256") -> str:
    """`sha256:…` of a file."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def download(published: Published, say: Say, cache: Path | None = None) -> Path:
    """The file in the cache, downloaded if it is not there yet.

    Raises InputError, with the address, the hash and where a file by hand goes, without a network or if it differs.
    """
    place = cache_directory(cache) / "weights" / published.name
    if place.is_file() and _is_published(place, published):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        say(f"downloading {published.url}")
        with _opened(published.url) as answer, replaced(place) as file:
            _copy(answer, file, published, place)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise InputError(_by_hand(published, place, one_line(str(reason))[:100])) from None
    return place


def _is_published(place: Path, published: Published) -> bool:
    """Whether a file is what was published; without a known hash, any that got its name when it was whole."""
    check_regular(place)
    return published.hash is None or hash_of(place, published.algorithm).startswith(published.hash)


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows no address to anything but another https:// one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """As its base, or an error."""
        if not newurl.startswith(SCHEME):
            raise urllib.error.HTTPError(req.full_url, code, f"an address that leads to {newurl[:60]}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(url: str) -> contextlib.closing[Any]:
    if not url.startswith(SCHEME):
        raise ValueError(f"an address that is not {SCHEME}")
    opener = urllib.request.build_opener(_OnlyHttps)
    return contextlib.closing(opener.open(url, timeout=CONNECT_SECONDS))


def _copy(answer: Any, file: IO[bytes], published: Published, place: Path) -> None:
    """Writes what is downloaded; raises InputError, so that nothing is kept, if size or hash differ."""
    told = answer.headers.get("Content-Length")
    most = int(told) if told is not None and told.isdigit() else None
    if most is not None and most > MOST_BYTES:
        raise ValueError(f"{most:,} bytes, of at most {MOST_BYTES:,}")
    digest, size = hashlib.new(published.algorithm, usedforsecurity=False), 0
    while piece := answer.read(PIECE_BYTES):
        size += len(piece)
        if size > (MOST_BYTES if most is None else most):
            raise ValueError("more bytes than it said")
        digest.update(piece)
        file.write(piece)
    if most is not None and size != most:
        raise ValueError(f"{size:,} of {most:,} bytes")
    found = f"{published.algorithm}:{digest.hexdigest()}"
    if published.hash is not None and not found.startswith(published.hash):
        raise InputError(_by_hand(published, place, f"a file whose hash is {found}"))


def _by_hand(published: Published, place: Path, reason: str) -> str:
    known = f"its hash starts with {published.hash}" if published.hash else "no hash of it is published"
    remedy = f"Get it on another machine ({known}), put it at {place}, and repeat; or give --weights FILE."
    return problem(published.url, reason, "the file", remedy)


def from_hub(repository: str, cache: Path | None = None) -> Path:
    """The weights of a repository on huggingface.co, `OWNER/NAME`, and its config.json beside them.

    Raises InputError if huggingface_hub is not installed or the repository has no such files.
    """
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        not_there: Any = importlib.import_module("huggingface_hub.errors").EntryNotFoundError  # not loaded by the first
    except ModuleNotFoundError:
        remedy = "Install it: pip install huggingface_hub (the extra `hub`)."
        raise InputError(
            problem("weights", f"hf:{repository} without huggingface_hub", "it installed", remedy)
        ) from None
    where = {"repo_id": repository, "cache_dir": cache_directory(cache) / "hub", "etag_timeout": CONNECT_SECONDS}
    try:
        with contextlib.suppress(not_there):
            hub.hf_hub_download(filename="config.json", **where)
        for name in ("model.safetensors", "pytorch_model.bin"):
            with contextlib.suppress(not_there):
                return Path(hub.hf_hub_download(filename=name, **where))
    except Exception as error:  # the library raises exceptions of its own and of what it is built on
        reason = one_line((str(error).splitlines() or [type(error).__name__])[0])[:150]
        remedy = f"Get model.safetensors and config.json of https://huggingface.co/{repository} on another machine."
        raise InputError(
            problem(f"hf:{repository}", reason, "its files", f"{remedy} Then give --weights FILE.")
        ) from None
    raise InputError(problem(f"hf:{repository}", "no model.safetensors", "one", "Check its name, or give a file."))
