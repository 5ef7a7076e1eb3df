"""Take it with you, in a browser: what is downloaded runs, what is uploaded becomes a run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from nin_core import PRESETS, export
from tests.core.test_export import PICKLES, environment, numbered, saved, trained_like
from tests.e2e.harness import Dashboard, button, upload, visit, wait_idle

NARROW = PRESETS["nin-28"].with_widths((4, 5, 6))
ADDRESS = "/architecture?view=export&net=nin-28&widths=4-5-6"


def download(page: Page, label: str, folder: Path) -> Path:
    """Press a download button and keep the file under the name it comes with."""
    found = page.get_by_test_id("stDownloadButton").get_by_role("button", name=label, exact=True)
    with page.expect_download(timeout=120_000) as pending:
        found.click()
    path = folder / pending.value.suggested_filename
    pending.value.save_as(path)
    return path


def test_the_downloaded_code_passes_the_downloaded_test(
    page: Page, server: Dashboard, tmp_path: Path
) -> None:
    visit(page, server, ADDRESS)
    code = download(page, "nin_custom.py", tmp_path)
    test = download(page, "test_nin_custom.py", tmp_path)
    assert code.read_text() == export.pytorch_code(NARROW)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test.name],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "8 passed" in done.stdout


def test_a_downloaded_configuration_comes_back(
    page: Page, server: Dashboard, tmp_path: Path
) -> None:
    visit(page, server, ADDRESS)
    saved_file = download(page, "nin-custom.json", tmp_path)
    visit(page, server, "/architecture?view=export&net=nin-224")
    upload(page, "A JSON file saved here", saved_file.name, saved_file.read_bytes())
    expect(page.get_by_text("The sidebar shows it now")).to_be_visible()
    expect(page).to_have_url(re.compile(r"blocks=4-4-4_k5s1p2"))


def test_the_link_opens_the_same_network(page: Page, server: Dashboard) -> None:
    visit(page, server, ADDRESS)
    url = page.get_by_test_id("stCode").filter(has_text="http://").inner_text().strip()
    assert url.startswith(server.url)
    page.goto(url)
    wait_idle(page)
    parameters = page.locator(".nin-head > div").filter(has_text="Parameters")
    from nin_core import summarize

    expect(parameters).to_contain_text(f"{summarize(NARROW).total_parameters:,}")


def test_onnx_is_made_when_it_is_asked_for(page: Page, server: Dashboard, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    visit(page, server, ADDRESS)
    path = download(page, "ONNX", tmp_path)
    assert path.name == "nin-custom.onnx"
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert images.shape[1:] == [1, 28, 28]


def test_uploaded_weights_are_a_run_with_feature_maps(page: Page, server: Dashboard) -> None:
    visit(page, server, ADDRESS)
    data = saved(numbered(trained_like(NARROW)).state_dict())
    label = "A state_dict of this network, as safetensors"
    kind = "application/octet-stream"
    upload(page, label, "laptop.pt", PICKLES["torch.save"], kind)
    expect(page.get_by_text("a pickle can run any program")).to_be_visible()
    upload(page, label, "laptop.safetensors", data, kind)
    expect(page.get_by_text("It fits:")).to_be_visible()
    # The name is typed and the button pressed at once: what is typed counts.
    page.get_by_role("textbox", name="Name of the run").fill("from my laptop")
    button(page, "Make it a run").click()
    expect(page.get_by_text(re.compile(r"Run #\d+ has these weights"))).to_be_visible()
    wait_idle(page)
    page.get_by_test_id("stMain").get_by_role("link", name="Open the run").click()
    expect(page.get_by_role("heading", name=re.compile(r"#\d+ from my laptop"))).to_be_visible()
    expect(page.get_by_text("weights imported, not trained here")).to_be_visible()
    expect(
        page.get_by_text(re.compile(r"all 10,000 test images|all \S+ test images"))
    ).to_be_visible(timeout=120_000)
    wait_idle(page)
    page.get_by_role("link", name="See its feature maps").click()
    expect(page.get_by_text("with imported weights")).to_be_visible()
    wait_idle(page)
