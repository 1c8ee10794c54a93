"""Methods of editing, measured on edits of the world whose true answer is known."""
