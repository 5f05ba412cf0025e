"""The notebooks run from top to bottom, at a small size, and what is committed of them can be read."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import lightning_synther

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
pictures = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where the notebooks of one test run keep what they make, as a reader's do."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem == "1_dataset" else pytest.mark.notebooks)
        for path in NOTEBOOKS
    ],
)
def test_it_runs_offline_without_a_word_on_standard_error(path, shared, monkeypatch):
    monkeypatch.setenv("SYNTHER_QUICK", "1")
    monkeypatch.setenv("SYNTHER_NOTEBOOKS", str(shared))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None) if cell.cell_type == "markdown" else cell.update(outputs=[])
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_there_are_the_five_that_the_documentation_names():
    assert [path.stem for path in NOTEBOOKS] == [
        "1_dataset",
        "2_latents",
        "3_diffusion",
        "4_agents",
        "5_your_own",
    ]
    page = (NOTEBOOKS[0].parents[1] / "docs" / "notebooks.md").read_text()
    assert all(path.stem in page for path in NOTEBOOKS)


@pictures
def test_what_is_committed_can_be_read_without_running_it(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000, "a web viewer gives up on large files"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    images = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) >= 3
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)


@pictures
def test_it_shows_no_path_of_the_machine_it_ran_on(path):
    text = "\n".join(
        json.dumps(part)
        for cell in nbformat.read(path, as_version=4).cells
        for part in [
            cell.source,
            *(
                {k: v for k, v in o.get("data", {}).items() if "image" not in k} or o.get("text")
                for o in cell.get("outputs", [])
            ),
        ]
    )
    assert not re.findall(r"(?<![\w.:/])/(?:root|home|tmp|work|usr|var|Users)/\S*", text)


@pictures
def test_it_opens_with_what_one_learns_and_uses_the_public_api_only(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    assert "**You learn**" in notebook.cells[0].source
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert not re.findall(r"lightning_synther\.\w+", code), "only `from lightning_synther import ...`"
    for names in re.findall(r"from lightning_synther import \(?([^)]*?)(?:\)|\n(?!\s))", code):
        found = {name.strip() for name in names.split(",")} - {""}
        assert found <= set(lightning_synther.__all__)
