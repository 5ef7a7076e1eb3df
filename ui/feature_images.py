"""Which picture the Feature maps page looks at: of the test set, uploaded, or drawn.

Choices made here:

* The test set is browsed as a list: of all classes or one, all of it, or only what this network
  gets wrong or is least sure of. The picture at hand keeps its place when the list changes.
* What the network gets wrong takes its answers to thousands of images: the server's background
  thread works them out (`channel_work`), and meanwhile the page goes on with the picture it has.
  They are the answers of the weights at that moment; a run that trains on is asked anew on request.
* `?picture=fashion-mnist-12` names the picture, so that a link shows the same (`?image=` is the
  network's image size). An upload or a drawing is in no link; `?picture=upload` opens its place.
* An upload is kept for the session, since the field for it forgets it when it leaves the page.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from nin_core import evaluation
from nin_core.datasets import DATASETS, DatasetInfo
from nin_core.images import (
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    ImageError,
    Pixels,
    has_bright_background,
    read_image,
)
from ui import background, image_figures, resources
from ui.components import draw, gallery
from ui.feature_subject import FALLBACK, Picture, Subject, keep_valid, picture_of
from ui.feature_views import channel_work

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from streamlit.delta_generator import DeltaGenerator

    from nin_core.data import Dataset
    from ui.feature_views.channel_work import ImageSample

    Indices = NDArray[np.int64]

SOURCES = {"test": "Test images", "upload": "Upload", "draw": "Draw"}
LINK = "picture"
EVERY_CLASS = -1
PAGE = 12  # pictures in the gallery
UNSURE = 100  # of the images that the network is least sure of
UPLOAD_LABEL = f"{FORMATS}, at most {MAX_BYTES // 2**20} MB and {MAX_PIXELS // 10**6} megapixels"
GREYS = ("#ffffff", "#a0a0a0", "#505050")
COLORS = ("#1a1a1a", "#d9302c", "#f0a020", "#2f9e44", "#2b6fd1", "#7a4a21", "#9a9a9a")

_SOURCE = "fm:source"
_LINK = "fm:image-link"  # what this page wrote into the URL last
_INDEX = "fm:index"  # (data set, number) of the test image at hand
_CLASS, _LIST, _NUMBER = "fm:class", "fm:list", "fm:number"
_LISTED = "fm:listed"  # the list that the number counts in
_ASKED = "fm:asked"  # the weights whose answers make the lists
_MANY = "fm:asked-all"  # whether all test images are looked at, however long it takes
_UPLOAD = "fm:uploaded"

_LISTS = {"all": "All", "wrong": "Mistakes", "unsure": "Least sure"}


def choose_picture(subject: Subject) -> tuple[Picture, DeltaGenerator]:
    """Let the user pick a test image, upload a picture or draw one.

    Returns:
        The picture, and the place for what the network says to it: above the lists, which change
        their height, and below the canvas, which must not move under the hand.
    """
    keep_valid(_SOURCE, SOURCES)
    source = st.segmented_control(
        "Picture",
        list(SOURCES),
        key=_SOURCE,
        format_func=SOURCES.get,
        required=True,
        persist_state="session",
        width="stretch",
    )
    resources.load_torch()
    if source == "draw":
        _write_link(source)
        return _drawn(subject), st.container()
    place = st.container()
    if source == "upload":
        _write_link(source)
        return _uploaded(subject), place
    picture = _test_image(subject)
    _write_link("-".join(map(str, picture.key)))
    return picture, place


# --- the link ---------------------------------------------------------------------------------


def take_link() -> None:
    """Choose the picture that the URL names, if this page did not write it there itself.

    To be called before anything else on the page: the picture's data set is a choice too.
    """
    linked = st.query_params.get(LINK)
    if linked is None or linked == st.session_state.get(_LINK):
        return
    st.session_state[_LINK] = linked
    name, _, number = linked.rpartition("-")
    if linked in SOURCES:
        st.session_state[_SOURCE] = linked
    elif name in DATASETS and re.fullmatch(r"\d{1,7}", number):
        info = DATASETS[name]
        if int(number) >= info.test_size:
            st.info(
                f"{info.title} has no test image {int(number):,}; the last is "
                f"{info.test_size - 1:,}."
            )
            return
        st.session_state[_SOURCE] = "test"
        st.session_state["fm:data"] = name  # for the untrained network; a run has its own
        st.session_state[_INDEX] = (name, int(number))
        st.session_state["fm:linked"] = True
    else:
        st.info(f"The link's picture {linked[:30]!r} is not known; fashion-mnist-12 would work.")


def _write_link(text: str) -> None:
    st.session_state[_LINK] = text
    if st.query_params.get(LINK) != text:
        st.query_params[LINK] = text


# --- test images ------------------------------------------------------------------------------


def test_image(subject: Subject, info: DatasetInfo, index: int) -> Picture:
    """An image of a test set as the subject's network gets it."""
    dataset = resources.dataset(info.name)
    known = info is subject.data and subject.class_names == info.class_names
    return picture_of(
        subject,
        dataset.test_images[index].numpy(),
        key=(info.name, index),
        title=f"{info.title}, test image {index:,} of {len(dataset.test_labels):,}",
        truth=info.class_names[int(dataset.test_labels[index])] if known else None,
    )


