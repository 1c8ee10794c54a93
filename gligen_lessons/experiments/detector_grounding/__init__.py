"""Detector-assisted grounding: DETR sees what is there, GLIGEN paints beside it (lesson 10)."""
