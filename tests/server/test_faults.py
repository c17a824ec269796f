"""What a server, a proxy or the network answers is said in one sentence, and told apart: to wait for, or to mend."""

import datetime
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from bench.tracking import Store, StoreUnreachable, TrackingError
from tests.bench.run_tools import write_grid
from tests.server.process import free_port
from tests.server.runs import bench, grid
from tests.server.services import ADMIN, PASSWORD, Server

Answer = Callable[[int, str], str]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    """Starts a server that gives every request the same answer; its address."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with ExitStack() as stack:
        yield lambda status, body: stack.enter_context(_web(status, body)).address


class _web:
    """A web server with one answer, with TLS where a certificate is given."""

    def __init__(self, status: int, body: str, certificate: Path | None = None) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"http{'s' if certificate else ''}://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "_web":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def problem(uri: str) -> TrackingError:
    """What opening an experiment there ends with."""
    with pytest.raises(TrackingError) as caught:
        Store(uri, "anything", create=False)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 250
    assert text.endswith((".", ")"))
    return caught.value


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_is_not_ready_is_waited_for(answering: Answer, status: int) -> None:
    found = problem(answering(status, "<html>bad gateway</html>"))
    assert isinstance(found, StoreUnreachable)
    assert f"status {status}" in str(found)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, "<html>hello</html>", "answers, but not as MLflow does"),
        (404, "<html>no such page</html>", "answers, but not as MLflow does"),
        (302, "", "answers, but not as MLflow does"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "start it with --allowed-hosts"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}', "gives the right to edit"),
        (400, '{"error_code": "INVALID_PARAMETER_VALUE", "message": "odd name"}', "odd name"),
    ],
)
def test_what_will_not_pass_is_not_waited_for(answering: Answer, status: int, body: str, says: str) -> None:
    found = problem(answering(status, body))
    assert not isinstance(found, StoreUnreachable)
    assert says in str(found)


def test_nobody_and_nowhere_are_told_apart() -> None:
    assert "nobody answers there" in str(problem(f"http://127.0.0.1:{free_port()}"))
    assert "no machine of that name" in str(problem("http://nowhere.invalid:5000"))


def test_silence_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # takes connections, answers none
        found = problem(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert isinstance(found, StoreUnreachable)
    assert "no answer in time" in str(found)


def certificate(folder: Path, name: str) -> Path:
    """A certificate for `name`, signed by itself, and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return file


def test_tls_that_does_not_fit_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, right = certificate(tmp_path, "other.example"), certificate(tmp_path, "127.0.0.1")
    with _web(404, "{}", other) as web:
        assert "certificate is not accepted" in str(problem(web.address))  # nobody we trust signed it
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(other))
        text = str(problem(web.address))
        assert "certificate is not accepted" in text
        assert "127.0.0.1" in text  # the name it was not made for
    with _web(403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', right) as web:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(right))
        assert "gives the right to edit" in str(problem(web.address))  # the connection stands
    with _web(200, "{}") as web:
        assert "write http://" in str(problem(web.address.replace("http", "https")))


def test_a_password_in_an_address_is_in_no_message() -> None:
    assert "secret" not in str(problem(f"http://ada:secret@127.0.0.1:{free_port()}"))


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ({}, "wants a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."),
        ({"MLFLOW_TRACKING_USERNAME": ADMIN}, "wants a login"),
        ({"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": "guess"}, "refuses the login of 'admin'"),
        ({"MLFLOW_TRACKING_USERNAME": "eve", "MLFLOW_TRACKING_PASSWORD": PASSWORD}, "refuses the login of 'eve'"),
    ],
)
def test_logins_that_fail(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, login: dict[str, str], says: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where MLflow looks for credentials besides
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    assert says in str(problem(server.uri))


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(server: Server, tmp_path: Path) -> None:
    write_grid(tmp_path, grid("login", seeds=1, uri=server.uri))
    for command in (("run", "grid.yaml"), ("report", "login"), ("doctor",)):
        code, out, err = bench(*command, cwd=tmp_path, login={"HOME": str(tmp_path)}, MLFLOW_TRACKING_URI=server.uri)
        assert code == 1
        assert "wants a login" in out + err
    assert not list(tmp_path.rglob("outcomes/*.json"))


@pytest.mark.slow
def test_a_user_who_may_only_read_is_told_so(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    from mlflow.server import get_app_client

    get_app_client("basic-auth", server.uri).create_user("reader", "a password of a reader")
    write_grid(tmp_path, grid("theirs", seeds=1, uri=server.uri))
    code, _, err = bench("run", "grid.yaml", cwd=tmp_path)
    assert code == 0, err
    reader = {"MLFLOW_TRACKING_USERNAME": "reader", "MLFLOW_TRACKING_PASSWORD": "a password of a reader"}
    code, _, err = bench("report", "theirs", cwd=tmp_path, login=reader, MLFLOW_TRACKING_URI=server.uri)
    assert "Traceback" not in err
    write_grid(tmp_path, grid("theirs", seeds=2, uri=server.uri))
    code, _, err = bench("run", "grid.yaml", cwd=tmp_path, login=reader)
    assert code == 1
    assert "does not let 'reader' do this" in err
