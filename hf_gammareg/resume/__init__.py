"""Optimizer state and checkpoints, by parameter name.

Read `matching` (a state goes to the parameters it belongs to) and `checkpoint` (a folder that is whole, weights under
the names of the Hub).
"""
