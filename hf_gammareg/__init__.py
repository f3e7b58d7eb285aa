"""Weight decay on normalization gains (gammas), by the role each plays in the residual network.

    import hf_gammareg
    print(hf_gammareg.find_gammas(model))
    groups = hf_gammareg.param_groups(model, weight_decay=0.05)

The house, in import order; each room's own docstring says what to read first:

- `model`: what a model says of itself (names, wrappers, values);
- `graph` (a model as a graph of activations), `inputs` (what to feed it), `resume` (optimizer state by name);
- `roles`: the method, from a graph to the role of each gamma;
- `decay` (from roles to decisions and optimizer groups) and `show` (tables, cards, pictures);
- `watch`: training observed;
- the doors: `trainer` (transformers), `timm`, `cli`.
"""

import lazy_loader

__version__ = "0.1.0"

# Names are looked up on first use, so that `import hf_gammareg` pulls in neither timm nor transformers. They are
# listed, with their types, in __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
