#!/usr/bin/env python3
"""Exit with 0 when the server answers and its database does too, else 1; the image's health check.

`/health` alone says that the process is up. A request without a login that reads the database ends with 401 when the
login works, and with 500 or 503 when the database is gone; with a login, which is what this asks for, it reads it.
"""

import base64
import os
import sys
import urllib.error
import urllib.request

port = os.environ.get("SERVE_PORT", "5000")


def status(path: str, user: str | None = None, password: str = "") -> int:
    """HTTP status of a request to the server on this machine; 0 for no answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if user is not None:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=4) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


# A user that cannot exist: the server has to look into its database to say so.
healthy = status("/health") == 200 and status("/api/2.0/mlflow/users/current", "health check", "none") == 401
sys.exit(0 if healthy else 1)
