"""Which gammas decay, and what comes of it: the same network trained under several arms that differ in nothing else.

In import order: `config` (what is fixed beforehand), `arms` (which gammas decay, and which runs that makes), `measures`
(what is looked at during a run), `loop`, `images`, `gpt` and `sentences` (one run), `runs` (all of them, side by side,
resumed), `statistics` (paired differences and verdicts), `comparisons` (those that count, corrected for their number),
`tables`, `plots`, `results` and `card` (what is told of them).
"""
