"""The order of the library's modules: the one place from which the tests read who may import whom.

A module imports only from the layers below its own; in an ordered layer also from the modules that
stand before it. A package (`world`, `recipes`, `checks`) counts as one module.
"""

import ast
from pathlib import Path

PACKAGE = "gligen_lessons"

# Per layer: whether a module may also import those before it, and the modules, in their order.
LAYERS = (
    (True, "boxes images schedule curriculum reading device world show course_map"),
    (True, "nets files state_dicts ema muon fit metrics referee attribute_referee"),
    (True, "ddpm ddim dpm_solver unet vae bpe clip guidance latent resnet transformer detr gligen "
           "grounded inpaint grounding_inputs grounding_maps reground diffedit sdedit flexit "
           "prompt_alignment prompt2prompt null_text pix2pix odise"),
    (True, "arguments models interop weights datasets eval recipes evaluate shipping "
           "ladder train experiments checks widgets student slides conditions generate edit cli"),
)

# Third-party modules and the only modules of the library that may import them, at any depth.
KEPT_TO = {"matplotlib": {"show", "course_map", "widgets"}, "IPython": {"show", "widgets"},
           "ipywidgets": {"widgets"}, "anywidget": {"widgets"},
           "accelerate": {"fit"}}

# Imported inside a function only, so that the library loads without them.
INSIDE = {"accelerate", "diffusers", "transformers", "matplotlib", "pycocotools", "IPython"}

# Names with several homes on purpose, each module's word for its own thing; None: anywhere.
SHARED_NAMES = {
    "main": None, "shipped": {"evaluate.py", "experiments/__init__.py"},
    "trained": {"experiments/ablations.py", "experiments/helpers.py", "experiments/optimizers.py"},
    "run": {"cli.py", "experiments/ablations.py", "experiments/detector_grounding/run.py",
            "experiments/editing/run.py"},
    "load": {"files.py", "weights.py"}, "sample": {"ddpm.py", "ddim.py"},
    "with_defaults": {"unet.py", "vae.py"},
    "MidBlock": {"unet.py", "vae.py"},
    "labelled": {"recipes/guidance.py", "datasets/labelled.py"},  # a recipe bears its model's name
}


def module_of(path: Path, library: Path) -> str:
    """The module, or the package of one layer, to which a library file belongs."""
    return path.relative_to(library).with_suffix("").parts[0]


def allowed(layers=LAYERS) -> dict[str, set[str]]:
    """For each module the modules that it may import."""
    below, table = set(), {}
    for ordered, names in layers:
        modules = names.split()
        for i, module in enumerate(modules):
            table[module] = below | set(modules[:i] if ordered else ())
        below = below | set(modules)
    return table


def imports(tree: ast.Module, module: str = "") -> list[tuple[str, int, bool]]:
    """Every import in a file, also inside functions: (dotted name, line, at the top?).

    `from gligen_lessons import ddim` counts as gligen_lessons.ddim; a relative import is taken
    from `module`, the dotted name of the package that the file lies in.
    """
    inside = {id(n) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
              for n in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, node.lineno, id(node) not in inside) for a in node.names]
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[:len(module.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            bare = base == PACKAGE                     # the names are modules, or __version__
            found += [(f"{base}.{a.name}" if bare else base, node.lineno, id(node) not in inside)
                      for a in node.names]
    return found


def violations(path: Path, library: Path) -> list[str]:
    """What one library file imports against the rules; an empty list when all is well."""
    module, table = module_of(path, library), allowed()
    if module == "__init__":
        table[module] = set()
    if module not in table:
        return [f"{path.name}: the module {module} belongs to no layer; add it to tools/layers.py."]
    package = ".".join([PACKAGE, *path.relative_to(library).parts[:-1]])
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    for name, line, top in imports(tree, package):
        first, _, rest = name.partition(".")
        where, own = f"{path.name}:{line}", rest.split(".")[0]
        inner = own in table or (library / f"{own}.py").exists()
        if first == PACKAGE and inner and own not in table[module] | {module}:
            found.append(f"{where}: {module} may not import {own} (see tools/layers.py).")
        if module not in KEPT_TO.get(first, {module}):
            found.append(f"{where}: only {sorted(KEPT_TO[first])} may import {first}.")
        if top and first in INSIDE and module not in KEPT_TO.get(first, set()) - {"fit"}:
            found.append(f"{where}: import {first} inside the function that needs it.")
    return found
