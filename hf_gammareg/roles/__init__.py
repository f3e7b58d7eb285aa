"""The method: which role each gamma plays.

Read `table` (rows of text), `gammas` (the records), `scale` (how a factor passes an op), `sums` (chains of adds),
`residual` (where branch and skip meet), `sites` (where a gamma multiplies), `walk` (from a site to its fates), `find`
(a model's analysis); and the same by numbers: `rerun` (a pass on other values), `meeting`, `gains`, `measure`.
"""
