"""From the name of a file of weights to a complete local copy of it."""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from filelock import FileLock  # torch depends on it
from mmengine.dist import barrier

from mmbeit.apis.index import mirrors_of
from mmbeit.apis.progress import download_bar
from mmbeit.version import __version__

TIMEOUT = 30  # seconds without an answer, or without a byte
CHUNK = 1 << 20


class WeightsError(RuntimeError):
    """Weights cannot be had. The message is one line: what was tried, and what to do."""


def cache_dir() -> Path:
    """Where downloads are kept: the environment variable MMBEIT_CACHE, or torch hub's folder of checkpoints."""
    folder = os.environ.get('MMBEIT_CACHE')
    return Path(folder).expanduser() if folder else Path(torch.hub.get_dir(), 'checkpoints')


def is_offline() -> bool:
    """Whether MMBEIT_OFFLINE or HF_HUB_OFFLINE forbids downloads."""
    values = (os.environ.get(name, '') for name in ('MMBEIT_OFFLINE', 'HF_HUB_OFFLINE'))
    return any(value.upper() in ('1', 'ON', 'YES', 'TRUE') for value in values)


def is_url(source: str | os.PathLike) -> bool:
    return str(source).startswith(('http://', 'https://'))


def cached_path(url: str) -> Path:
    """Where the download of a URL is kept."""
    return cache_dir() / unquote(Path(urlparse(url).path).name)


def resolve_weights(source: str | os.PathLike, mirrors: Sequence[str] | None = None, sha256: str | None = None) -> Path:
    """Find weights on this machine, or download them: the first process of each node does, the others wait for it.

    Args:
        source: A local path, or a URL. A download that broke off goes on where it stopped.
        mirrors: URLs to try next, in order; by default those that `metafile.yml` has for the URL.
        sha256: Hexadecimal digits that the hash of a download has to start with; by default those in the file name,
            as in `name-0123abcd.pth`. What is in the cache already was checked when it came.

    Returns:
        Path of the local file.

    Raises:
        FileNotFoundError: There is no such local file.
        WeightsError: Every URL failed, or downloads are forbidden.
    """
    if not is_url(source):
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f'no such checkpoint: {path}')
        return path
    urls = [str(source), *(mirrors_of(str(source)) if mirrors is None else mirrors)]
    error = None
    if int(os.environ.get('LOCAL_RANK', 0)) == 0:
        try:
            _download_any(urls, sha256)
        except WeightsError as reason:
            error = reason  # after the barrier, where the others wait
    barrier()
    if error is not None:
        raise error
    if path := _cached(urls):
        return path
    raise WeightsError(f'the first process of this node could not download {urls[0]}; its message says why')


def _cached(urls: Sequence[str]) -> Path | None:
    return next((path for path in map(cached_path, urls) if path.is_file()), None)


def _download_any(urls: Sequence[str], sha256: str | None) -> None:
    if _cached(urls):
        return
    advice = f'pass the path of a local file instead, or put it at {cached_path(urls[0])}'
    if is_offline():
        raise WeightsError(f'{urls[0]} is not in the cache, and downloads are switched off (MMBEIT_OFFLINE): {advice}')
    cache_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(f'{cached_path(urls[0])}.lock'):  # two runs may want the same file
        tried = []
        for url in urls:
            if _cached(urls):
                return
            try:
                _download(url, cached_path(url), sha256 or _published_hash(url))
            except (OSError, http.client.HTTPException, ValueError) as error:
                tried.append(f'{url} ({_reason(error)})')
    if not _cached(urls):
        raise WeightsError(f'cannot download {cached_path(urls[0]).name}: tried {", ".join(tried)}; {advice}')


def _published_hash(url: str) -> str:
    """The first digits of the hash that a file name ends with, as OpenMMLab and torch publish; else nothing."""
    found = re.search(r'-([0-9a-f]{8,64})\.\w+$', urlparse(url).path)
    is_date = found and re.fullmatch(r'20\d\d[01]\d[0-3]\d', found[1])
    return found[1] if found and not is_date else ''


def _download(url: str, target: Path, sha256: str) -> None:
    # A name for each URL: two mirrors need not have the same bytes under the same name.
    partial = target.with_name(f'{target.name}.{zlib.crc32(url.encode()):08x}.partial')
    while True:
        start = partial.stat().st_size if partial.exists() else 0
        try:
            _fetch(url, partial, start)
            break
        except urllib.error.HTTPError as error:
            if error.code != 416 or not start:
                raise
            partial.unlink()  # it is longer than the file
        except (OSError, http.client.HTTPException):
            if not partial.exists() or partial.stat().st_size <= start:
                raise  # nothing more arrives
    if sha256 and not (digest := _sha256(partial)).startswith(sha256.lower()):
        partial.unlink()
        raise ValueError(f'its hash is {digest[: len(sha256)]}, not {sha256}: the file was removed')
    partial.replace(target)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch(url: str, partial: Path, start: int) -> None:
    """Append what is missing from byte `start` on."""
    headers = {'User-Agent': f'mmbeit/{__version__}', **({'Range': f'bytes={start}-'} if start else {})}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.headers.get_content_type() == 'text/html':
            raise ValueError('it answers with a web page')
        resumed = answer.status == 206 and answer.headers.get('Content-Range', '').startswith(f'bytes {start}-')
        if not resumed:
            start = 0
        length = answer.headers.get('Content-Length')
        total = start + int(length) if length else None
        with partial.open('ab' if resumed else 'wb') as file, download_bar() as progress:
            task = progress.add_task(cached_path(url).name, total=total, completed=start)
            while chunk := answer.read1(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
        size = partial.stat().st_size
        if total is not None and size < total:
            raise ConnectionError(f'the connection broke off after {size} of {total} bytes')


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f'HTTP {error.code}'
    text = ' '.join(str(getattr(error, 'reason', error)).split())
    return text or type(error).__name__
