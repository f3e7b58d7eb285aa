"""What a model says of itself.

Read `names` (parameters by what wraps what), `whole` (the model inside wrappers, or in place of one that is sharded),
`quantised` (packed weights, traced as plain ones), `values` (parameters gathered from all ranks), `known` (integers
with values on the meta device), `layouts` (the parameter groups of plain libraries).
"""
