"""The picture world: scenes as data, and everything that can be known of them exactly."""

from .edits import KINDS as EDIT_KINDS
from .edits import Edit, edit
from .language import captions, named, phrase
from .render import Render, boxes, keypoints, masks, render
from .scene import Scene, Thing, from_json, scene, to_json
from .vocabulary import SPLITS, seeds

__all__ = ["EDIT_KINDS", "SPLITS", "Edit", "Render", "Scene", "Thing", "boxes", "captions",
           "edit", "from_json", "keypoints", "masks", "named", "phrase", "render", "scene",
           "seeds", "to_json"]
