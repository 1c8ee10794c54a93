"""Speed of the course's code, side by side with diffusers in one run: python -m benchmarks."""
