"""Take it with you: the network as code, test, ONNX, weights, JSON and link; and both ways back.

Choices made here:

* What is text is made at each run of the script (a millisecond) and shown as it is saved.
* ONNX is made when its button is pressed, by `python -m nin_core export` in a process of its own:
  the exporter needs torch and seconds.
* What comes in is read where it is given. A configuration goes to the sidebar at once; weights are
  checked against the sidebar's network, and become a run when the user says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import streamlit as st

from nin_core import ConfigError, NiNConfig, export
from nin_core.datasets import DATASETS
from nin_core.machine import PROJECT
from nin_core.weights import weights_file
from ui import architecture, frame, link, resources
from ui.laboratory import Subject, information

if TYPE_CHECKING:
    from nin_core.records import Run
    from nin_core.weights import ImportedWeights

MAX_WEIGHTS_MB = 64  # as the server's own limit, server.maxUploadSize
ONNX_SECONDS = 600  # after which the exporter is given up
RUNS_SECONDS = 3  # for which the list of runs stands: a slider's step does not read it anew

_UNTRAINED = "untrained"
_STANDARDISED = "standardised"
_PROBLEM = "export:problem"
_IMPORTED = "export:imported"


def show(subject: Subject) -> None:
    """Draw the view."""
    config = subject.config
    code(config, subject.batch_size)
    with_weights(config)
    address(config)
    left, right = st.columns(2, gap="large")
    with left:
        bring_configuration()
    with right:
        bring_weights(config)


# --- taking -----------------------------------------------------------------------------------


def code(config: NiNConfig, batch_size: int) -> None:
    """The network as text: PyTorch, its test, JSON."""
    stem = export.module_name(config)
    files: dict[str, tuple[str, str, str, Callable[[], str]]] = {
        "pytorch": (
            "PyTorch",
            f"{stem}.py",
            "text/x-python",
            lambda: export.pytorch_code(config),
        ),
        "pytest": (
            "Its test",
            f"test_{stem}.py",
            "text/x-python",
            lambda: export.pytest_code(config, batch_size),
        ),
        "json": (
            "JSON",
            f"{export.network_name(config)}.json",
            "application/json",
            lambda: export.to_json(config),
        ),
    }
    st.subheader("As code")
    st.caption(
        "Plain PyTorch that needs nothing from here. With its test beside it, "
        f"`pytest test_{stem}.py` measures the real network and compares every figure of the "
        "table; the JSON can be brought back below."
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        chosen = st.segmented_control(
            "Format",
            list(files),
            format_func=lambda name: files[name][0],
            default="pytorch",
            required=True,
            key="export:format",
            persist_state="session",
            label_visibility="collapsed",
            width="content",
        )
        for _, name, mime, make in files.values():
            st.download_button(
                name,
                make,
                name,
                mime,
                icon=":material/download:",
                on_click="ignore",
                width="content",
            )
    _, name, _, make = files[chosen]
    st.code(make(), language="json" if chosen == "json" else "python", height=420)


def with_weights(config: NiNConfig) -> None:
    """ONNX and safetensors: the network with the weights of one of its runs, or untrained."""
    st.subheader("With weights")
    with frame.guarded():
        runs = {str(run.id): run for run in _runs_of(config)}
        options = [*runs, _UNTRAINED]
        if st.session_state.get("export:run") not in options:
            st.session_state["export:run"] = options[0]
        with st.container(horizontal=True, vertical_alignment="bottom"):
            chosen = st.selectbox(
                "Weights of",
                options,
                format_func=lambda option: _title(runs.get(option)),
                key="export:run",
                persist_state="session",
                width=340,
            )
            run = runs.get(chosen)
            stem = export.network_name(config) + ("" if run is None else f"-run-{run.id}")
            missing = export.missing_for_onnx()
            st.download_button(
                "ONNX",
                lambda: onnx_file(config, None if run is None else run.id),
                f"{stem}.onnx",
                "application/octet-stream",
                icon=":material/download:",
                on_click="ignore",
                disabled=bool(missing),
                help=None if missing else "Takes a few seconds: PyTorch traces the network.",
                width="content",
            )
            if run is not None:
                st.download_button(
                    "safetensors",
                    lambda: weights_file(resources.store(), run.id),
                    f"{stem}.safetensors",
                    "application/octet-stream",
                    icon=":material/download:",
                    on_click="ignore",
                    width="content",
                )
    if missing:
        information(
            f"ONNX needs {' and '.join(missing)}: run `{export.ONNX_INSTALL}` and reload the page."
        )
    st.caption(
        'ONNX runs in onnxruntime and in browsers: input "images" (any number of them), output '
        '"logits". The safetensors file holds a run\'s weights for the code above.'
    )


def onnx_file(config: NiNConfig, run_id: int | None) -> bytes:
    """The ONNX file, made by the command line in another process.

    Raises:
        RuntimeError: with what that process said, if it made none.
    """
    command = [sys.executable, "-m", "nin_core", "export", "-", "--format", "onnx"]
    environment = dict(os.environ)
    if run_id is not None:
        command += ["--run", str(run_id)]
        environment["NIN_DATABASE_URL"] = resources.store().url
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "network.onnx"
        done = subprocess.run(
            [*command, "--output", str(output)],
            cwd=PROJECT,
            env=environment,
            input=export.to_json(config).encode(),
            capture_output=True,
            timeout=ONNX_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode("utf-8", "replace").strip()[-2000:])
        return output.read_bytes()


def _runs_of(config: NiNConfig) -> list[Run]:
    """The runs of this very network that have weights, newest first."""
    return [run for run in _runs() if run.has_checkpoint and run.network == config]


@st.cache_resource(show_spinner=False, ttl=RUNS_SECONDS, max_entries=1)
def _runs() -> list[Run]:
    return resources.store().list_runs()


def _title(run: Run | None) -> str:
    if run is None:
        return "the untrained network"
    accuracy = "" if run.test_accuracy is None else f" · {run.test_accuracy:.1%}"
    return f"#{run.id} {run.name}{accuracy}"


def address(config: NiNConfig) -> None:
    """A link that opens this network."""
    st.subheader("As a link")
    query = urlencode(link.to_query(config, architecture.base_preset()), safe="~")
    st.code(f"{st.context.url or '/architecture'}?{query}", language=None, wrap_lines=True)


# --- bringing back ----------------------------------------------------------------------------


def bring_configuration() -> None:
    """A configuration as JSON, uploaded or pasted, becomes the sidebar's network."""
    st.subheader("Bring a configuration")
    st.file_uploader(
        "A JSON file saved here",
        key="export:file",
        on_change=_take_file,
        max_upload_size=1,
    )
    st.text_area(
        "Or its text",
        key="export:text",
        height=90,
        placeholder='{"format": "nin-explorer/network", …',
    )
    st.button("Use this text", on_click=_take_text, icon=":material/input:")
    if problem := st.session_state.pop(_PROBLEM, None):
        good, sentence = problem
        (st.success if good else st.error)(_verbatim(sentence))


