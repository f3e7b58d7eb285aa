"""The door for `transformers`.

Read `telling` (what is said), `resume` and `card` (what a Trainer saves), `apart` and `looking` (what its model is
analysed by, and how that changes nothing), `monitor` (a callback), `given` (what an override was given), `arguments`
(the options), `trainer` (the Trainer and its mixin).
"""
