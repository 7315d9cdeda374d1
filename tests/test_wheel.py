"""The wheel holds everything: installed into an empty environment, away from the checkout, it runs a model."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_installed_wheel_runs_a_model(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install -e '.[test]'")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("recbole_ser-*.whl")

    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    packages = Path(next((tmp_path / "empty" / "lib").glob("python*"))) / "site-packages"
    subprocess.run([*pip, "install", "--no-deps", "-q", "--target", str(packages), str(wheel)], check=True)
    # What the package depends on comes from the environment of this test; the package itself cannot: an editable
    # install is found through a .pth file, and those are not followed from here.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    away = tmp_path / "away"
    away.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = [python, "-c", "import recbole_ser; print(recbole_ser.__file__)"]
    found = subprocess.run(where, cwd=away, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(packages)), found

    run = [python, "-m", "recbole_ser.cli", "run", "--model=SESRec", "--dataset=ser-sample", "--epochs=1"]
    done = subprocess.run(run, cwd=away, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "SESRec on ser-sample" in done.stdout
    assert len(list((away / "saved" / "ser-sample").glob("SESRec-*/result.json"))) == 1
