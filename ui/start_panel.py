"""The panel in which a run is made ready: recipe, data, a few numbers, what it will cost, Start.

Choices made here:

* What the user changed is kept apart from what the recipe says, so that another recipe or another
  network brings its own values and a change is shown as one.
* The plan is checked and its cost predicted before Start can be pressed; a plan that cannot be run
  disables Start and says why in one sentence.
* What is typed as Start is pressed counts: Streamlit calls a button with what it was drawn with, so
  the plan that is started is made of the fields as they are then.
* The URL follows the draft (`draft_link`), so that a reload, or a teacher's link, fills it in.
* The panel is a fragment: its widgets do not redraw the open run beside it.
* No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from nin_core import (
    ConfigError,
    NiNConfig,
    admission,
    estimate,
    jobs,
    machine,
    processes,
    summarize,
    tuning,
)
from nin_core.data import DatasetStatus, find_dataset
from nin_core.datasets import DATASETS
from nin_core.measure import PROCESS_BYTES
from nin_core.recipes import RECIPES, TrainConfig, check_batches
from nin_core.store import default_name
from nin_core.tables import MAX_NAME
from ui import (
    address,
    architecture,
    draft_link,
    fan_panel,
    frame,
    numbers,
    preflight_panel,
    probe_panel,
    resources,
    run_choice,
    run_points,
)

if TYPE_CHECKING:
    from nin_core.records import Run

GENERATED = "shapes"  # the data set that is always there
_DRAWN = "tr:draft:drawn"  # what the fields were drawn with
_PROBLEMS = "tr:draft:problems"  # what the link says that cannot be, and the draft it left

# The numbers of a recipe that the panel shows, with their names for people.
_NUMBERS = {"epochs": "epochs", "learning_rate": "learning rate", "batch_size": "batch size"}


@dataclass(frozen=True)
class Plan:
    """A run that could be started: the network, how it is trained, on what, under which name."""

    network: NiNConfig
    train: TrainConfig
    dataset: str
    name: str | None

    @property
    def configuration(self) -> fan_panel.Planned:
        """All but the name."""
        return self.network, self.train, self.dataset


@st.fragment
def draw(config: NiNConfig) -> None:
    """Draw the panel for `config`, the sidebar's network."""
    with frame.guarded():
        _draw(config)


def _draw(config: NiNConfig) -> None:
    _take_link()
    draft = st.session_state[run_choice.DRAFT]
    address.hold(draft_link.KEYS, draft_link.to_query(draft))
    st.caption(_network_line(config))
    _recipe()
    status = _dataset()
    plan, problem = _numbers(config)
    if plan is not None:
        problem = _problem(plan)
        _cost(plan)
    if problem:
        st.error(problem)
    run_choice.once_button(
        "start",
        "Start",
        _start,
        type="primary",
        icon=":material/play_arrow:",
        width="stretch",
        disabled=problem is not None,
    )
    if plan is not None and problem is None and status.available:
        preflight_panel.draw(plan.network, plan.train, plan.dataset)
        fan_panel.offer(plan.configuration, lambda: _plan_now().configuration)
    if started := st.session_state.pop("tr:started", None):
        st.toast(f"Run #{started} has been put in the queue.")  # on a phone it is far below
        st.rerun()  # the open run beside the panel is another one now
    run_choice.show_notice("start", said=problem)


def _start() -> None:
    run_id = run_choice.attempt("start", _start_run)
    if run_id is not None:
        run_choice.open_run(run_id)
        st.session_state[run_choice.DRAFT].pop("name", None)
        st.session_state["tr:started"] = run_id


def _start_run() -> int:
    plan = _plan_now()
    return jobs.start_run(resources.store(), *plan.configuration, plan.name)


def _plan_now() -> Plan:
    """What the fields say at this moment, for a button's callback.

    Raises:
        ConfigError: if it cannot be.
    """
    for field, value in st.session_state[_DRAWN].items():
        # Callbacks come in any order: this one's may be before that of the field.
        if st.session_state.get(_key(field), value) != value:
            _changed(field)
    return _plan(architecture.current())


# --- the draft --------------------------------------------------------------------------------


