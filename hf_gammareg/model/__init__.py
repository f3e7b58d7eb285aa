"""What a model says of itself.

Read `names` (parameters by what wraps what), `whole` (the model inside wrappers, or in place of one that is sharded),
`values` (parameters gathered from all ranks), `known` (integers with values on the meta device), `layouts` (the
parameter groups of plain libraries).
"""