def _test_image(subject: Subject) -> Picture:
    from nin_core.data import find_dataset

    info = subject.data
    if not find_dataset(info.name).available:
        st.info(
            f"{info.title} is not on this computer (any more), so these are generated shapes, "
            "which this network was not trained on; uploading a picture works too."
        )
        info = DATASETS[FALLBACK]
    with st.spinner(f"Loading {info.title} …"):
        dataset = resources.dataset(info.name)
    labels = dataset.test_labels.numpy()
    at_hand = _at_hand(info, labels)
    label, which = _choose_list(info)
    answers = None if which == "all" else _answers(subject, info)
    if which == "all" or answers is not None:
        listed = _listed(labels, label, which, answers)
        if len(listed):
            key = (info.name, label, which, None if answers is None else answers.key)
            at_hand = _choose_in_list(info, dataset, listed, at_hand, key, answers)
        else:
            whose = "" if label == EVERY_CLASS else f" of {info.class_names[label]}"
            st.info(
                f"None{whose}: the network gets no such image wrong."
                if which == "wrong"
                else f"None{whose}: its answers are not numbers."
            )
    st.session_state[_INDEX] = (info.name, at_hand)
    return test_image(subject, info, at_hand)


def _at_hand(info: DatasetInfo, labels: NDArray[np.int64]) -> int:
    """The test image that is looked at; at first, and in another set, the first of a class."""
    name, index = st.session_state.get(_INDEX, (None, 0))
    if st.session_state.pop("fm:linked", False):
        if name == info.name:
            st.session_state[_CLASS], st.session_state[_LIST] = int(labels[index]), "all"
            st.session_state.pop(_LISTED, None)
        else:
            st.info(
                f"The link's picture is of {DATASETS[name].title}; shown are those of {info.title}."
            )
    if name == info.name:
        return index
    first = st.session_state.get(_CLASS, 0)
    members = np.flatnonzero(labels == first)
    return int(members[0]) if len(members) else 0


def _choose_list(info: DatasetInfo) -> tuple[int, str]:
    """The class (or every) and the list."""
    count = len(info.class_names)
    if st.session_state.get(_CLASS) not in range(EVERY_CLASS, count):
        st.session_state[_CLASS] = 0
    keep_valid(_LIST, _LISTS)
    with st.container(horizontal=True, wrap=False):
        label = st.selectbox(
            "Class",
            range(EVERY_CLASS, count),
            key=_CLASS,
            format_func=lambda i: "All classes" if i == EVERY_CLASS else info.class_names[i],
            persist_state="session",
        )
        which = st.selectbox(
            "Show",
            list(_LISTS),
            key=_LIST,
            format_func=lambda name: _LISTS[name],
            persist_state="session",
            help="All, in the order of the test set; or those whose class this network gets "
            f"wrong; or the {UNSURE} whose answer it is least sure of, the least sure first.",
        )
    return label, which


