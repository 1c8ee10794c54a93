"""What models learn from and are judged on: labelled scenes, latents, boxes, instructions."""
