"""What the README tells a reader to type works, and what it says in figures is so."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nin_core import PRESETS, summarize
from nin_core.reference_nets import reference_summary
from tests.prerequisites import PROJECT

README = (PROJECT / "README.md").read_text()
COMMANDS = re.findall(r"^python (-m nin_core .+)$", README, re.MULTILINE)


def test_the_library_examples_run_one_after_the_other() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    said = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(said):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    text = said.getvalue()
    assert text.startswith("1992166\n")
    assert "would work" in text
    assert re.search(r"^16 \d\.\d+$", text, re.MULTILINE), "1,000 images are 16 batches"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=PROJECT,
        env={**os.environ, "NIN_DATABASE_URL": f"sqlite:///{tmp_path / 'runs.db'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_command_of_the_library_has_an_example() -> None:
    shown = {command.split()[2] for command in COMMANDS}
    assert shown == {"summary", "check", "train", "fan", "probe", "export", "runs", "data"}


def test_the_figures_in_the_text_are_the_computed_ones() -> None:
    for figure in (
        summarize(PRESETS["nin-224"]).total_parameters,
        reference_summary("AlexNet", 1, 224, 10).total_parameters,
    ):
        assert f"{figure:,}" in README


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (PROJECT / target).exists(), target
