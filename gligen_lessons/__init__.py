"""The library behind the course "From noise to grounded images": one module per paper."""

__version__ = "0.1.0"
