"""Feature maps: what every layer makes of one picture, and how the class maps become the answer."""

import streamlit as st

from ui import feature_images, feature_maps, feature_subject, frame, views
from ui.feature_views import Scene
from ui.feature_views.choices import VIEW

config = frame.begin()
st.title("Feature maps")
st.caption(
    "Every layer turns the maps it is given into new ones, one per channel. Follow one picture "
    "from the first convolution to the class maps that decide."
)
left, right = st.columns([3, 7], gap="large")
with frame.guarded(recovers=True):
    with left:
        feature_images.take_link()
        subject = feature_subject.choose_network(config)
        picture, place = feature_images.choose_picture(subject)
        scene = Scene(subject, picture)
        with place:
            feature_maps.show_answer(scene)
    with right:
        views.choose(feature_maps.VIEWS, VIEW)(scene)
