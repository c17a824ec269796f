"""What a tracking store or the way to it answered, as one sentence that says what to do."""

import os
import ssl
from collections.abc import Iterator

from bench.tracking.places import DAMAGED, StoreUnreachable, TrackingError, outdated

_LATER = (408, 429, 500, 502, 503, 504)
"""Statuses that a server, its database or a proxy before it gives while it is not ready."""


def problem_of(uri: str, error: Exception) -> TrackingError:
    """The error to raise for what MLflow, or what it talks through, has raised; a `StoreUnreachable` if it may pass."""
    if "out-of-date" in str(error):
        return TrackingError(outdated(uri))
    if "disk is full" in str(error) or "No space left" in str(error):
        return StoreUnreachable(f"tracking store {uri}: the disk is full; make room.")
    if uri.startswith("http"):
        return _server_problem(uri, error)
    if uri.startswith("sqlite") and any(word in str(error) for word in ("malformed", "not a database")):
        return TrackingError(f"tracking store {uri} cannot be used: {DAMAGED}")
    if "readonly database" in str(error) or "unable to open database file" in str(error):
        return StoreUnreachable(f"tracking store {uri}: the file or its folder is read-only; make it writable.")
    text = _first_line(error)
    passing = ("locked", "timed out", "onnection", "disk I/O", "temporarily", "terminating", "starting up")
    if isinstance(error, OSError) or any(word in text for word in passing):
        return StoreUnreachable(f"tracking store {uri} cannot be reached: {text}")
    return TrackingError(f"tracking store {uri} does not take the request: {text}")


def _server_problem(uri: str, error: Exception) -> TrackingError:
    causes, server = list(_causes(error)), f"tracking server {uri}"
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        return TrackingError(f"{server}: {_tls_reason(tls)}")
    status = _status(error)
    if status == 401:
        return TrackingError(f"{server} {_login_reason()}")
    if status == 403:
        return TrackingError(f"{server} {_refusal(error)}")
    if status in _LATER:
        return StoreUnreachable(
            f"{server} cannot be reached: it, its database or a proxy before it is not ready (status {status})."
        )
    silence = _silence(causes)
    if silence:
        return StoreUnreachable(f"{server} cannot be reached: {silence}.")
    text = _first_line(error)
    if "esponse body" in text and "{" not in text:  # no JSON: MLflow answers every request of ours with some
        return TrackingError(f"{server} answers, but not as MLflow does: check the address.")
    if status is None and isinstance(error, OSError):
        return StoreUnreachable(f"{server} cannot be reached: {text}")
    return TrackingError(f"{server} does not take the request: {text}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all it stands for; transports put the real one into arguments, `reason`, or the context."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]


def _status(error: Exception) -> int | None:
    """The HTTP status a server gave, or None where there was no answer."""
    for cause in _causes(error):
        reply = getattr(cause, "response", None)
        if reply is not None:
            return int(reply.status_code)
        text = str(cause)
        if type(cause).__name__ == "ResponseError" and text.startswith("too many "):
            return int(text.split()[2])  # "too many 503 error responses"
    code = getattr(error, "error_code", None)
    named = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "TEMPORARILY_UNAVAILABLE": 503}
    return named.get(str(code))


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted ({error.verify_message.rstrip('.')}); name the authority that signed it "
            "in MLFLOW_TRACKING_SERVER_CERT_PATH, or use the host name it was made for."
        )
    if "WRONG_VERSION_NUMBER" in str(error):
        return "it does not speak TLS; write http:// instead of https://."
    return f"no TLS connection ({error.reason or error})."


def _login_reason() -> str:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user and os.environ.get("MLFLOW_TRACKING_PASSWORD"):
        return f"refuses the login of '{user}': check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    return "wants a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."


def _refusal(error: Exception) -> str:
    if "Host header" in str(error):
        return "does not answer to that host name: start it with --allowed-hosts, or use the name it knows."
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "this user")
    return f"does not let '{user}' do this: its administrator gives the right to edit an experiment."


def _silence(causes: list[BaseException]) -> str | None:
    """Why there was no answer at all."""
    names = {type(cause).__name__ for cause in causes}
    if "NameResolutionError" in names:
        return "no machine of that name is known"
    if names & {"ReadTimeoutError", "ReadTimeout", "ConnectTimeoutError", "ConnectTimeout", "TimeoutError"}:
        return "it gave no answer in time"
    if "ConnectionRefusedError" in names or "NewConnectionError" in names:
        return "nobody answers there, it may not be running"
    if names & {"RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "ProtocolError", "ConnectionError"}:
        return "the connection broke off"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
