"""Downloads: whole, of the published hash, renamed only then; without a network an error that says what to do."""

import contextlib
import hashlib
import io
import socket
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import Request

import pytest

from engine.errors import InputError
from engine.importers import download as module
from engine.importers.catalogue import Published
from engine.importers.download import download, from_hub, hash_of
from tests.importers import served
from tests.importers.served import Server, serving

CONTENT = b"weights" * 1000
MD5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
SHORT = f"sha256:{hashlib.sha256(CONTENT).hexdigest()[:8]}"
URL = "https://example.org/models/some.h5"


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes, length: int | None = None) -> list[str]:
    asked: list[str] = []

    def opened(url: str):
        asked.append(url)
        answer = io.BytesIO(content)
        told = len(content) if length is None else length
        return contextlib.nullcontext(SimpleNamespace(read=answer.read, headers={"Content-Length": str(told)}))

    monkeypatch.setattr(module, "_opened", opened)
    return asked


@pytest.mark.parametrize("known", [MD5, SHORT, None])
def test_a_file_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str | None):
    asked = serve(monkeypatch, CONTENT)
    place = download(Published(URL, known), lambda text: None, tmp_path)
    assert place == tmp_path / "weights" / "some.h5"
    assert place.read_bytes() == CONTENT
    assert download(Published(URL, known), lambda text: None, tmp_path) == place
    assert asked == [URL]
    assert hash_of(place, "md5") == MD5


@pytest.mark.parametrize(
    ("content", "length", "message"),
    [
        (CONTENT + b"!", None, "a file whose hash is md5:"),
        (CONTENT[:-1], len(CONTENT), r"6,999 of 7,000 bytes"),
        (CONTENT, 10, "more bytes than it said"),
        (CONTENT, 2**40, "at most 2,147,483,648"),
    ],
)
def test_what_differs_is_not_kept(tmp_path: Path, monkeypatch, content: bytes, length: int | None, message: str):
    serve(monkeypatch, content, length)
    with pytest.raises(InputError, match=message):
        download(Published(URL, MD5), lambda text: None, tmp_path)
    assert not list((tmp_path / "weights").iterdir())


def test_a_changed_file_in_the_cache_is_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "some.h5").write_bytes(b"old")
    serve(monkeypatch, CONTENT)
    assert download(Published(URL, MD5), lambda text: None, tmp_path).read_bytes() == CONTENT


def test_without_a_network_it_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(url: str):
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(module, "_opened", fail)
    with pytest.raises(InputError) as caught:
        download(Published(URL, MD5), lambda text: None, tmp_path)
    text = str(caught.value)
    for part in (URL, MD5, str(tmp_path / "weights" / "some.h5"), "Name or service not known", "--weights FILE"):
        assert part in text
    assert "Errno" not in text


@pytest.mark.parametrize("url", ["http://example.org/some.h5", "file:///etc/passwd", "ftp://example.org/some.h5"])
def test_only_https_is_followed(tmp_path: Path, url: str):
    with pytest.raises(InputError, match="not https"):
        download(Published(url), lambda text: None, tmp_path)
    handler = module._OnlyHttps()
    with pytest.raises(URLError, match="leads to"):
        handler.redirect_request(Request("https://example.org/some.h5"), None, 302, "", None, url)


def test_the_hub_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(module.importlib, "import_module", missing)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        from_hub("timm/some", tmp_path)


