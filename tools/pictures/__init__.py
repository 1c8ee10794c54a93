"""The pictures at the heads of lessons and of the README: each has a function that makes it."""
