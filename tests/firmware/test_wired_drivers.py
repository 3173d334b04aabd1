"""The drivers on real MicroPython, on wires that answer as the data sheets' examples do."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.firmware.boards import STANDINS, Interpreter
from tests.firmware.test_more_drivers import Bme680Chip, aht, trimming, with_checksums

Run = Callable[[dict[str, Any], int], dict[str, Any]]


@pytest.fixture
def run(interpreter: Interpreter, flash_image: Path, standins: Path, tmp_path: Path) -> Run:
    """Runs wired_drivers.py under MicroPython with the files that a board gets; what it found, by kind."""

    def running(i2c: dict[str, Any], count: int) -> dict[str, Any]:
        folder = tmp_path / "board"
        shutil.copytree(flash_image, folder)
        shutil.copytree(standins, folder / "standins")
        shutil.copy(STANDINS / "wired_drivers.py", folder / "script.py")
        (folder / "asked.json").write_text(json.dumps({"i2c": i2c, "hx711": count}))
        command = interpreter.command(folder, standins, f"wired-{tmp_path.name[-12:]}", "script.py")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return running


def test_the_data_sheets_figures_on_micropython(run: Run) -> None:
    words = {"answers": [with_checksums(0x6666, 0x8000).hex()]}
    found = run(
        {
            "sht3x": words,
            "sht4x": words,
            "aht20": {"answers": ["18", aht(1 << 18, 393216).hex()]},
            "bh1750": {"answers": ["8390"]},
            # Sensirion, Interface Description SCD30, §1.4.5, and SCD4x data sheet, examples of read_measurement
            "scd30": {"answers": [with_checksums(1).hex(), "43dbcb8c2e8f41d970e7fff54243bf3a1b74"]},
            "scd41": {"answers": [with_checksums(1, 2, 3).hex(), with_checksums(0x8006).hex(), "01f4336667a25eb93c"]},
            "bme680": {"memory": Bme680Chip().memory.hex()},
        },
        -8_388_000,
    )
    values = {kind: each["values"] for kind, each in found.items()}
    assert values == {
        "sht3x": {"temperature": pytest.approx(25, abs=0.01), "humidity": pytest.approx(50, abs=0.01)},
        "sht4x": {"temperature": pytest.approx(25, abs=0.01), "humidity": pytest.approx(56.5, abs=0.01)},
        "aht20": {"temperature": 25, "humidity": 25},
        "bh1750": {"illuminance": pytest.approx(28067, abs=0.5)},
        "scd30": {
            "co2": pytest.approx(439.1, abs=0.1),
            "temperature": pytest.approx(27.24, abs=0.01),
            "humidity": pytest.approx(48.81, abs=0.01),
        },
        "scd41": {
            "co2": 500,
            "temperature": pytest.approx(25, abs=0.01),
            "humidity": pytest.approx(37, abs=0.01),
        },
        "bme680": {
            "temperature": 26.69,
            "pressure": 987.12,
            "humidity": 42.402,
            "gas_resistance": pytest.approx(trimming().gas(600, 4, 0)),
        },
        "hx711": {"weight": -8_388_000},
    }
    assert found["hx711"]["pulses"] == 6 * 25  # the one that is left away, and five: channel A, gain 128
    assert found["scd30"]["written"][:2] == ["46000002e3", "0010000081"]
    assert [kind for kind, each in found.items() if each.get("left")] == []
