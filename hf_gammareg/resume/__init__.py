"""Optimizer state and checkpoints, by parameter name.

Read `matching` (a state goes to the parameters it belongs to), `scheduler` (learning rates go with it), `plain` (ours
for those who load by position) and `checkpoint` (a folder that is whole, weights under the names of the Hub).
"""