def test_the_hub_gives_weights_and_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class NotThere(Exception):
        pass

    def hf_hub_download(repo_id: str, filename: str, cache_dir: Path, etag_timeout: float) -> str:
        if filename == "model.safetensors" and repo_id.endswith("old"):
            raise NotThere
        if repo_id.endswith("nobody"):
            raise ConnectionError("offline\nfor long")
        return str(tmp_path / filename)

    hub = SimpleNamespace(hf_hub_download=hf_hub_download)
    parts = {"huggingface_hub": hub, "huggingface_hub.errors": SimpleNamespace(EntryNotFoundError=NotThere)}
    monkeypatch.setattr(module.importlib, "import_module", parts.__getitem__)
    assert from_hub("timm/some", tmp_path).name == "model.safetensors"
    assert from_hub("timm/old", tmp_path).name == "pytorch_model.bin"
    with pytest.raises(InputError, match=r"hf:timm/nobody: got offline; expected its files"):
        from_hub("timm/nobody", tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A server on this machine, which is spoken to without the encryption that all others must have."""
    monkeypatch.setattr(module, "SCHEME", "http://")
    with serving() as server:
        yield server


def published(server: Server, way: str) -> Published:
    """The server's content as a published file, answered in one of its ways."""
    digest = hashlib.md5(served.CONTENT, usedforsecurity=False).hexdigest()
    return Published(f"{server.url}/{way}/some.h5", f"md5:{digest}")


def test_a_served_file_gets_its_name_when_it_is_whole(tmp_path: Path, server: Server):
    seen: list[list[str]] = []
    server.before_the_end = lambda: seen.append([path.name for path in (tmp_path / "weights").iterdir()])
    place = download(published(server, "whole"), lambda text: None, tmp_path)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["some.h5"] == [place.name]
    assert place.read_bytes() == served.CONTENT
    (under_way,) = seen
    assert all(name.startswith(".") for name in under_way)


@pytest.mark.parametrize("way", ["moved", "unmeasured"])
def test_a_file_is_had_from_another_address_and_without_its_length(tmp_path: Path, server: Server, way: str):
    place = download(published(server, way), lambda text: None, tmp_path)
    assert place.read_bytes() == served.CONTENT
    assert server.asked[-1] == ("/whole/some.h5" if way == "moved" else "/unmeasured/some.h5")


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("dropped", "128,000 of 256,000 bytes"),
        ("silent", "timed out"),
        ("cut", "a file whose hash is md5:"),
        ("changed", "a file whose hash is md5:"),
        ("astray", "'file:///etc/hostname' is not allowed"),
        ("elsewhere", "an address that leads to ftp://127.0.0.1/some.h5"),
        ("around", "infinite loop"),
        ("missing", "Not Found"),
        ("nobody", "Connection refused"),
    ],
)
def test_what_goes_wrong_on_the_way_is_one_line_and_leaves_nothing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, way: str, reason: str
):
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5 if way == "silent" else 30.0)
    given = published(server, way)
    if way == "nobody":
        with socket.socket() as free:  # a port at which nobody listens
            free.bind(("127.0.0.1", 0))
            given = given._replace(url=f"http://127.0.0.1:{free.getsockname()[1]}/whole/some.h5")
    with pytest.raises(InputError) as caught:
        download(given, lambda text: None, tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    for part in (reason, given.url, given.hash, str(tmp_path / "weights" / "some.h5"), "--weights FILE"):
        assert part in text
    assert not list((tmp_path / "weights").iterdir())


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The server in the place of huggingface.co, as HF_ENDPOINT puts it there."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra `hub`")
    theirs = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", theirs.replace(constants.ENDPOINT, server.url))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    return server


def test_a_repository_is_downloaded_once_by_the_hub_itself(hub: Server, tmp_path: Path):
    place = from_hub("timm/whole", tmp_path)
    assert place.read_bytes() == served.CONTENT
    assert (place.parent / "config.json").read_text() == '{"architecture": "some"}'
    asked = len(hub.asked)
    assert from_hub("timm/whole", tmp_path) == place
    assert not any("GET" in path for path in hub.asked[asked:])


@pytest.mark.parametrize(
    ("repository", "reason"), [("empty", "no model.safetensors"), ("nobody", "404"), ("broken", "")]
)
def test_what_the_hub_lacks_is_one_line(hub: Server, tmp_path: Path, repository: str, reason: str):
    with pytest.raises(InputError) as caught:
        from_hub(f"timm/{repository}", tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    for part in (f"hf:timm/{repository}", reason):
        assert part in text