def _take_file() -> None:
    file = st.session_state.get("export:file")
    if file is not None:
        _take(file.getvalue())


def _take_text() -> None:
    _take(st.session_state.get("export:text", ""))


def _take(text: str | bytes) -> None:
    try:
        config = export.from_json(text)
    except ConfigError as error:
        sentence = str(error)
        st.session_state[_PROBLEM] = False, sentence[:1].upper() + sentence[1:]
        return
    architecture.show(config)
    blocks = f"{len(config.blocks)} block{'s' if len(config.blocks) > 1 else ''}"
    st.session_state[_PROBLEM] = True, f"The sidebar shows it now: {blocks}."


def bring_weights(config: NiNConfig) -> None:
    """A `state_dict` that fits the sidebar's network becomes a finished run."""
    st.subheader("Bring weights")
    file = st.file_uploader(
        "A state_dict of this network, as safetensors",
        key="export:weights",
        max_upload_size=MAX_WEIGHTS_MB,
        help="Under the names of the code above (block1.conv.weight), or numbered as nested "
        "nn.Sequential numbers them (0.0.weight), as in the tutorial.",
    )
    if file is None:
        return
    made_of, result = st.session_state.get(_IMPORTED, ("", None))
    if made_of != file.file_id or isinstance(result, str):
        _offer(config, file.file_id, file.name, file.getvalue())
        if made_of == file.file_id:
            st.error(_verbatim(result))
        return
    st.success(f"Run #{result} has these weights; it is being measured on the test set.")
    with st.container(horizontal=True):
        for page, label in (("training", "Open the run"), ("feature_maps", "Feature maps")):
            st.page_link(
                frame.page(f"pages/{page}.py"), label=label, query_params={"run": str(result)}
            )


