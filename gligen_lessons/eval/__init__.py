"""How well the models do: one module a kind of model, and the report that has all of them."""
