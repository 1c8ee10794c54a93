"""The notebooks' widgets, one module each, with its JavaScript and CSS beside it.

Each shows a still picture where no widget can live (on a web page, in a deck, on paper).
"""