def _choose_in_list(
    info: DatasetInfo,
    dataset: Dataset,
    listed: Indices,
    at_hand: int,
    key: tuple[object, ...],
    answers: Answers | None,
) -> int:
    """The test image that is chosen in a list, whose `key` tells it from others."""
    last = len(listed) - 1
    place = int(np.clip(st.session_state.get(_NUMBER, 0), 0, last))
    if st.session_state.get(_LISTED) != key:
        st.session_state[_LISTED] = key
        found = np.flatnonzero(listed == at_hand)
        place = int(found[0]) if len(found) else 0
    st.session_state[_NUMBER] = place
    first = place // PAGE * PAGE
    page = listed[first : first + PAGE]

    def take(number: int) -> None:
        st.session_state[_NUMBER] = first + number

    pictures = dataset.test_images.numpy()[page]
    pictures = pictures[:, 0] if pictures.shape[1] == 1 else pictures.transpose(0, 2, 3, 1)
    gallery(
        np.ascontiguousarray(pictures),
        labels=[_tip(info, dataset, int(index), answers) for index in page],
        key="fm-gallery",
        selected=place - first,
        on_click=take,
    )
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="bottom", wrap=False):
        number = st.number_input(
            f"Number (0–{last})", 0, last, key=_NUMBER, persist_state="session"
        )
        for name, step in (("Next", 1), ("Random", None)):
            st.button(name, on_click=_move, args=(len(listed), step))
    return int(listed[number])


def _move(count: int, step: int | None) -> None:
    """To a neighbour in the list, around its ends; without a step to any other."""
    if step is None:
        step = int(np.random.default_rng().integers(1, count)) if count > 1 else 0
    st.session_state[_NUMBER] = (st.session_state[_NUMBER] + step) % count


def _tip(info: DatasetInfo, dataset: Dataset, index: int, answers: Answers | None) -> str:
    """ "Coat, test image 12, taken for Pullover"."""
    label = int(dataset.test_labels[index])
    said = f"{info.class_names[label]}, test image {index:,}"
    predicted = None if answers is None else answers.predicted(index)
    if predicted is None or predicted == label:
        return said
    return f"{said}, taken for {info.class_names[predicted]}"


# --- what the network says to them ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Answers:
    """The network's answers to test images.

    Attributes:
        key: tells them from others.
        images: which, all or a sample.
        logits: ``[N, classes]`` of these.
    """

    key: object
    images: ImageSample
    logits: NDArray[np.float32]

    def predicted(self, index: int) -> int | None:
        """The class that a test image is taken for; None if it is not among these."""
        place = int(np.searchsorted(self.images.numbers, index))
        if place == len(self.images) or self.images.numbers[place] != index:
            return None
        return int(self.logits[place].argmax())


def _listed(labels: Indices, label: int, which: str, answers: Answers | None) -> Indices:
    """The test images of a list, in its order."""
    if answers is None:
        found = np.arange(len(labels))
    else:
        known = answers.images.labels.numpy()
        places = (
            evaluation.wrong_images(answers.logits, known)
            if which == "wrong"
            else evaluation.by_confidence(answers.logits)
        )
        found = answers.images.numbers[places]
    if label != EVERY_CLASS:
        found = found[labels[found] == label]
    return found[:UNSURE] if which == "unsure" else found


def _answers(subject: Subject, info: DatasetInfo) -> Answers | None:
    """The answers that a list is made of; None, and what is said instead, until they are there."""
    if subject.class_names != info.class_names:
        st.caption(
            f"This network's classes are not those of {info.title}, so none of its answers is "
            "right or wrong."
        )
        return None
    asked = _steady(subject)
    sizes, affordable = channel_work.sample_sizes(info, asked.network)
    size = sizes[-1] if st.session_state.get(_MANY) == asked.network else affordable
    images = channel_work.sample(info, size)
    name, look = channel_work.predictions(asked, images)
    if look.result is None:
        background.wait(name, look, f"Asking it about {size:,} test images")
        return None
    if size < sizes[-1]:
        seconds = channel_work.forward_seconds(asked.network, sizes[-1])
        st.caption(f"Among {size:,} of the {sizes[-1]:,} test images.")
        st.button(
            f"Ask about all (about {math.ceil(seconds / 60)} min)",
            on_click=_ask_all,
            args=(asked,),
        )
    return Answers(name, images, look.result)