def _take_link() -> None:
    """At the start of a session, have the draft be the link's; say what of it cannot be."""
    if run_choice.DRAFT not in st.session_state:
        draft, problems = draft_link.from_query(st.query_params)
        st.session_state[run_choice.DRAFT] = draft
        st.session_state[_PROBLEMS] = problems, dict(draft)
    problems, linked = st.session_state.get(_PROBLEMS, ((), {}))
    if st.session_state[run_choice.DRAFT] == linked:  # nothing has been chosen since
        for problem in problems:
            st.warning(f"The link's {run_points.plain(problem)}", icon=":material/link_off:")


def _bound(field: str, value: Any) -> dict[str, Any]:
    """Arguments that have a widget show `value` and write what is chosen into the draft."""
    key = _key(field)
    if st.session_state.get(key) != value or key not in st.session_state:
        st.session_state[key] = value
    st.session_state.setdefault(_DRAWN, {})[field] = value
    return {"key": key, "on_change": _changed, "args": (field,)}


def _key(field: str) -> str:
    return f"tr:{field}"


def _changed(field: str) -> None:
    draft = st.session_state[run_choice.DRAFT]
    draft[field] = st.session_state[_key(field)]
    if field == "recipe":  # another recipe comes with its own numbers
        _forget_changes()


def _forget_changes() -> None:
    for field in _NUMBERS:
        st.session_state[run_choice.DRAFT].pop(field, None)


def _use_generated() -> None:
    st.session_state[run_choice.DRAFT]["dataset"] = GENERATED


# --- drawing ----------------------------------------------------------------------------------


def _network_line(config: NiNConfig) -> str:
    parameters = numbers.short(summarize(config).total_parameters)
    return f"Trains {run_points.network_name(config)}, {parameters} parameters."


def _recipe() -> None:
    recipe = st.segmented_control(
        "Recipe",
        list(RECIPES),
        format_func=lambda name: RECIPES[name].title,
        required=True,
        width="stretch",
        **_bound("recipe", st.session_state[run_choice.DRAFT]["recipe"]),
    )
    st.caption(RECIPES[recipe].description)


def _dataset() -> DatasetStatus:
    name = st.selectbox(
        "Data set",
        list(DATASETS),
        format_func=_dataset_title,
        **_bound("dataset", st.session_state[run_choice.DRAFT]["dataset"]),
    )
    status = find_dataset(name)
    if not status.available:
        st.info(status.sentence, icon=":material/download:")
        st.button(
            f"Take {DATASETS[GENERATED].title} instead",
            on_click=_use_generated,
            help="Ten classes of simple shapes that are drawn on the spot; a network learns "
            "them as it learns photographs.",
        )
    elif DATASETS[name].generated:
        st.caption(status.sentence)
    return status


def _dataset_title(name: str) -> str:
    info = DATASETS[name]
    if find_dataset(name).available:
        return info.title
    return f"{info.title} (to download, {info.download_bytes / 1e6:.0f} MB)"


def _usual(config: NiNConfig) -> TrainConfig:
    """What the draft's recipe takes for a network where nothing is changed."""
    return RECIPES[st.session_state[run_choice.DRAFT]["recipe"]].configure(config, **_facts())


def _facts() -> dict[str, Any]:
    data = DATASETS[st.session_state[run_choice.DRAFT]["dataset"]]
    return {"train_size": data.train_size, "mirrors": data.mirrors}


def _changes(usual: TrainConfig) -> dict[str, Any]:
    """The draft's numbers that are not the recipe's."""
    draft = st.session_state[run_choice.DRAFT]
    return {
        field: draft[field]
        for field in _NUMBERS
        if field in draft and draft[field] != getattr(usual, field)
    }


def _plan(config: NiNConfig) -> Plan:
    """The plan that the draft makes with a network.

    Raises:
        ConfigError: for a number that cannot be.
    """
    draft = st.session_state[run_choice.DRAFT]
    own = {"subset": draft.get("subset"), "seed": draft["seed"]}
    changes = _changes(_usual(config))
    train = RECIPES[draft["recipe"]].configure(config, **_facts(), **changes, **own)
    return Plan(config, train, draft["dataset"], draft.get("name") or None)


