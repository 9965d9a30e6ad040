"""Downloads, from a server on this machine that does what servers do."""

import errno
import functools
import hashlib
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpt_pretrain.config import ModelSettings, WeightsConfig
from gpt_pretrain.errors import ArtifactError, InfrastructureError, InputError
from gpt_pretrain.weights import download as downloads
from gpt_pretrain.weights.download import Expected, download
from gpt_pretrain.weights.fetch import FILES, fetch_gpt2
from gpt_pretrain.weights.gpt2_sizes import SIZES, Size

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path; `behaviour` says what is wrong with it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.behaviour, self.requests = {}, set(), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        content = server.files.get(self.path.removeprefix("/store"))
        if content is None:
            return self.send_error(404)
        if "redirect" in server.behaviour and not self.path.startswith("/store"):
            self.send_response(302)
            self.send_header("Location", f"/store{self.path}")
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
            return self.end_headers()
        begin = 0
        if (wanted := self.headers.get("Range")) and "no ranges" not in server.behaviour:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if "no size" not in server.behaviour:
            self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        body = content[begin:]
        if "cut" in server.behaviour:
            body = body[: max(1, len(content) // 3)]
        if "wrong bytes" in server.behaviour:
            body = bytes(len(body))
        self.wfile.write(body)
        return None


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    server = Server()
    server.files["/file"] = CONTENT
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_arrives_whole_and_is_fetched_once(server, tmp_path):
    for _ in range(2):
        download([f"{server.url}/file"], tmp_path / "a", Expected(len(CONTENT), SHA256))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_cut_connection_is_resumed_where_it_was_cut(server, tmp_path):
    server.behaviour.add("cut")
    download([f"{server.url}/file"], tmp_path / "a", Expected(sha256=SHA256))
    assert (tmp_path / "a").read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert [wanted for _, wanted in server.requests][:3] == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_what_a_killed_run_left_is_gone_on_with(server, tmp_path):
    (tmp_path / "a.partial").write_bytes(CONTENT[:1000])
    download([f"{server.url}/file"], tmp_path / "a", Expected(sha256=SHA256))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.requests == [("/file", "bytes=1000-")]


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.behaviour.add("no ranges")
    (tmp_path / "a.partial").write_bytes(b"x" * 1000)
    download([f"{server.url}/file"], tmp_path / "a", Expected(sha256=SHA256))
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (len(CONTENT) + 7)])
def test_what_was_left_of_another_version_is_thrown_away(server, tmp_path, left):
    (tmp_path / "a.partial").write_bytes(left)
    download([f"{server.url}/file"], tmp_path / "a", Expected(sha256=SHA256))
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_wrong_size_is_refused_before_the_body(server, tmp_path):
    with pytest.raises(ArtifactError, match="has 1,280,000 bytes, not 7"):
        download([f"{server.url}/file"], tmp_path / "a", Expected(size=7))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("declared", [True, False])
def test_a_wrong_hash_is_refused_and_nothing_kept(server, tmp_path, declared):
    """Known beforehand, or declared as the hub does it: in the answer that sends on to its store."""
    server.behaviour |= {"wrong bytes", *(["redirect"] if declared else [])}
    with pytest.raises(ArtifactError, match="has SHA-256"):
        download([f"{server.url}/file"], tmp_path / "a", Expected() if declared else Expected(sha256=SHA256))
    assert [file.name for file in tmp_path.iterdir()] == ["a.lock"]


def test_where_one_address_has_nothing_a_mirror_serves(server, tmp_path):
    nobody = "http://127.0.0.1:9/file"
    download([nobody, f"{server.url}/missing", f"{server.url}/file"], tmp_path / "a", Expected(sha256=SHA256))
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_where_no_address_serves_each_ones_answer_is_said(server, tmp_path):
    with pytest.raises(InfrastructureError, match=r"refused.*404 Not Found"):
        download(["http://127.0.0.1:9/file", f"{server.url}/missing"], tmp_path / "a", Expected())


