"""The views of the Feature maps page: one module a view, each with `show(scene)`."""

from __future__ import annotations

from dataclasses import dataclass

from ui.feature_subject import Picture, Subject


@dataclass(frozen=True)
class Scene:
    """What every view of the Feature maps page is about: a network's weights and a picture."""

    subject: Subject
    picture: Picture
