"""Training observed.

Read `history` (a file of rows, and its plot), `probe` (variances of branch and skip), `monitor` (both, by role),
`page` (histories of several runs, for a browser).
"""
