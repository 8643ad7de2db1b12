"""relaygw: a mail gateway between application servers and e-mail providers.

The folders are rooms; what lives in each, and which way imports may point, is in
docs/architecture.md and enforced by tests/unit/test_imports.py.
"""

from __future__ import annotations

__version__ = "0.2.0"