def _ask_all(subject: Subject) -> None:
    st.session_state[_MANY] = subject.network


def _steady(subject: Subject) -> Subject:
    """The weights that are asked: while a run trains, those that its list was begun with."""
    kept: Subject | None = st.session_state.get(_ASKED)
    if kept is None or kept.key[:3] != subject.key[:3]:
        st.session_state[_ASKED] = kept = subject
    elif kept.key != subject.key:
        st.caption("The run has trained on since it was asked.")
        st.button("Ask it anew", icon=":material/refresh:", on_click=_forget_asked)
    return kept


def _forget_asked() -> None:
    st.session_state.pop(_ASKED, None)


# --- an upload --------------------------------------------------------------------------------


def _uploaded(subject: Subject) -> Picture:
    file = st.file_uploader(
        UPLOAD_LABEL,
        type=["png", "jpg", "jpeg", "webp"],
        key="fm:file",
        max_upload_size=MAX_BYTES // 2**20,
        on_change=_keep_upload,
    )
    if file is not None:
        st.session_state[_UPLOAD] = (file.name, file.getvalue())
    if _UPLOAD not in st.session_state:
        st.info("Choose a picture of one thing in the middle, best on a plain background.")
        st.stop()
    name, data = st.session_state[_UPLOAD]
    if file is None:
        st.caption(f"{name}, uploaded before.")
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels = _decoded(digest, data)
    except ImageError as error:
        st.error(str(error), icon=":material/broken_image:")
        st.stop()
    info = subject.data
    suggested = info.channels == 1 and has_bright_background(pixels)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        square = "crop"
        if pixels.shape[1] != pixels.shape[2]:
            keep_valid("fm:square", ["crop", "fit"])
            square = st.segmented_control(
                "Make it square",
                ["crop", "fit"],
                key="fm:square",
                format_func={"crop": "Crop", "fit": "Fit"}.get,
                required=True,
                persist_state="session",
                help="Crop: its middle, as large as can be. Fit: all of it, on the colour of its "
                "edge.",
            )
        invert = st.toggle("Invert", value=suggested, key=f"fm:invert:{digest[:16]}")
    if suggested:
        st.caption(
            f"Its background is bright, and {info.title} shows bright things on black, so "
            f"inverting is {'suggested and on' if invert else 'suggested, but off'}."
        )
    picture = picture_of(
        subject,
        pixels,
        key=(digest, info.name, invert, square),
        title="Your picture",
        invert=invert,
        square=square,
    )
    st.html(image_figures.steps(picture.steps, picture.shown, square=square, inverted=invert))
    return picture


def _keep_upload() -> None:
    """Let go of the upload that is taken away; not called when the field leaves the page."""
    st.session_state.pop(_UPLOAD, None)


@st.cache_resource(show_spinner=False, max_entries=4)
def _decoded(digest: str, _data: bytes) -> Pixels:
    return read_image(_data)


# --- a drawing --------------------------------------------------------------------------------


def _drawn(subject: Subject) -> Picture:
    info = subject.data
    grey = info.channels == 1
    data = draw(
        key="fm-draw-grey" if grey else "fm-draw-colour",
        side=info.side,
        colors=GREYS if grey else COLORS,
        paper="#000000" if grey else "#ffffff",
    )
    if data is None:
        st.info(
            "Draw with the mouse or a finger, or with the arrow keys and Space; the network "
            "answers after each stroke."
        )
        st.stop()
    digest = hashlib.sha256(data).hexdigest()
    try:
        pixels = _decoded(digest, data)
    except ImageError as error:
        st.error(str(error), icon=":material/broken_image:")
        st.stop()
    return picture_of(subject, pixels, key=(digest, info.name), title="Your drawing")
