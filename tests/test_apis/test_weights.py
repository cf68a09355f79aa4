"""Downloads, from a server of this process that does everything wrong."""

import hashlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmbeit.apis import index, weights
from mmbeit.apis.weights import WeightsError, resolve_weights
from mmbeit.registry import MODELS  # noqa: F401 - with it come the loaders

CONTENT = bytes(range(256)) * 400
SHA = hashlib.sha256(CONTENT).hexdigest()
NAME = f'model-{SHA[:8]}.pth'
PARTIAL = '*.partial'


class Handler(BaseHTTPRequestHandler):
    """The first folder of the path says how to behave."""

    def do_GET(self):  # noqa: N802
        server = self.server
        behaviour = self.path.split('/')[1]
        wanted = self.headers.get('Range')
        server.requests.append((behaviour, wanted))
        start = int(wanted.removeprefix('bytes=').removesuffix('-')) if wanted else 0
        if behaviour == 'hangs':
            return server.released.wait(20)
        if behaviour.isdigit():
            return self.send_error(int(behaviour))
        if start >= len(CONTENT):
            return self.send_error(416)
        content = bytes(len(CONTENT)) if behaviour == 'wrong' else server.content
        if behaviour == 'no-range':
            start = 0
        self.send_response(206 if start else 200)
        self.send_header('Content-Type', 'text/html' if behaviour == 'page' else 'application/octet-stream')
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        if behaviour != 'no-length':
            self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        dies = behaviour in ('dies', 'no-range', 'dies-always')
        part = content[start : start + 40_000] if dies and len(server.requests) < server.deaths else content[start:]
        if behaviour == 'dies-always':
            part = content[start:40_000]
        for i in range(0, len(part), 10_000):
            self.wfile.write(part[i : i + 10_000])
            if behaviour == 'slow':
                time.sleep(0.01)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    cache = tmp_path / 'cache'
    monkeypatch.setenv('MMBEIT_CACHE', str(cache))
    for name in ('MMBEIT_OFFLINE', 'HF_HUB_OFFLINE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    httpd.requests, httpd.content, httpd.deaths, httpd.released = [], CONTENT, 100, threading.Event()
    threading.Thread(target=httpd.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
    address = f'http://127.0.0.1:{httpd.server_port}'
    yield SimpleNamespace(httpd=httpd, cache=cache, url=lambda how, name=NAME: f'{address}/{how}/{name}')
    httpd.released.set()
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize('how', ['good', 'slow', 'no-length', 'dies'])
def test_all_of_the_file_arrives_and_is_kept(server, how):
    path = resolve_weights(server.url(how))
    assert path == server.cache / NAME and path.read_bytes() == CONTENT
    assert not list(server.cache.glob(PARTIAL))
    count = len(server.httpd.requests)
    assert count == (3 if how == 'dies' else 1)
    assert resolve_weights(server.url(how)) == path and len(server.httpd.requests) == count


def test_a_download_has_a_bar_on_a_terminal_and_nowhere_else(server, monkeypatch, capfd):
    resolve_weights(server.url('good'))
    assert capfd.readouterr() == ('', '')
    monkeypatch.setenv('FORCE_COLOR', '1')  # rich takes it for a terminal
    monkeypatch.setenv('COLUMNS', '150')
    resolve_weights(server.url('slow', 'other.pth'))
    assert '102.4/102.4 kB' in re.sub(r'\x1b\[[\d;?]*[A-Za-z]', '', capfd.readouterr().err)


def test_a_download_goes_on_where_it_stopped(server):
    resolve_weights(server.url('dies'))
    assert [wanted for _, wanted in server.httpd.requests] == [None, 'bytes=40000-', 'bytes=80000-']


def test_a_download_goes_on_in_the_next_run(server):
    with pytest.raises(WeightsError, match='broke off after 40000 of 102400 bytes'):
        resolve_weights(server.url('dies-always'))
    (partial,) = server.cache.glob(PARTIAL)
    assert partial.read_bytes() == CONTENT[:40_000]
    with pytest.raises(WeightsError, match='broke off'):
        resolve_weights(server.url('dies-always'))
    assert {wanted for _, wanted in server.httpd.requests} == {None, 'bytes=40000-'}


def test_a_server_without_ranges_sends_it_all_again(server):
    server.httpd.deaths = 2
    assert resolve_weights(server.url('no-range')).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.httpd.requests] == [None, 'bytes=40000-']


def test_a_server_without_ranges_that_always_dies_is_given_up(server):
    with pytest.raises(WeightsError, match='broke off after 40000'):
        resolve_weights(server.url('no-range'))
    assert len(server.httpd.requests) == 2


def test_a_part_that_is_too_long_is_thrown_away(server):
    with pytest.raises(WeightsError):
        resolve_weights(server.url('dies-always'))
    (partial,) = server.cache.glob(PARTIAL)
    partial.write_bytes(CONTENT + b'more')
    with pytest.raises(WeightsError, match='broke off after 40000'):
        resolve_weights(server.url('dies-always'))


def test_wrong_bytes_are_refused_and_removed(server):
    with pytest.raises(WeightsError, match=f'its hash is [0-9a-f]{{8}}, not {SHA[:8]}: the file was removed'):
        resolve_weights(server.url('wrong'))
    assert not [path for path in server.cache.iterdir() if path.suffix != '.lock']
    with pytest.raises(WeightsError, match='hash'):
        resolve_weights(server.url('good', 'model.pth'), sha256='0' * 64)
    assert resolve_weights(server.url('good', 'model.pth'), sha256=SHA.upper()).read_bytes() == CONTENT


@pytest.mark.parametrize('name', ['model.pth', 'model-20221128.pth', 'model-1234.pth', 'model-finetuned.pth'])
def test_names_without_a_hash_are_not_checked(server, name):
    assert resolve_weights(server.url('wrong', name)).read_bytes() == bytes(len(CONTENT))


def test_mirrors_are_tried_in_order_until_one_works(server):
    urls = [server.url(how) for how in ('404', '500', 'page', 'dies-always', 'wrong', 'good')]
    assert resolve_weights(urls[0], mirrors=urls[1:]).read_bytes() == CONTENT
    assert [how for how, _ in server.httpd.requests] == ['404', '500', 'page', 'dies-always', 'dies-always'] + [
        'wrong',
        'good',
    ]


def test_what_came_from_one_mirror_is_not_continued_from_another(server):
    assert resolve_weights(server.url('dies-always'), [server.url('good')]).read_bytes() == CONTENT
    assert server.httpd.requests[-1] == ('good', None)


def test_a_mirror_may_have_another_name_for_it(server):
    mirrors = [server.url('good', 'other.pth')]
    path = resolve_weights(server.url('404'), mirrors)
    assert path == server.cache / 'other.pth'
    assert resolve_weights(server.url('404'), mirrors) == path and len(server.httpd.requests) == 2


def test_the_metafile_knows_the_mirrors(server, monkeypatch):
    entry = dict(Weights=server.url('404'), Mirrors=[server.url('500'), server.url('good')])
    monkeypatch.setattr(index, 'models', lambda: {'a model': entry})
    assert resolve_weights(entry['Weights']).read_bytes() == CONTENT
    with pytest.raises(WeightsError):
        resolve_weights(server.url('500', 'other.pth'))


def test_one_line_lists_what_was_tried_and_what_to_do(server, monkeypatch):
    monkeypatch.setattr(weights, 'TIMEOUT', 0.2)
    dead = 'http://127.0.0.1:9/model.pth'  # nobody listens there
    urls = [dead, server.url('404'), server.url('hangs'), server.url('wrong'), server.url('page')]
    with pytest.raises(WeightsError) as error:
        resolve_weights(urls[0], mirrors=urls[1:])
    message = str(error.value)
    assert '\n' not in message and all(url in message for url in urls)
    for reason in ('refused', 'HTTP 404', 'timed out', 'hash', 'a web page'):
        assert reason in message
    assert f'pass the path of a local file instead, or put it at {server.cache / "model.pth"}' in message


@pytest.mark.parametrize('switch', ['MMBEIT_OFFLINE', 'HF_HUB_OFFLINE'])
def test_offline_takes_what_is_there_and_nothing_else(server, monkeypatch, switch):
    monkeypatch.setenv(switch, '1')
    with pytest.raises(WeightsError, match='downloads are switched off') as error:
        resolve_weights(server.url('good'))
    assert str(server.cache / NAME) in str(error.value) and not server.httpd.requests
    monkeypatch.setenv(switch, '0')
    path = resolve_weights(server.url('good'))
    monkeypatch.setenv(switch, 'true')
    assert resolve_weights(server.url('good')) == path


def test_the_first_process_of_a_node_downloads(server, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    with pytest.raises(WeightsError, match='the first process of this node could not download'):
        resolve_weights(server.url('good'))
    assert not server.httpd.requests
    server.cache.mkdir()
    monkeypatch.setattr(weights, 'barrier', lambda: (server.cache / NAME).write_bytes(b'by the other one'))
    assert resolve_weights(server.url('good')).read_bytes() == b'by the other one'


def test_the_others_do_not_wait_for_ever_for_a_download_that_failed(server, monkeypatch):
    reached = []
    monkeypatch.setattr(weights, 'barrier', lambda: reached.append(True))
    with pytest.raises(WeightsError):
        resolve_weights(server.url('404'))
    assert reached == [True]


def test_two_runs_download_it_once(server):
    threads = [threading.Thread(target=resolve_weights, args=[server.url('slow')]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.httpd.requests) == 1 and (server.cache / NAME).read_bytes() == CONTENT


def test_local_files(tmp_path, monkeypatch):
    (tmp_path / 'model.pth').write_bytes(b'')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert resolve_weights('~/model.pth') == resolve_weights(tmp_path / 'model.pth') == tmp_path / 'model.pth'
    with pytest.raises(FileNotFoundError, match='no such checkpoint: .*other.pth'):
        resolve_weights(tmp_path / 'other.pth')


def test_cache_of_torch_is_the_default(monkeypatch, tmp_path):
    monkeypatch.delenv('MMBEIT_CACHE', raising=False)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    assert weights.cached_path('https://example.com/a/b%20c.pth?d=e') == tmp_path / 'checkpoints' / 'b c.pth'


def test_loader_of_mmengine_downloads_with_it(server, tmp_path):
    torch.save({'a': torch.ones(2)}, tmp_path / 'model.pth')
    server.httpd.content = (tmp_path / 'model.pth').read_bytes()
    content = CheckpointLoader.load_checkpoint(server.url('good', 'model.pth'), map_location='cpu')
    assert torch.equal(content['a'], torch.ones(2))
