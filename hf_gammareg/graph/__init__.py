"""A model as a graph of activations.

Read `ops` (what each op does to a scale, and why), `nodes` (the graph), `program` (an exported program, read),
`capture` (from a model to its graph), `replay` (the same program run on real values).
"""