def test_two_processes_at_once_download_once(server, tmp_path):
    code = (
        "import sys; from pathlib import Path; from gpt_pretrain.weights.download import *;"
        "download([sys.argv[1]], Path(sys.argv[2]), Expected())"
    )
    arguments = [sys.executable, "-c", code, f"{server.url}/file", str(tmp_path / "a")]
    running = [subprocess.Popen(arguments, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_downloading_process_that_is_killed_leaves_the_lock_to_the_next(server, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from gpt_pretrain.weights import download as d;"
        "d._download_from_any = lambda *_: (print('held', flush=True), time.sleep(60));"
        "d.download(['http://127.0.0.1:9'], Path(sys.argv[1]), d.Expected())"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    second = threading.Thread(target=download, args=([f"{server.url}/file"], tmp_path / "a", Expected()))
    second.start()
    second.join(0.3)
    assert second.is_alive()  # it waits
    assert server.requests == []
    holder.kill()
    holder.communicate()
    second.join(60)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again_where_that_is_asked_for(server, tmp_path):
    (tmp_path / "a").write_bytes(b"damaged")
    download([f"{server.url}/file"], tmp_path / "a", Expected(sha256=SHA256))
    assert (tmp_path / "a").read_bytes() == b"damaged"
    for _ in range(2):
        download([f"{server.url}/file"], tmp_path / "a", Expected(sha256=SHA256), again_if_damaged=True)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", ["", "no size"])
def test_more_than_a_file_may_have_is_refused(server, tmp_path, behaviour):
    server.behaviour.add(behaviour)
    with pytest.raises(ArtifactError, match="more than"):
        download([f"{server.url}/file"], tmp_path / "a", Expected(at_most=1000))
    assert [file.name for file in tmp_path.iterdir()] == ["a.lock"]


def test_a_full_disk_is_said_at_once_and_not_taken_for_the_network(server, tmp_path, monkeypatch):
    def full(stream, chunk):
        with downloads._disk():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_write", full)
    with pytest.raises(
        InfrastructureError, match=r"written \(No space left on device\): set data\.cache_dir"
    ):
        download([f"{server.url}/file"], tmp_path / "a", Expected(), setting="data.cache_dir")
    assert len(server.requests) == 1


def test_a_cache_that_cannot_be_written_is_said_so_and_what_is_in_it_is_used(server, tmp_path):
    with pytest.raises(InfrastructureError, match="set GPT_PRETRAIN_CACHE"):
        download([f"{server.url}/file"], Path("/proc/nothing/a"), Expected())
    (tmp_path / "a").write_bytes(CONTENT)
    before = set(tmp_path.iterdir())
    download(["http://127.0.0.1:9/file"], tmp_path / "a", Expected())
    assert set(tmp_path.iterdir()) == before  # neither lock nor partial file


SMALL = ModelSettings(emb_dim=768, n_layers=12)


@pytest.fixture
def mirror(server, monkeypatch):
    """Settings for the small model, which this server has from both sources, small enough for a test."""
    known = Size(option="gpt2_small", n_heads=12, repository="openai-community/gpt2", folder="124M")
    monkeypatch.setitem(SIZES, (768, 12), known)
    for name in FILES["huggingface"]:
        server.files[f"/openai-community/gpt2/resolve/main/{name}"] = CONTENT
    for name in FILES["openai"]:
        server.files[f"/124M/{name}"] = CONTENT[1:]
    return functools.partial(
        WeightsConfig, name="gpt2", huggingface_urls=[server.url + "/"], openai_urls=[server.url]
    )


@pytest.mark.parametrize("source", ["auto", "huggingface", "openai"])
def test_the_source_chooses_whose_files_are_fetched(mirror, server, tmp_path, source):
    folder = fetch_gpt2(mirror(source=source), SMALL, tmp_path)
    whose = "openai" if source == "openai" else "huggingface"
    assert folder == tmp_path / whose / "124M"
    assert all((folder / name).is_file() for name in FILES[whose])
    fetch_gpt2(mirror(source=source, offline=True), SMALL, tmp_path)
    assert len(server.requests) == len(FILES[whose])


def test_auto_goes_to_openai_where_the_hub_has_nothing(mirror, server, tmp_path):
    del server.files["/openai-community/gpt2/resolve/main/model.safetensors"]
    assert fetch_gpt2(mirror(), SMALL, tmp_path) == tmp_path / "openai" / "124M"


def test_offline_touches_no_network_and_says_what_to_place_where(mirror, server, tmp_path):
    with pytest.raises(InputError) as refused:
        fetch_gpt2(mirror(offline=True), SMALL, tmp_path)
    assert "place config.json and model.safetensors of openai-community/gpt2 in" in str(refused.value)
    assert str(tmp_path / "huggingface" / "124M") in str(refused.value)
    assert server.requests == []


def test_a_shape_that_openai_did_not_train_is_refused(tmp_path):
    with pytest.raises(InputError, match="choose one of model=gpt2_small"):
        fetch_gpt2(WeightsConfig(name="gpt2"), ModelSettings(emb_dim=64, n_layers=2), tmp_path)


def test_a_hash_of_the_users_is_checked(mirror, tmp_path):
    with pytest.raises(ArtifactError, match="has SHA-256"):
        fetch_gpt2(mirror(sha256="0" * 64, source="openai"), SMALL, tmp_path)
    assert fetch_gpt2(mirror(sha256=SHA256), SMALL, tmp_path).name == "124M"


def test_the_sizes_are_those_of_the_model_group():
    from gpt_pretrain.cli.compose import compose
    from gpt_pretrain.config import TrainConfig

    for (emb_dim, n_layers), size in SIZES.items():
        model = compose("train", TrainConfig, ["weights=gpt2", f"model={size.option}"]).model
        assert (model.emb_dim, model.n_layers, model.n_heads) == (emb_dim, n_layers, size.n_heads)