def _offer(config: NiNConfig, file_id: str, name: str, data: bytes) -> None:
    """Say whether the file fits, and if so how it is to become a run.

    The button's callback reads the widgets' keys: what is typed as the button is pressed counts.
    """
    from nin_core.weights import CONVERT, PickleError

    try:
        weights = _weights(config, file_id, data)
    except PickleError as error:
        st.error(_verbatim(str(error)))
        st.code(CONVERT, language="python", wrap_lines=True)
        return
    except ConfigError as error:
        st.error(_verbatim(str(error)))
        return
    how = "numbered, taken in order" if weights.numbered else "by their names"
    st.caption(f"It fits: {weights.tensors} tensors, {how}.")
    fitting = [
        key for key, data_set in DATASETS.items() if len(data_set.class_names) <= config.num_classes
    ]
    if not fitting:
        st.error(
            f"The network has {config.num_classes} classes, and every data set has more, so "
            "it could not be measured."
        )
        return
    likely = "fashion-mnist" if config.in_channels == 1 else "cifar10"
    keys = tuple(f"export:{what}:{file_id}" for what in ("name", "dataset", "pixels"))
    st.text_input("Name of the run", Path(name).stem[:100], max_chars=100, key=keys[0])
    left, right = st.columns(2)
    with left:
        st.selectbox(
            "Trained on",
            fitting,
            index=fitting.index(likely) if likely in fitting else 0,
            format_func=lambda key: DATASETS[key].title,
            key=keys[1],
        )
    with right:
        st.selectbox(
            "Its pixels were",
            [_STANDARDISED, "0 to 1"],
            index=int(weights.numbered),  # the tutorial's are
            key=keys[2],
            help="Standardised: mean 0 and variance 1 over the training set, as the fast recipe "
            "does. 0 to 1: as the tutorial does.",
        )
    st.button(
        "Make it a run",
        type="primary",
        icon=":material/input:",
        on_click=_import,
        args=(config, weights, file_id, name, keys),
    )


@st.cache_resource(show_spinner=False, max_entries=2)
def _weights(config: NiNConfig, file_id: str, _data: bytes) -> ImportedWeights:
    from nin_core.weights import read_weights

    return read_weights(config, _data)


def _import(
    config: NiNConfig,
    weights: ImportedWeights,
    file_id: str,
    source: str,
    keys: tuple[str, str, str],
) -> None:
    from nin_core.store import StoreError
    from nin_core.weights import import_run

    name, dataset, pixels = (st.session_state[key] for key in keys)
    result: int | str
    try:
        result = import_run(
            resources.store(),
            config,
            weights,
            dataset=dataset,
            name=name,
            standardize=pixels == _STANDARDISED,
            source=source,
        )
        _runs.clear()
    except (ConfigError, StoreError) as error:
        result = str(error)
    st.session_state[_IMPORTED] = file_id, result


def _verbatim(sentence: str) -> str:
    """A sentence that Markdown shows as it is: it may quote names from a file."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|$~:<>^&])", r"\\\1", sentence)
