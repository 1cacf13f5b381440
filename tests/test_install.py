"""What an installation brings."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_folder_of_the_same_name_hides_nothing_of_an_editable_install(tmp_path):
    """`git clone` makes a folder `shortline`, and a shell stands beside it."""
    pytest.importorskip("setuptools", "77")
    build = (
        "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, check=True)
    site = tmp_path / "site"
    with zipfile.ZipFile(*tmp_path.glob("*.whl")) as wheel:
        wheel.extractall(site)
    (tmp_path / "shortline").mkdir()
    importing = (
        f"import site; site.addsitedir({str(site)!r}); import shortline; shortline.UserError"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-S", "-c", importing], cwd=tmp_path, env=environment, check=True
    )