def _numbers(config: NiNConfig) -> tuple[Plan | None, str | None]:
    """The number fields and the name; the plan they make, or why they make none.

    They take any number: one that a browser refuses would stand there while another one counts.
    """
    draft = st.session_state[run_choice.DRAFT]
    usual = _usual(config)
    values = {field: draft.get(field, getattr(usual, field)) for field in _NUMBERS}
    with st.container(horizontal=True, gap="small"):
        st.number_input("Epochs", step=1, **_bound("epochs", values["epochs"]))
        st.number_input(
            "Learning rate",
            step=0.01,
            format="%g",
            **_bound("learning_rate", values["learning_rate"]),
        )
    with st.container(horizontal=True, gap="small"):
        st.number_input("Batch size", step=1, **_bound("batch_size", values["batch_size"]))
        st.number_input(
            "Training images",
            value=None,
            step=1000,
            placeholder="all",
            **_bound("subset", draft.get("subset")),
        )
    plan, problem = None, None
    try:
        plan = _plan(config)
    except ConfigError as error:
        problem = run_choice.sentence(error)
    with st.container(horizontal=True, gap="small"):
        st.number_input("Seed", step=1, **_bound("seed", draft["seed"]))
        st.text_input(
            "Name (optional)",
            max_chars=MAX_NAME,
            placeholder=default_name(config, plan.train) if plan else "",
            **_bound("name", draft.get("name", "")),
        )
    if changes := _changes(usual):
        said = ", ".join(f"{_NUMBERS[field]} {getattr(usual, field):g}" for field in changes)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Changed from the recipe's {said}.", width="stretch")
            st.button("Reset", type="tertiary", on_click=_forget_changes)
    return plan, problem


# --- what it will cost, and whether it can be -------------------------------------------------


def _cost(plan: Plan) -> None:
    runs = resources.store().list_runs(states=("finished", "stopped"), limit=jobs.TIMED_RUNS)
    seconds, basis = predicted_seconds(plan, runs)
    memory = admission.predict_bytes(plan.network, plan.train, plan.dataset)
    data = DATASETS[plan.dataset]
    steps = plan.train.total_epochs * estimate.steps_per_epoch(plan.train, data.train_size)
    st.caption(
        f"{steps:,} step{'s' * (steps != 1)}: about **{numbers.duration(seconds)}** ({basis}) and "
        f"**{numbers.size(memory)}**, beside {numbers.size(PROCESS_BYTES)} for PyTorch itself."
    )
    probe_panel.draw(plan.network, plan.train, plan.dataset)
    active = resources.store().list_runs(states=("queued", "running"))
    active = [run for run in active if run.worker_host in (None, processes.this_host())]
    if len(active) >= jobs.slots_here():
        many = f"{len(active)} runs are" if len(active) > 1 else "1 run is"
        st.caption(f"{many} active, so this one waits for its turn.")


def predicted_seconds(plan: Plan, runs: list[Run]) -> tuple[float, str]:
    """Seconds the plan will take, and, in words, what is known of this computer's speed.

    Best known by runs of this very network, then by steps that were timed, then by other networks.
    """
    timed = [
        (run.network, run.examples_per_second)
        for run in runs
        if run.network is not None and run.examples_per_second
    ]
    alike = [(network, speed) for network, speed in timed if network == plan.network]
    found = None if machine.accelerators() else tuning.known(plan.network, plan.train.batch_size)
    timed = alike or timed
    basis = "a first guess, no run has been timed here yet"
    if found is not None and not alike:
        timed = [(plan.network, found.images_per_second)]
        basis = "by steps that were timed here"
    elif timed:
        many = len(timed) > 1
        basis = f"by {len(timed)} earlier run{'s' * many}"
        if not alike:
            basis += f" of {'other networks' if many else 'another network'}, so only roughly"
    data = DATASETS[plan.dataset]
    seconds = estimate.predict_seconds(
        plan.network,
        plan.train,
        train_size=data.train_size,
        test_size=data.test_size,
        speed=estimate.measured_speed(timed) or 1.0,
    )
    return seconds, basis


def _problem(plan: Plan) -> str | None:
    """Why the plan cannot be run, in one sentence; None if it can."""
    try:
        jobs.check_dataset(plan.network, plan.dataset)
        check_batches(plan.network, plan.train, DATASETS[plan.dataset].train_size)
    except ConfigError as error:
        return run_choice.sentence(error)
    total = total_bytes()
    return None if total is None else memory_problem(plan, total)


def memory_problem(plan: Plan, total: int) -> str | None:
    """What to change if the run needs more than `total` bytes; None if it fits."""
    problem = admission.misfit(plan.network, plan.train, plan.dataset, total)
    return None if problem is None else run_choice.sentence(problem)


def total_bytes() -> int | None:
    """All memory this computer has for us; None where the system does not tell."""
    found = machine.memory()
    return None if found is None else found.total
