"""A model as a graph of activations.

Read `rows` (what can be said of an op), `ops` (the table: what is said of each, by `rules` where its arguments decide),
`rewrite` (what is several ops in one, written out), `custom` (a user's own), `runs` (other ways to run one), `nodes`
(the graph), `program` (an exported program, read), `capture` (from a model to its program), `record` (by one
real run, where it can't be exported), `chance`, `untouched` and `writes` (what is held, and put back, meanwhile),
`functional` (without ops in place) and `replay` (run on real values).
"""
