"""A program `relaygw` for commands of a shell, which is forked as `tests.forked` does it."""

from __future__ import annotations

import sys
from pathlib import Path

from tests import forked

_TEXT = """\
#!{python} -IS
import json, os, signal, socket, sys

asked = {{
    "words": sys.argv[1:],
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "new_session": False,
    "closed": [],
}}
read, write = os.pipe()
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as image:
    image.connect({address!r})
    socket.send_fds(image, [json.dumps(asked).encode()], [0, 1, 2, write])
    os.close(write)
    image.recv(32)
    code = os.waitstatus_to_exitcode(int(os.read(read, 32) or signal.SIGKILL))
sys.exit(code if code >= 0 else 128 - code)
"""


def put_program(directory: Path) -> Path:
    """Write the program into a directory, for PATH; signals to it are not passed on."""
    program = directory / "relaygw"
    program.write_text(_TEXT.format(python=sys.executable, address=str(forked.image_address())))
    program.chmod(0o755)
    return directory
